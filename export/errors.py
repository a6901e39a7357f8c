"""What stops an export."""

from __future__ import annotations

from server.errors import TwinlensError

_OUT_OF_MEMORY = ("not enough memory", "DefaultCPUAllocator")


class ExportRefused(TwinlensError):
    """The export cannot be done; nothing was written."""

    code = "export_refused"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, or one of its causes, is a lack of memory: torch raises a plain RuntimeError for that."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError):
            return True
        if isinstance(link, RuntimeError) and any(words in str(link) for words in _OUT_OF_MEMORY):
            return True
        link = link.__cause__
    return False
