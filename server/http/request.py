"""Who calls. There are no keys yet: the request names its client, and the network decides who may call at all."""

from __future__ import annotations

import re
from typing import Any

import litestar
from litestar.datastructures import State

from server.errors import BadParameter

Request = litestar.Request[Any, Any, State]

DEFAULT_CLIENT = "demo"

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@-]{0,127}")


def check_id(what: str, text: str) -> str:
    """An id as callers may choose it, for clients, products and media. Raises BadParameter."""
    if not _ID.fullmatch(text):
        raise BadParameter(
            f"{what} must be 1 to 128 letters, digits or . _ : @ - and start with a letter, a digit or _."
        )
    return text


def client_of(request: Request, named: str | None = None) -> str:
    """The client a request is for: its `clientId` query parameter, the body's field, or `demo`.

    Raises BadParameter for an id that cannot be one, and where query and body disagree.
    """
    queried = request.query_params.get("clientId")
    if queried and named and queried != named:
        raise BadParameter("clientId is given twice, in the query and in the body, with different values.")
    return check_id("clientId", queried or named or DEFAULT_CLIENT)
