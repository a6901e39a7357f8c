"""`python -m server` with calls that fail in every way that nobody foresees, for tests of what the log makes of them.

Its workers are spawned: each imports this module again, as its parent did, and so has these calls, too.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings

from litestar import get
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from server import app
from server.http.draining import draining

FORGED = '{"level": "error", "message": "forged"}'


class _Unruly:
    def __del__(self) -> None:
        raise RuntimeError("that nobody can be told of")


def _fail_in_thread() -> None:
    raise RuntimeError("of a thread")


@get("/fails")
async def fails() -> None:
    """Warns, fails beside itself, writes past the log, and fails."""
    warnings.warn("a warning\nof two lines", stacklevel=1)
    _Unruly()
    thread = threading.Thread(target=_fail_in_thread)
    thread.start()
    thread.join()
    os.write(2, b"[E:library.cc:7] a bare line\n")
    print("a printed line", flush=True)
    raise RuntimeError(f"of several lines\n{FORGED}")


def _draining(inner: ASGIApp, *, most: int) -> ASGIApp:
    drained = draining(inner, most=most)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] == "/breaks":
            raise RuntimeError("outside of all that answers")
        await drained(scope, receive, send)

    return middleware


if __name__ != "tests.support.faulty":  # this process is a server
    app.HANDLERS = [*app.HANDLERS, fails]
    vars(app)["draining"] = _draining

if __name__ == "__main__":
    from server.__main__ import main

    sys.exit(main())
