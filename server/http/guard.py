"""Where no key is needed, on loopback: of what pages in the operator's browser send, only our own page's is answered.

Any page that the browser has open can send requests to this machine's ports. Two kinds of pages could do harm. One of
another site can send a form, and so add a picture or search, although it cannot read the answer: browsers say where
such a request comes from, in `Origin` and `Sec-Fetch-Site`. And one whose name was made to lead to 127.0.0.1 after it
was loaded (DNS rebinding) could read all answers, since for the browser it is our own: it is known by its `Host`.

With keys nothing of this is needed. No browser sends a key by itself, as it sends cookies, so a page that does not know
one can do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from server.errors import Forbidden, HostRefused, OriginRefused
from server.http import problems
from server.lifespan import Services
from server.settings import Settings

_SAFE = ("GET", "HEAD", "OPTIONS")
_PORTS = {"http": "80", "https": "443"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")


def guard(settings: Settings, origins: Collection[str] = ()) -> Callable[[ASGIApp], ASGIApp]:
    """What to put around the app: it refuses requests as long as no key is needed on loopback.

    `origins`: of pages elsewhere that may call all the same. Where the server listens beyond loopback nothing is
    refused here: there a key is needed, or a gateway decides who may call, and from which pages.
    """
    names = frozenset({"localhost", "127.0.0.1", "[::1]", _bracketed(settings.host.lower())})

    def create(app: ASGIApp) -> ASGIApp:
        if settings.exposed or settings.trust_network:
            return app

        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == ScopeType.HTTP and not _needs_key(scope):
                refused = _refusal(scope, names, origins)
                if refused is not None:
                    await problems.answer(refused, scope, receive, send)
                    return
            await app(scope, receive, send)

        return middleware

    return create


def _needs_key(scope: Scope) -> bool:
    """As last known: while the database is away, too, a server with keys is called by any name."""
    services: Services | None = getattr(scope["litestar_app"].state, "services", None)
    return services is not None and services.keyring.on


def _refusal(scope: HTTPScope, names: Collection[str], origins: Collection[str]) -> Forbidden | None:
    """Why the request is refused; None where it is not. What no browser sends, such as a missing Host, is let in."""
    hosts, origin, site = [], None, None
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value.decode("latin-1").lower())
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"sec-fetch-site":
            site = value.decode("latin-1")
    if any(_parts(host)[0] not in names for host in hosts):
        return HostRefused()
    if scope["method"] in _SAFE or (origin is not None and origin in origins):
        return None
    # Another port is another program, and the same site.
    if site not in (None, "same-origin", "none"):
        return OriginRefused()
    if origin is None or any(_is_own(origin, scope["scheme"], host) for host in hosts):
        return None
    # A proxy on this machine has put another name or port into Host. The browser itself says that the page is the
    # server's own, and its name shows that it was not made to lead here.
    if site == "same-origin" and _parts(origin.lower().partition("://")[2])[0] in names:
        return None
    return OriginRefused()


def _is_own(origin: str, scheme: str, host: str) -> bool:
    """Whether a page of this origin came from this server."""
    given, _, place = origin.lower().partition("://")
    usual = _PORTS.get(scheme, "")
    one, other = _parts(place), _parts(host)
    return given == scheme and (one[0], one[1] or usual) == (other[0], other[1] or usual)


def _parts(host: str) -> tuple[str, str]:
    """The name and the port of a `Host`; ("", "") for what is none."""
    found = _HOST.fullmatch(host)
    return (found[1], found[2] or "") if found else ("", "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
