"""Paths by what was sent, so that an id may hold anything: `gid://shopify/1` is sent as `gid%3A%2F%2Fshopify%2F1`.

What servers hand on as the path has its escapes resolved already, and then nobody can tell a slash of an id from one
between segments. So here each segment is resolved by itself, once. A path is the segments with slashes in between,
where a slash within a segment stands as `%2F` and a per cent sign as `%25`: readable, and no two addresses share one.
Routes are found by it, and the log, traces and the audit have it.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from server.errors import BadParameter

_UNREADABLE = "unreadable_path"


def escaped(segment: str) -> str:
    """A segment as it stands in a path."""
    return segment.replace("%", "%25").replace("/", "%2F")


def resolved(segment: str) -> str:
    """The segment again."""
    return segment.replace("%2F", "/").replace("%25", "%")


def by_raw_path(app: ASGIApp) -> ASGIApp:
    """Have all that is inside find the path as above. Goes around the whole app."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        # Nearly all paths have no escapes.
        if scope["type"] == ScopeType.HTTP and b"%" in (raw := _raw_path(scope)):
            segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
            try:
                scope["path"] = "/".join(escaped(segment.decode()) for segment in segments)
            except UnicodeDecodeError:
                scope["path"] = "/".join(escaped(segment.decode(errors="replace")) for segment in segments)
                scope.setdefault("state", {})[_UNREADABLE] = True
        await app(scope, receive, send)

    return middleware


def with_ids(app: ASGIApp) -> ASGIApp:
    """Have a route's parameters be what the segments mean. Goes around each handler, the first of all."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        found = scope["path_params"]
        if "%" in scope["path"] and found:
            # A new dictionary: the router keeps the other one for the next request of this path.
            scope["path_params"] = {
                name: resolved(value) if isinstance(value, str) else value for name, value in found.items()
            }
        await app(scope, receive, send)

    return middleware


def require_readable(scope: Scope) -> None:
    """Raises BadParameter for a request whose path is not UTF-8: what its parameters are nobody knows."""
    if scope["state"].get(_UNREADABLE):
        raise BadParameter("The address is not UTF-8 once its percent-encoding is resolved.")


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent; where the server does not say, as it would have been sent."""
    raw = scope.get("raw_path")
    # Some that call the app directly, without a server, leave the query in it.
    return raw.partition(b"?")[0] if raw else scope["path"].replace("%", "%25").encode(errors="surrogateescape")
