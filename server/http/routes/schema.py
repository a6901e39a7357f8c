"""The API's description, for programs and for people."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, get

from server.http.openapi import MEDIA_TYPE, document
from server.http.prefix import HEADER as PREFIX_HEADER
from server.http.prefix import prefix_of
from server.http.request import Request
from server.http.routes.page import WEB
from server.http.security import PAGE

_KEY = "openapi_document"


@get(["/schema", "/schema/openapi.json"], include_in_schema=False)
async def openapi(request: Request) -> Response[bytes]:
    """The description, OpenAPI as JSON; its server is the prefix that a proxy names."""
    servers = [{"url": prefix_of(request) or "/"}]
    described = msgspec.json.encode({**_described(request.app), "servers": servers})
    return Response(described, media_type=MEDIA_TYPE, headers={"Vary": PREFIX_HEADER})


@get("/schema/swagger", include_in_schema=False)
async def swagger(request: Request) -> Response[bytes]:
    """A page that shows the description and tries its calls."""
    # Its relative addresses would be wrong there; the path itself has been brought to one form already.
    if (request.scope["raw_path"] or b"").partition(b"?")[0].endswith(b"/"):
        return Response(b"", status_code=307, headers={"Location": "../swagger"})
    headers = {**PAGE, "Cache-Control": "no-cache"}
    return Response((WEB / "swagger.html").read_bytes(), media_type=MediaType.HTML, headers=headers)


def _described(app: Litestar) -> dict[str, Any]:
    """The document, which is made once: that takes longer than most answers may delay each other."""
    if (found := app.state.get(_KEY)) is None:
        found = app.state[_KEY] = document(app.routes)
    return dict(found)
