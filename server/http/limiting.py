"""Around each handler: callers who have asked for more than they may are refused before anything of the body is read.

A request, and that it is being answered, is counted here; the bytes of its body as they come; its pictures once the
form was read (bodies.py). Where no key is needed the request names its client: in its query, which is known here, or in
its body, and then `call_of` counts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from server.access.clients import check_id
from server.access.terms import Terms
from server.errors import BadParameter, RateLimited
from server.http.account import Account, open_account
from server.http.bodies import MULTIPART, content_type
from server.http.request import Request, principal_of
from server.http.rules import rule_of
from server.http.shedding import refusals_of
from server.lifespan import Services
from server.limits import Limits


def limited(app: ASGIApp) -> ASGIApp:
    """Refuse callers beyond the limits of their key, their search key or their client. Raises RateLimited."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        services: Services | None = getattr(scope["litestar_app"].state, "services", None)
        if services is None or rule_of(scope).open:
            await app(scope, receive, send)
            return
        request: Request = Request(scope)
        account = open_account(scope, services.terms)

        async def counted() -> ReceiveMessage:
            message = await receive()
            if message["type"] == "http.request" and message["body"]:
                account.receive(len(message["body"]))
            return message

        try:
            await account.enter(_subjects(request, services.terms, account), form=content_type(request) == MULTIPART)
            await app(scope, counted, send)
        except RateLimited as error:
            # Only of a caller known by its key: a key that is not looked at, beside a signed address or where none is
            # needed, may be what a gateway sends for everybody.
            known = principal_of(scope).key_id is not None
            if known and account.used_up and (refusals := refusals_of(scope)) is not None:
                said = [(name.lower().encode(), value.encode()) for name, value in account.headers().items()]
                refusals.note(scope, error, said)
            raise
        finally:
            account.leave()

    return middleware


def _subjects(request: Request, terms: Terms, account: Account) -> Iterator[tuple[str, Limits]]:
    principal = principal_of(request.scope)
    yield from terms.of_caller(principal)
    if principal.key_id is None and principal.client_id is None:
        account.awaits_client = True
        with suppress(BadParameter):  # the handler refuses it
            if len(named := request.query_params.getall("clientId", [])) == 1:
                yield from terms.of_client(check_id("clientId", named[0]))
                account.awaits_client = False
