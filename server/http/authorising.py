"""Around each handler: who calls is found out before anything of the body is read, and refused where it may not."""

from __future__ import annotations

import time
from dataclasses import replace

from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from server.access.keyring import Keyring
from server.access.scopes import ANYBODY, Principal
from server.errors import Forbidden, KeyInvalid, KeyMissing, KeyRefused, ScopeMissing
from server.http.narrowing import admit_search_key
from server.http.request import PRINCIPAL, Request, queried_client
from server.http.rules import Rule, rule_of
from server.http.signed import signed_for
from server.lifespan import Services

SLOW_SECONDS = 1.0
"""After so long a body is slow, and who sends it is asked for once more."""


def authorised(app: ASGIApp) -> ASGIApp:
    """Refuse callers whom the route's rule does not let in; for the others, keep who they are.

    Raises the kinds of KeyRefused and Forbidden, KeysUnknown, and BadParameter for a query that names two clients.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        rule = rule_of(scope)
        principal = scope["state"][PRINCIPAL] = ANYBODY if rule.open else _admit(scope, rule)
        await app(scope, _asking_again(scope, receive) if principal.key_id is not None else receive, send)

    return middleware


def _asking_again(scope: Scope, receive: Receive) -> Receive:
    """Look at the key once more when the end of a slow body has come: it may have been revoked meanwhile.

    Else whoever has a key that is about to be revoked could begin any number of writes, and end them after that.
    Raises KeyInvalid and KeysUnknown.
    """
    keyring: Keyring = scope["litestar_app"].state.services.keyring
    admitted = time.monotonic()

    async def checked() -> ReceiveMessage:
        message = await receive()
        ended = message["type"] == "http.request" and not message.get("more_body")
        if ended and time.monotonic() - admitted > SLOW_SECONDS and keyring.needed:
            keyring.principal(presented_key(scope) or "")
        return message

    return checked


def _admit(scope: Scope, rule: Rule) -> Principal:
    services: Services = scope["litestar_app"].state.services
    keyring = services.keyring
    needed = keyring.needed
    if rule.signed and (principal := signed_for(scope, rule, keyring.url_secret)) is not None:
        return principal
    if not needed:
        return _anybody(scope, keyring)
    presented = presented_key(scope)
    if presented is None:
        raise KeyMissing
    principal = keyring.principal(presented)
    if not principal.scopes & set(rule.scopes):
        raise ScopeMissing(*rule.scopes)
    if principal.narrowing is not None:
        admit_search_key(principal.narrowing, rule, scope)
    if scope["query_string"] and (named := queried_client(Request(scope))):
        # Refused here where it is another client, before anything of the body is read.
        principal.client_for(named, needed=False)
    return principal


def _anybody(scope: Scope, keyring: Keyring) -> Principal:
    """A caller where no key is needed. One that is sent all the same says whose a request is that names no client.

    Else, from the moment that keys are turned off, what programs with a key send would go to the client that is meant
    where none is named.
    """
    if not any(name in _BRINGING for name, _ in scope["headers"]):
        return ANYBODY
    try:
        presented = presented_key(scope)
        return replace(ANYBODY, usual=keyring.principal(presented).client_id) if presented is not None else ANYBODY
    except (KeyRefused, Forbidden):
        return ANYBODY


_BRINGING = (b"authorization", b"x-api-key")


def presented_key(scope: Scope) -> str | None:
    """The key that a request brings, in `Authorization: Bearer` or in `X-API-Key`; None where it brings none.

    An Authorization of another scheme, such as Basic, is for somebody else, say a gateway in between, and brings no
    key. Raises KeyInvalid where a header comes twice, or both come with different keys: what checks a request on its
    way here might have looked at the other one.
    """
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name not in _BRINGING:
            continue
        if name in found:
            raise KeyInvalid(f"The header {name.decode()} comes twice.")
        found[name] = value.decode("latin-1").strip()
    scheme, _, bearer = found.get(b"authorization", "").partition(" ")
    keys = {bearer.strip() if scheme.lower() == "bearer" else "", found.get(b"x-api-key", "")} - {""}
    if len(keys) > 1:
        raise KeyInvalid("Authorization and X-API-Key bring different keys: send one.")
    return next(iter(keys), None)
