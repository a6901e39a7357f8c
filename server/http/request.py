"""What a request says beside its body: who calls, how urgently, and until when an answer is of use.

There are no keys yet: the request names its client, and the network decides who may call at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import litestar
from litestar.datastructures import State

from server.access.clients import DEFAULT_CLIENT, check_id
from server.batching.fair_queue import LANES, Caller, Lane
from server.errors import BadParameter
from server.http import timing

Request = litestar.Request[Any, Any, State]

DEADLINE_HEADER = "Twinlens-Deadline"
LANE_HEADER = "Twinlens-Lane"

_DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Call:
    """What a request says beside its body, worked out once, when it arrives."""

    lane: Lane
    deadline: float
    """When the call must be answered, on the clock of `time.perf_counter`."""
    client: str | None
    """None where neither the query nor the body has named one."""

    @property
    def client_id(self) -> str:
        return self.client or DEFAULT_CLIENT

    @property
    def caller(self) -> Caller:
        return Caller(self.client_id, self.lane)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - perf_counter()

    def of_client(self, named: str | None) -> Call:
        """The same call, now that its body was read and may have named the client.

        Raises BadParameter for an id that cannot be one, and where query and body disagree.
        """
        if not named:
            return self
        if self.client and self.client != named:
            raise BadParameter("clientId is given twice, in the query and in the body, with different values.")
        return replace(self, client=check_id("clientId", named))

    def in_bulk(self) -> Call:
        """The same call in the bulk lane: work that is bulk by nature is not urgent because its caller says so."""
        return replace(self, lane="bulk")


def call_of(request: Request) -> Call:
    """Raises BadParameter for a header that names no lane, and for a `clientId` in the query that can be no client."""
    lane = request.headers.get(LANE_HEADER, "interactive")
    if lane not in LANES:
        raise BadParameter(f"The header {LANE_HEADER} accepts {' or '.join(LANES)}, not {lane[:40]!r}.")
    queried = request.query_params.get("clientId")
    client = check_id("clientId", queried) if queried else None
    return Call(lane, float(request.scope["state"][_DEADLINE]), client)


def keep_deadline(request: Request, most: float) -> float:
    """Work out when a request that has just arrived must be answered, and keep it for `call_of`; seconds until then.

    That is `most` seconds after its arrival, or fewer where its header says so. Raises BadParameter for a header that
    is no number above 0.
    """
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
