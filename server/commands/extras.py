"""What a command needs beside the server's own packages."""

from __future__ import annotations

import importlib.util

from server.errors import ExtraMissing


def require(module: str, extra: str) -> None:
    """That a module is installed, which comes with this extra. Raises ExtraMissing."""
    if importlib.util.find_spec(module) is None:
        raise ExtraMissing(module, extra)
