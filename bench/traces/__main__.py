"""python -m bench.traces, which is python -m bench trace."""

import sys

from bench.traces.command import main

if __name__ == "__main__":
    sys.exit(main())
