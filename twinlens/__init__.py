"""Twinlens: search by image for product catalogues. A picture always finds itself.

    from twinlens import Client

    with Client("https://search.shop.example", key=key) as client:
        for match in client.search("shoe.jpg", limit=5).results:
            print(match.product_id, match.similarity)

This is the package that the distribution `twinlens` installs. The server, the export and the bench are no part of it:
they run from a checkout or an image, as `python -m server`, `python -m export` and `python -m bench`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from twinlens.errors import (
    AnswerUnreadable,
    BadRequest,
    Conflict,
    ConnectionFailed,
    DeadlinePassed,
    FailedDependency,
    Forbidden,
    NotFound,
    PictureNotFetched,
    PreconditionFailed,
    RateLimited,
    Refused,
    ServerError,
    TooLarge,
    TwinlensError,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedMediaType,
)
from twinlens.search_keys import derive_search_key

if TYPE_CHECKING:
    from twinlens.async_client import AsyncClient
    from twinlens.client import Client
    from twinlens.query import Part
    from twinlens.uploads import Upload, Uploaded, UploadReport
    from twinlens.wire import Delete, Upsert

__all__ = [
    "AnswerUnreadable",
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "DeadlinePassed",
    "Delete",
    "FailedDependency",
    "Forbidden",
    "NotFound",
    "Part",
    "PictureNotFetched",
    "PreconditionFailed",
    "RateLimited",
    "Refused",
    "ServerError",
    "TooLarge",
    "TwinlensError",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMediaType",
    "Upload",
    "UploadReport",
    "Uploaded",
    "Upsert",
    "derive_search_key",
]

__version__ = "0.1.0"

# Loaded when they are first asked for: who only derives search keys has no use for an HTTP library.
_LATER = {
    "AsyncClient": "twinlens.async_client",
    "Client": "twinlens.client",
    "Delete": "twinlens.wire",
    "Part": "twinlens.query",
    "Upload": "twinlens.uploads",
    "UploadReport": "twinlens.uploads",
    "Uploaded": "twinlens.uploads",
    "Upsert": "twinlens.wire",
}


if not TYPE_CHECKING:  # which would take any name for one that is here

    def __getattr__(name: str) -> Any:
        if (module := _LATER.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(module), name)
