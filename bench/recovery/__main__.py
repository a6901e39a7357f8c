"""python -m bench.recovery, which is python -m bench recovery."""

import sys

from bench.recovery.command import main

if __name__ == "__main__":
    sys.exit(main())
