"""`python -m server` to which two pictures are poison: one kills the process; after the other one it decodes nothing,
until the file of the variable is there.

To a server without this they are pictures like any other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from server.preprocessing import media
from tests.support.pending import picture

KILLS = picture(1) + b"kills"
HANGS = picture(2) + b"hangs"

UNTIL = "TESTS_HANGS_UNTIL"
"""The variable that names a file; without it, nothing is ever decoded again."""

_decode = media.decode
_hangs = threading.Event()


def decode(data: bytes, **options: Any) -> media.Picture:
    """As `media.decode`."""
    if data == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == HANGS:
        os.write(2, b"This picture hangs\n")
        _hangs.set()
    while _hangs.is_set() and not (UNTIL in os.environ and Path(os.environ[UNTIL]).exists()):
        time.sleep(0.01)
    return _decode(data, **options)


if __name__ == "__main__":
    from server.__main__ import main

    vars(media)["decode"] = decode
    sys.exit(main())
