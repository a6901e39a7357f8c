"""`Send` to httpx's requests and back, for both clients."""

from __future__ import annotations

from typing import Any

import httpx

import twinlens
from twinlens.conversation import Broken, Send
from twinlens.request import Answer

HEADERS = {"User-Agent": f"twinlens/{twinlens.__version__}"}

TOO_MUCH = Broken("the answer is too large")
LATE = Broken("the time was over", late=True)


def arguments(send: Send) -> dict[str, Any]:
    """Those of httpx's `stream`."""
    given: dict[str, Any] = {
        "method": send.method,
        "url": send.url,
        "headers": send.headers,
        "timeout": send.seconds,
        "follow_redirects": False,  # the key would go along
    }
    if send.files:
        # The server reads what a picture is from its bytes, and has no use for its name.
        given["files"] = [("file", ("picture", file, "application/octet-stream")) for file in send.files]
        given["data"] = dict(send.fields)
    elif send.content is not None:
        given["content"] = send.content
    return given


def answer_of(response: httpx.Response, content: bytes) -> Answer:
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


def broken(exc: httpx.HTTPError | httpx.InvalidURL) -> Broken:
    """Why there was no answer."""
    if isinstance(exc, httpx.TimeoutException):
        return LATE
    said = " ".join(str(exc).split()).rstrip(".")
    if isinstance(exc, httpx.RemoteProtocolError):
        said = said or "the connection was closed"
    return Broken(said or type(exc).__name__)
