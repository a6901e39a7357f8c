"""python -m bench.crash, which is python -m bench crash."""

import sys

from bench.crash.command import main

if __name__ == "__main__":
    sys.exit(main())
