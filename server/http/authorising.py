"""Around each handler: who calls is found out before anything of the body is read, and refused where it may not."""

from __future__ import annotations

from collections.abc import Mapping

from litestar.types import ASGIApp, Receive, Scope, Send

from server.access.scopes import ANYBODY, Principal
from server.errors import KeyMissing, ScopeMissing
from server.http.narrowing import admit_search_key
from server.http.request import PRINCIPAL
from server.http.rules import Rule, rule_of
from server.lifespan import Services


def authorised(app: ASGIApp) -> ASGIApp:
    """Refuse callers whom the route's rule does not let in; for the others, keep who they are.

    Raises the kinds of KeyRefused and Forbidden, and KeysUnknown.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        rule = rule_of(scope)
        scope["state"][PRINCIPAL] = ANYBODY if rule.open else _admit(scope, rule)
        await app(scope, receive, send)

    return middleware


def _admit(scope: Scope, rule: Rule) -> Principal:
    services: Services = scope["litestar_app"].state.services
    keyring = services.keyring
    if not keyring.needed:
        return ANYBODY
    presented = presented_key(scope)
    if presented is None:
        raise KeyMissing
    principal = keyring.principal(presented)
    if not principal.scopes & set(rule.scopes):
        raise ScopeMissing(*rule.scopes)
    if principal.narrowing is not None:
        admit_search_key(principal.narrowing, rule, scope)
    return principal


def presented_key(scope: Scope) -> str | None:
    """The key that a request brings; None where it brings none."""
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    bearer, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if bearer.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None
