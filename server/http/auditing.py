"""Around the whole app: each request that may change something is handed to the audit, with what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from server.access.audit import Entry
from server.access.keys import id_of
from server.access.scopes import Principal
from server.errors import OutcomeUnknown, TwinlensError
from server.http.addresses import caller_of
from server.http.authorising import presented_key
from server.http.paths import escaped
from server.http.request import CLIENT, CODE, ITEMS, OBJECTS, PRINCIPAL, AuditedItem
from server.http.rules import rule_of
from server.lifespan import Services

_log = logging.getLogger(__name__)

_ENTRIES_AT_ONCE = 20

_READING = ("GET", "HEAD", "OPTIONS")


def audited(app: ASGIApp) -> ASGIApp:
    """Hand requests to the audit whose rule says so, once the answer begins, or once it is certain that there is none.

    Within what gives each request its id.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] in _READING:
            await app(scope, receive, send)
            return
        at = datetime.now(UTC)
        status: int | None = None

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and status is None:
                status = message["status"]
                await _keep_or_say(scope, at, status)
            await send(message)

        try:
            await app(scope, receive, seen)
        finally:
            if status is None:
                await _keep_or_say(scope, at, None)

    return middleware


async def _keep_or_say(scope: HTTPScope, at: datetime, status: int | None) -> None:
    """Whatever goes wrong here, the request is answered as it would be."""
    try:
        await _keep(scope, at, status)
    except Exception:
        _log.exception("An entry of the audit could not be made: %s %r, %s", scope["method"], scope["path"], status)


async def _keep(scope: HTTPScope, at: datetime, status: int | None) -> None:
    services: Services | None = getattr(scope["litestar_app"].state, "services", None)
    # The rule of a route that was not found would be that of no route.
    if services is None or not scope.get("path_template") or not rule_of(scope).audited:
        return
    entries = iter(_entries(services, scope, at, status))
    try:
        for number, entry in enumerate(entries, 1):
            services.trail.add(entry, refused=_refused_all(entry.status))
            if number % _ENTRIES_AT_ONCE == 0:  # each takes a tenth of a millisecond, and a batch has a thousand
                await asyncio.sleep(0)
    finally:
        for entry in entries:  # whoever sent it has left in between
            services.trail.add(entry, refused=_refused_all(entry.status))


def _entries(services: Services, scope: HTTPScope, at: datetime, status: int | None) -> list[Entry]:
    """The entry of a request, or of each item of a batch that was not refused as a whole."""
    state: Mapping[str, Any] = scope["state"]
    presented = _presented(scope)
    principal: Principal | None = state.get(PRINCIPAL) or _refused(services, presented)
    ids = map(escaped, (*map(str, scope.get("path_params", {}).values()), *state.get(OBJECTS, ())))
    entry = Entry(
        at=at,
        key_id=principal.key_id if principal is not None else id_of(presented or ""),
        client_id=state.get(CLIENT) or (principal.client_id if principal is not None else None),
        address=caller_of(scope, services.settings.trusted_proxies),
        action=f"{scope['method']} {scope['path_template']}",
        object="/".join(ids) or None,
        status=status,
        code=state.get(CODE),
        request_id=state.get("request_id"),
    )
    items: Sequence[AuditedItem] = state.get(ITEMS, ())
    # An error has changed nothing of any item, but for one.
    if not items or entry.code not in (None, OutcomeUnknown.code):
        return [entry]
    return [
        replace(
            entry,
            action=f"{entry.action} {item.action}",
            object=item.object,
            status=entry.status if item.status is None else item.status,
            code=entry.code if item.status is None else item.code,
        )
        for item in items
    ]


def _refused_all(status: int | None) -> bool:
    """A status of 4xx says that nothing was changed, but for 499, which nobody read: the caller left in between."""
    return status is not None and 400 <= status < 499


def _presented(scope: Scope) -> str | None:
    """The key that came with the request; None for none, and for such as nobody can say which of them it is."""
    try:
        return presented_key(scope)
    except TwinlensError:
        return None


def _refused(services: Services, presented: str | None) -> Principal | None:
    """Who was not let in, where the key is a good one that may not do this; None where nobody knows."""
    if presented is None:
        return None
    try:
        return services.keyring.principal(presented)
    except TwinlensError:
        return None
