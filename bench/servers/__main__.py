"""python -m bench.servers, which is python -m bench servers."""

import sys

from bench.servers.command import main

if __name__ == "__main__":
    sys.exit(main())
