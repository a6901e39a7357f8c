"""What a request says beside its body."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

from server.batching.fair_queue import Caller
from server.errors import BadParameter
from server.http import timing
from server.http.request import Request, call_of, keep_deadline

MOST = 30.0


def arrived(query: str = "", **headers: str) -> Request:
    """A request of which the clock runs already."""
    sent = [(f"twinlens-{name}".encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "query_string": query.encode()}
    scope |= {"headers": sent, "route_handler": HTTPRouteHandler(path="/", http_method="POST")}
    timing.begin(scope)  # type: ignore[arg-type]
    return Request(scope)  # type: ignore[arg-type]


@pytest.mark.parametrize(("header", "seconds"), [({}, MOST), ({"deadline": "5"}, 5.0), ({"deadline": "60"}, MOST)])
def test_a_request_has_the_servers_deadline_or_a_shorter_one_of_its_own(header: dict[str, str], seconds: float) -> None:
    request = arrived(**header)
    assert keep_deadline(request, MOST) == pytest.approx(seconds, abs=0.5)
    call = call_of(request)
    assert call.left == pytest.approx(seconds, abs=0.5)
    assert call.deadline == pytest.approx(perf_counter() + seconds, abs=0.5)


def test_time_that_has_passed_since_the_arrival_counts() -> None:
    request = arrived()
    request.scope["state"]["started"] -= 10
    assert keep_deadline(request, MOST) == pytest.approx(MOST - 10, abs=0.5)


@pytest.mark.parametrize("header", ["soon", "0", "-1", "inf", "nan"])
def test_a_deadline_that_is_no_time_is_refused(header: str) -> None:
    with pytest.raises(BadParameter, match="Twinlens-Deadline"):
        keep_deadline(arrived(deadline=header), MOST)


def test_the_client_is_that_of_the_query_or_of_the_body_or_demo() -> None:
    for query, named, client in (
        ("", None, "demo"),
        ("clientId=", None, "demo"),
        ("clientId=acme", None, "acme"),
        ("clientId=acme", "acme", "acme"),
        ("", "acme", "acme"),
    ):
        request = arrived(query)
        keep_deadline(request, MOST)
        assert call_of(request, named).client_id == client


def test_a_client_that_cannot_be_or_is_named_in_two_ways_is_refused() -> None:
    request = arrived("clientId=acme")
    keep_deadline(request, MOST)
    with pytest.raises(BadParameter, match="given twice"):
        call_of(request, "other")
    for query, named in (("clientId=%20", None), ("", "no client")):
        request = arrived(query)
        keep_deadline(request, MOST)
        with pytest.raises(BadParameter, match="clientId must be"):
            call_of(request, named)


def test_a_call_is_interactive_unless_its_header_or_its_work_is_bulk() -> None:
    for headers, lane in (({}, "interactive"), ({"lane": "interactive"}, "interactive"), ({"lane": "bulk"}, "bulk")):
        request = arrived("clientId=acme", **headers)
        keep_deadline(request, MOST)
        call = call_of(request)
        assert call.caller == Caller("acme", lane)  # type: ignore[arg-type]
        assert call.in_bulk().caller == Caller("acme", "bulk")
    request = arrived(lane="fast")
    keep_deadline(request, MOST)
    with pytest.raises(BadParameter, match="interactive or bulk"):
        call_of(request)
