"""What a request says beside its body: who calls, how urgently, and until when an answer is of use.

Where keys are on, the key decides the client, and a request need not name it; elsewhere the request names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import litestar
from litestar.datastructures import State
from litestar.types import Scope

from server.access.clients import check_id
from server.access.scopes import ANYBODY, Principal
from server.batching.fair_queue import LANES, Caller, Lane
from server.errors import BadParameter
from server.http import timing
from server.http.account import account_of
from server.http.paths import require_readable
from server.http.rules import rule_of

Request = litestar.Request[Any, Any, State]

DEADLINE_HEADER = "Twinlens-Deadline"
LANE_HEADER = "Twinlens-Lane"

_DEADLINE = "deadline"

PRINCIPAL = "principal"
"""Where the state of a request has its Principal."""

CLIENT = "client"
"""Where the state of a request has the client that it is for, once that is known."""

OBJECTS = "objects"
"""Where it has the ids of what a request made, for the audit."""

ITEMS = "items"
"""Where it has what the audit keeps of each item of a batch."""

CODE = "code"
"""Where it has the code of the error that is its answer."""

MOST_SECONDS = "most_seconds"
"""The option of a handler whose requests have less time than others."""


@dataclass(frozen=True, slots=True)
class AuditedItem:
    """An item of a batch, as the audit keeps it."""

    action: str
    """What is to be done with the object, such as `delete`."""
    object: str | None
    status: int | None = None
    """What came of it; None as long as that is not known."""
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """For whom a request is, how urgent it is, and until when: worked out once, as soon as its body was read."""

    lane: Lane
    deadline: float
    """When the call must be answered, on the clock of `time.perf_counter`."""
    client_id: str
    principal: Principal = ANYBODY

    @property
    def caller(self) -> Caller:
        return Caller(self.client_id, self.lane)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - perf_counter()

    def in_bulk(self) -> Call:
        """The same call in the bulk lane: work that is bulk by nature is not urgent because its caller says so."""
        return replace(self, lane="bulk")


def call_of(request: Request, named: str | None = None) -> Call:
    """The call of a request whose body was read; `named`: the client that the body names.

    Raises BadParameter for a header that names no lane and for a path that is not UTF-8, and otherwise as `client_of`;
    RateLimited.
    """
    lane = request.headers.get(LANE_HEADER, "interactive")
    if lane not in LANES:
        raise BadParameter(f"The header {LANE_HEADER} accepts {' or '.join(LANES)}, not {lane[:40]!r}.")
    principal = principal_of(request.scope)
    client_id = client_of(request, principal, named)
    if (account := account_of(request.scope)) is not None and account.awaits_client:
        account.enter_client(client_id)
    request.scope["state"][CLIENT] = client_id
    require_readable(request.scope)
    return Call(lane, float(request.scope["state"][_DEADLINE]), client_id, principal)


def client_of(request: Request, principal: Principal, named: str | None = None) -> str:
    """The client that a request of this caller is for; `named`: the one that its body names.

    Raises BadParameter for a `clientId` that can be no client, and where it is given twice; ClientMismatch where the
    caller's key is another client's, ClientRequired where it is every client's, one is needed, and none is named.
    """
    client_id = queried_client(request)
    if client_id and named and client_id != named:
        raise BadParameter("clientId is given twice, in the query and in the body, with different values.")
    if client_id := client_id or named:
        check_id("clientId", client_id)
    return principal.client_for(client_id or None, needed=rule_of(request.scope).client)


def queried_client(request: Request) -> str | None:
    """The client that the query names. Raises BadParameter where it names two, be they the same."""
    queried = request.query_params.getall("clientId", [])
    if len(queried) > 1:
        raise BadParameter("clientId is given twice in the query.")
    return queried[0] if queried else None


def principal_of(scope: Scope) -> Principal:
    """Who sends this request, once that is found out."""
    principal: Principal = scope["state"].get(PRINCIPAL, ANYBODY)
    return principal


def made(request: Request, id_: str) -> None:
    """Say which object a request made, whose id its address does not hold."""
    request.scope["state"][OBJECTS] = (id_,)


def keep_deadline(request: Request, most: float) -> float:
    """Work out when a request that has just arrived must be answered, and keep it for `call_of`; seconds until then.

    That is `most` seconds after its arrival, or fewer where its handler or its header says so. Raises BadParameter for
    a header that is no number above 0.
    """
    most = min(most, float(request.route_handler.opt.get(MOST_SECONDS, most)))
    asked = request.headers.get(DEADLINE_HEADER)
    seconds = most
    if asked is not None:
        try:
            seconds = float(asked)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise BadParameter(f"The header {DEADLINE_HEADER} accepts a number of seconds above 0, not {asked!r}.")
    left = min(seconds, most) - timing.passed(request.scope)
    request.scope.setdefault("state", {})[_DEADLINE] = perf_counter() + left
    return left
