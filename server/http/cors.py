"""Pages of other origins: which may call, and what of an answer they may read (CORS, as the Fetch standard has it).

Litestar's own middleware runs only where a route matches and not for answers that are made around it, allows what
it allows at every address alike, and reads its origins from a configuration rather than from what the database says
of keys. This goes around the whole app, so that a page can read errors, too.

Credentials are never allowed: nothing here depends on a cookie, and a page that calls has a key of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.access.keyring import Keyring
from server.errors import KeysUnknown
from server.http.idempotency import IDEMPOTENCY_HEADER, REPLAYED_HEADER
from server.http.problems import REQUEST_ID_HEADER
from server.http.request import DEADLINE_HEADER, LANE_HEADER
from server.http.rules import RULES
from server.lifespan import Services
from server.settings import ANY_ORIGIN, Settings

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
HEADERS = (
    "Authorization",
    "X-API-Key",
    "Content-Type",
    "Content-Encoding",
    "If-Match",
    "If-None-Match",
    IDEMPOTENCY_HEADER,
    DEADLINE_HEADER,
    LANE_HEADER,
    REQUEST_ID_HEADER,
    "traceparent",
    "tracestate",
)
EXPOSED = (
    "ETag",
    "Server-Timing",
    "Retry-After",
    REQUEST_ID_HEADER,
    REPLAYED_HEADER,
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
    "Allow",
    "Twinlens-Space",
    "Twinlens-Dimensions",
)

ANYBODY = "Access-Control-Allow-Origin"
"""The header of an answer that says by itself whose pages may read it: nothing is added to it here."""

# For so long a browser need not ask again; Chromium takes no more.
_PREFLIGHT_SECONDS = 7200

_VARY_OF_PREFLIGHTS = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


def allowed_origin(settings: Settings, origin: str) -> bool:
    """Whether the operator has named this origin: its pages may call all that their key opens."""
    return origin in named_origins(settings)


def named_origins(settings: Settings) -> frozenset[str]:
    """Those for which `allowed_origin` is true."""
    return frozenset(settings.cors_origins) - {ANY_ORIGIN}


def cross_origin(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Answer preflights, and let pages of the settings' origins read answers. The app itself where there are none.

    `*` among the origins lets any page read the answers of calls that the scope `search` opens, as long as keys are
    on: without keys, any page that the operator's browser visits could read the catalogue.
    """
    if not settings.cors_origins:
        return app

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        origin = _header(scope, b"origin")
        preflighted = _header(scope, b"access-control-request-method") if scope["method"] == "OPTIONS" else ""
        allow = _allowed(scope, settings, origin, preflighted or scope["method"]) if origin else ""
        if preflighted and allow:
            await _answer_preflight(send, allow)
            return
        vary = _VARY_OF_PREFLIGHTS if scope["method"] == "OPTIONS" else ("Origin",)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = _with_vary(message.get("headers", ()), vary)
                if allow and not any(name.lower() == ANYBODY.lower().encode() for name, _ in headers):
                    headers.append((b"access-control-allow-origin", allow.encode()))
                    headers.append((b"access-control-expose-headers", ", ".join(EXPOSED).encode()))
                message["headers"] = headers
            await send(message)

        await app(scope, receive, answer)

    return middleware


def _allowed(scope: Scope, settings: Settings, origin: str, method: str) -> str:
    """What Access-Control-Allow-Origin says; empty for an origin whose pages may read nothing."""
    if allowed_origin(settings, origin):
        return origin
    if ANY_ORIGIN in settings.cors_origins and _opened_by_search(scope, method) and _keys_needed(scope):
        return ANY_ORIGIN
    return ""


def _opened_by_search(scope: Scope, method: str) -> bool:
    """Whether the scope `search` opens the call, by its address: its route has not been found yet."""
    method = "GET" if method == "HEAD" else method
    try:
        found = scope["litestar_app"].asgi_router.handle_routing(path=scope["path"].rstrip("/") or "/", method=method)
    except (HTTPException, KeyError):  # KeyError: a word that is no method
        return False
    rule = RULES.get((method, found[-1]))
    return rule is not None and "search" in rule.scopes


def _keys_needed(scope: Scope) -> bool:
    services: Services | None = getattr(scope["litestar_app"].state, "services", None)
    if services is None:
        return False
    keyring: Keyring = services.keyring
    try:
        return keyring.needed
    except KeysUnknown:
        return True  # nobody is let in, and a page may read that


async def _answer_preflight(send: Send, allow: str) -> None:
    headers = [
        (b"access-control-allow-origin", allow.encode()),
        (b"access-control-allow-methods", ", ".join(METHODS).encode()),
        (b"access-control-allow-headers", ", ".join(HEADERS).encode()),
        (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
    ]
    headers = _with_vary(headers, _VARY_OF_PREFLIGHTS)
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_vary(given: Iterable[tuple[bytes, bytes]], names: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The headers with these names in Vary, which may name others already."""
    headers = list(given)
    said = [value.decode("latin-1") for name, value in headers if name.lower() == b"vary"]
    if said == ["*"]:
        return headers
    others = [(name, value) for name, value in headers if name.lower() != b"vary"]
    return [*others, (b"vary", ", ".join([*said, *names]).encode("latin-1"))]


def _header(scope: Scope, name: bytes) -> str:
    """The header's value; empty where it is missing or comes more than once."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""
