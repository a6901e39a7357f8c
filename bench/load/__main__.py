"""python -m bench.load, which is python -m bench load."""

import sys

from bench.load.command import main

if __name__ == "__main__":
    sys.exit(main())
