"""Who calls. There are no keys yet: the request names its client, and the network decides who may call at all."""

from __future__ import annotations

from typing import Any

import litestar
from litestar.datastructures import State

from server.access.clients import DEFAULT_CLIENT, check_id
from server.errors import BadParameter

Request = litestar.Request[Any, Any, State]


def client_of(request: Request, named: str | None = None) -> str:
    """The client a request is for: its `clientId` query parameter, the body's field, or `demo`.

    Raises BadParameter for an id that cannot be one, and where query and body disagree.
    """
    queried = request.query_params.get("clientId")
    if queried and named and queried != named:
        raise BadParameter("clientId is given twice, in the query and in the body, with different values.")
    return check_id("clientId", queried or named or DEFAULT_CLIENT)
