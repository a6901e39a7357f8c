"""What a key allows: scopes, and who a caller is once its key is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from server.access.clients import DEFAULT_CLIENT
from server.errors import BadParameter, ClientMismatch, ClientRequired

Scope = Literal["search", "read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

EVERYBODY = "*"
"""In place of a client: work for a key that is every client's. No client can have this name."""

_INCLUDED: Mapping[Scope, frozenset[Scope]] = {
    "search": frozenset({"search"}),
    "read": frozenset({"read"}),
    "write": frozenset({"write", "read"}),
    "admin": frozenset(SCOPES),
}


def scopes_of(named: str) -> tuple[Scope, ...]:
    """Scopes from a list as a person writes it, `search,read`, in the order of `SCOPES`. Raises BadParameter."""
    given = [one.strip() for one in named.split(",") if one.strip()]
    unknown = [one for one in given if one not in SCOPES]
    if unknown or not given:
        raise BadParameter(f"A scope is one of {', '.join(SCOPES)}, not {(unknown or [named])[0][:40]!r}.")
    return tuple(scope for scope in SCOPES if scope in given)


def included(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    """All that a key with these scopes may do."""
    return frozenset().union(*(_INCLUDED[scope] for scope in scopes))


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a search key that was derived from another key allows: only searches, and these only."""

    filter: Mapping[str, Any] | None = None
    """As in a search request, with the fields `productIds`, `kind` and `attributes`; ANDed to each query's own."""
    limit: int | None = None
    """At most so many matches a search."""
    origins: tuple[str, ...] | None = None
    """The pages that may use it, by their `Origin`; None: any."""
    rate: float | None = None
    """Requests a second."""
    fields: tuple[str, ...] = ()
    """What it may show of products beyond their names, as in a search request."""
    id: str = ""
    """Tells search keys of the same parent apart: the beginning of the digest of the whole key."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what they may."""

    scopes: frozenset[Scope]
    client_id: str | None = None
    """The key's client; None: any, which the request names."""
    key_id: str | None = None
    """None where callers need no key."""
    narrowing: Narrowing | None = None
    """Of a derived search key."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of the key, by name."""
    usual: str | None = None
    """Where callers need no key: the client of one that was sent all the same, for requests that name none."""

    def client_for(self, named: str | None, *, needed: bool = True) -> str:
        """The client of a request that names this one, or none. `needed`: whether the request is about one client's
        catalogue; where it is not, a key that is every client's gives `EVERYBODY` unless one is named.

        Raises ClientMismatch where the key is another client's, ClientRequired where any would do and none is named.
        """
        if self.client_id is not None:
            if named is not None and named != self.client_id:
                raise ClientMismatch
            return self.client_id
        if named is None and self.key_id is not None:
            if needed:
                raise ClientRequired
            return EVERYBODY
        return named or self.usual or DEFAULT_CLIENT


ANYBODY = Principal(frozenset(SCOPES))
"""A caller where no key is needed."""
