"""python -m bench.fuzz, which is python -m bench fuzz."""

import sys

from bench.fuzz.command import main

if __name__ == "__main__":
    sys.exit(main())
