"""Who may call what: every route with the scopes that open it. A route that is not here is open to no key but admin's.

The tests read this table: each route must stand here, and `tests/server/http/test_access.py` tries each with every kind
of key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from litestar.enums import ScopeType
from litestar.types import Scope as Connection

from server.access.scopes import Scope


@dataclass(frozen=True, slots=True)
class Rule:
    """What a caller of a route needs."""

    scopes: tuple[Scope, ...] = ()
    """Any one of them is enough. Where there are none, the route needs no key at all."""
    client: bool = True
    """Whether a request is about one client's catalogue: then a key that is every client's must name one."""
    derived: bool = False
    """Whether search keys, which were derived from a key of scope `search`, open it, too."""
    signed: bool = False
    """Whether a signature in the address does in place of a key."""
    audited: bool = False
    """Whether each request is kept in the audit, refused or not: those that change what is there."""

    @property
    def open(self) -> bool:
        return not self.scopes


OPEN = Rule(client=False)
_SEARCH = Rule(("search",), derived=True)
_SEARCH_V1 = Rule(("search", "write"), derived=True)
_EMBED = Rule(("search",), client=False)
_EMBED_V1 = Rule(("search", "write"), client=False)
_READ = Rule(("read",))
_WRITE = Rule(("write",), audited=True)
ADMIN = Rule(("admin",), client=False)

RULES: Mapping[tuple[str, str], Rule] = {
    ("POST", "/embed-image"): _EMBED,
    ("POST", "/api/search/by-image"): _SEARCH,
    ("POST", "/v1/embeddings"): _EMBED_V1,
    ("POST", "/v1/search"): _SEARCH_V1,
    ("GET", "/v1/products"): _READ,
    ("PUT", "/v1/products/{product_id}"): _WRITE,
    ("PATCH", "/v1/products/{product_id}"): _WRITE,
    ("GET", "/v1/products/{product_id}"): _READ,
    ("DELETE", "/v1/products/{product_id}"): _WRITE,
    ("POST", "/v1/products:batch"): _WRITE,
    ("GET", "/v1/attributes"): _READ,
    ("PUT", "/v1/attributes"): _WRITE,
    ("POST", "/v1/products/{product_id}/media"): _WRITE,
    ("GET", "/v1/products/{product_id}/media"): _READ,
    ("PUT", "/v1/media/{media_id}"): _WRITE,
    ("PATCH", "/v1/media/{media_id}"): _WRITE,
    ("GET", "/v1/media/{media_id}"): _READ,
    ("DELETE", "/v1/media/{media_id}"): _WRITE,
    ("GET", "/v1/media/{media_id}/duplicates"): _READ,
    ("GET", "/v1/media/{media_id}/regions"): Rule(("search", "read"), derived=True),
    ("GET", "/v1/media/{media_id}/thumbnail"): Rule(("search", "read"), derived=True, signed=True),
    ("GET", "/v1/media/{media_id}/file"): Rule(("read",), signed=True),
    ("GET", "/health/live"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("GET", "/metrics"): ADMIN,
    ("GET", "/v1/operator"): ADMIN,
    ("GET", "/operator/report"): ADMIN,
    ("GET", "/operator"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/web/{name}"): OPEN,
    ("GET", "/web/swagger-ui/{name}"): OPEN,
    ("GET", "/schema"): OPEN,
    ("GET", "/schema/openapi.json"): OPEN,
    ("GET", "/schema/swagger"): OPEN,
}
"""By method and path. HEAD is as GET, and OPTIONS, which only says which methods there are, is open."""


def rule_of(scope: Connection) -> Rule:
    """The rule of a request whose route has been found."""
    if scope["type"] != ScopeType.HTTP:
        return ADMIN
    if scope["method"] == "OPTIONS":
        return OPEN
    return rule_for(scope["method"], scope.get("path_template") or "")


def rule_for(method: str, path: str) -> Rule:
    """The rule of a method and a route's path, with its parameters in braces."""
    return RULES.get((method, path), ADMIN)
