"""python -m bench.decoders, which is python -m bench decoders."""

import sys

from bench.decoders.command import main

if __name__ == "__main__":
    sys.exit(main())
