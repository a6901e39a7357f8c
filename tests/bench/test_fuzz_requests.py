"""Requests at random: the same for a seed, and a fault of the server's is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from bench.fuzz import requests
from bench.fuzz.contract import Schema
from bench.fuzz.shop import Shop
from bench.fuzz.strategies import KINDS, keys
from bench.fuzz.talk import Answered, Asked
from tests.support.process import Process
from tests.support.serving import Shop as Served

KEYS = {name: f"twinlens_{name:x<12.12}_{'s' * 43}" for name in ("writer", "searcher", "admin", "expired", "revoked")}
SHOP = Shop(**KEYS, picture=b"RIFF")

DOCUMENT = {
    "paths": {
        "/v1/things": {
            "get": {
                "responses": {
                    "200": {"content": {"application/json": {}}},
                    "404": {"content": {"application/json": {"examples": {"thing_not_found": {}}}}},
                }
            }
        }
    }
}
ASKED = Asked("thing", "GET", b"/v1/things", "/v1/things")


def answered(status: int, code: str, **more: object) -> Answered:
    body = {"error": "No.", "code": code, "requestId": "r", **more}
    return Answered(status, {"x-request-id": "r"}, json.dumps(body).encode())


def faults(answer: Answered, asked: Asked = ASKED) -> list[str]:
    return [*Schema(DOCUMENT).faults(asked, answer)]


@pytest.mark.parametrize("kind", [*KINDS, "keys"])
def test_the_same_seed_makes_the_same_requests(kind: str) -> None:
    made: list[list[bytes]] = []
    for seed in (1, 1, 2):
        made.append([])
        strategy = KINDS[kind](SHOP) if kind in KINDS else keys(SHOP, None)
        requests._send(strategy, lambda asked: made[-1].append(asked.wire), 15, 60.0, seed)
    assert made[0] == made[1] != made[2]
    assert all(one.count(b"\r\n\r\n") for one in made[0])


def test_what_the_document_says_is_no_fault() -> None:
    assert faults(Answered(200, {}, b"{}")) == []
    assert faults(answered(404, "thing_not_found")) == []
    assert faults(answered(405, "method_not_allowed")) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answered(500, "internal_error"), "500 "),
        (answered(503, "deadline_missed"), "503 "),
        (answered(409, "conflict"), "409 conflict is not among the statuses"),
        (answered(404, "other"), "has the code 'other', which is not documented"),
        (answered(404, "thing_not_found", more=1), "another body than errors have"),
        (Answered(404, {}, b"<html>"), "another body than errors have"),
        (Answered(404, {"x-request-id": "s"}, answered(404, "thing_not_found").body), "another request id"),
        (Answered(0, {}, b""), "closed without an answer"),
    ],
)
def test_anything_else_is(answer: Answered, said: str) -> None:
    assert said in "\n".join(faults(answer))


def test_what_is_no_http_may_be_refused_by_the_layer_below() -> None:
    raw = Asked("raw", "GET", b"/v1/ things", "/v1/things", raw=True)
    assert faults(Answered(400, {}, b""), raw) == []
    assert faults(Answered(500, {}, b""), raw) != []


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"colour": "red"}, False),
        ({"colour": ["blue", "red"]}, False),
        ({"price": {"gt": 1}}, False),
        ({"colour": "blue"}, True),
        ({'colour" || true || "': "x"}, True),
        ({"colour": {"gt": 1}}, True),
        ({"on sale": 1}, True),
    ],
)
def test_a_filter_that_finds_what_does_not_meet_it_is_a_fault(attributes: dict[str, object], found: bool) -> None:
    body = json.dumps({"filter": {"attributes": attributes}}).encode()
    answer = Answered(200, {}, b'{"results": [{}]}')
    assert bool(requests._unmet(Asked("filter", "POST", b"/", body=body), answer)) is found


def test_a_key_that_is_let_in_is_a_fault() -> None:
    assert requests._let_in(ASKED, Answered(401, {}, b"")) == []
    assert requests._let_in(ASKED, Answered(200, {}, b"")) != []


@pytest.mark.slow
def test_a_run_finds_nothing(new_shop: Callable[[], AbstractContextManager[Served]]) -> None:
    with new_shop() as shop:
        process = Process(shop.data, "--database-url", shop.database_url)
        try:
            tally = requests.send_all(process.ready().port, shop.database_url, 100, 45.0, 17)
        finally:
            process.stop()
    assert not tally.faults, "\n".join(tally.faults[:20])
    assert len(tally.statuses) >= 6
