"""python -m bench.profiling, which is python -m bench profile."""

import sys

from bench.profiling.command import main

if __name__ == "__main__":
    sys.exit(main())
