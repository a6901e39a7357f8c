"""What is tried again, and when: asked of the conversation itself, and of clients with a server that is at fault."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import twinlens
from tests.support.process import free_port
from tests.support.scripted import CLOSED, Reply, headers_of, scripted
from twinlens import Client
from twinlens.conversation import Broken, Outcome, Pause, Send, converse
from twinlens.options import Options
from twinlens.request import Answer, Request, content

ASKED = Request("GET", "/v1/products/p", content)
FINE = Answer(200, {}, b"fine")
PROBLEM = b'{"error": "Not now.", "code": "overloaded", "requestId": "r-1"}'
REFUSED = Broken("Connection refused")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def busy(status: int = 503, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, PROBLEM)


def talked(
    *outcomes: Outcome,
    request: Request[bytes] = ASKED,
    deadline: float = 60.0,
    retries: int = 4,
    drawn: float = 0.5,
    takes: float = 0.0,
) -> tuple[bytes | twinlens.TwinlensError, list[float]]:
    """What comes of these outcomes, each of which `takes` so many seconds: the result, and the pauses in between."""
    clock, left, pauses = Clock(), list(outcomes), list[float]()
    steps = converse(request, Options(deadline=deadline, retries=retries), clock=clock, drawn=lambda: drawn)
    outcome: Outcome = None
    try:
        while True:
            step = steps.send(outcome)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                clock.now += step.seconds
                outcome = None
            else:
                outcome = left.pop(0)
                clock.now += takes
    except StopIteration as done:
        assert not left
        return done.value, pauses
    except twinlens.TwinlensError as error:
        assert not left
        return error, pauses


@pytest.mark.parametrize("passing", [REFUSED, Broken("late", late=True), *map(busy, (429, 502, 503, 504))])
def test_what_passes_is_tried_again_after_a_pause(passing: Outcome) -> None:
    assert talked(passing, FINE) == (b"fine", [0.125])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 501])
def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    error, pauses = talked(busy(status))
    assert isinstance(error, twinlens.Refused)
    assert (error.status, error.code, error.sentence, pauses) == (status, "overloaded", "Not now.", [])


def test_pauses_double_differ_by_chance_and_have_an_end() -> None:
    many = [REFUSED] * 8
    assert talked(*many, FINE, retries=8, drawn=1.0)[1] == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert talked(*many, FINE, retries=8, drawn=0.0)[1] == [0.0] * 8


def test_never_sooner_than_the_server_asks() -> None:
    assert talked(busy(retry_after="3"), busy(429, retry_after="2"), FINE) == (b"fine", [3.125, 2.25])
    assert talked(busy(retry_after="3"), FINE, drawn=0.0)[1] == [3.0]
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 20 < talked(busy(retry_after=soon), FINE)[1][0] < 31
    assert talked(busy(retry_after="soon"), FINE)[1] == [0.125]


def test_after_the_last_try_the_error_is_the_answers_own() -> None:
    error, pauses = talked(*[busy(retry_after="1")] * 3, retries=2)
    assert isinstance(error, twinlens.Unavailable)
    assert (error.code, error.retry_after, len(pauses)) == ("overloaded", 1.0, 2)
    assert isinstance(talked(REFUSED, retries=0)[0], twinlens.ConnectionFailed)


def test_nobody_waits_for_a_try_that_would_come_too_late() -> None:
    error, pauses = talked(busy(retry_after="60"))
    assert isinstance(error, twinlens.Unavailable)
    assert (error.retry_after, pauses) == (60.0, [])
    late, pauses = talked(REFUSED, REFUSED, takes=9.95, deadline=20)
    assert isinstance(late, twinlens.ConnectionFailed)
    assert len(pauses) == 1


def test_who_asks_how_the_server_is_gets_the_first_answer() -> None:
    now = Request("GET", "/health/ready", content, retried=False)
    assert isinstance(talked(busy(), request=now)[0], twinlens.Unavailable)


def test_each_try_has_what_is_left_of_the_time_and_all_have_one_id() -> None:
    clock = Clock()
    steps = converse(ASKED, Options(deadline=10), clock=clock, drawn=lambda: 1.0)
    first = next(steps)
    clock.now += 4
    assert steps.send(REFUSED) == Pause(0.25)
    clock.now += 0.25
    second = steps.send(None)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert (first.seconds, second.seconds) == (10, 5.75)
    assert second.headers["Twinlens-Deadline"] == "5.750"
    assert first.headers["x-request-id"] == second.headers["x-request-id"]


def test_a_write_that_is_tried_again_is_known_by_its_key() -> None:
    write = Request("DELETE", "/v1/products/p", content, once=True)
    steps = converse(write, Options(), drawn=lambda: 0.0)
    first = next(steps)
    steps.send(Broken("closed"))
    second = steps.send(None)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    busy_with_it = Answer(409, {}, b'{"error": "Wait.", "code": "idempotency_key_in_use", "requestId": "r"}')
    assert talked(Broken("closed"), busy_with_it, FINE, request=write)[0] == b"fine"


def test_what_a_proxy_answers_is_an_error_without_a_reason() -> None:
    error, _ = talked(Answer(404, {"content-type": "text/html"}, b"<html>404</html>"))
    assert isinstance(error, twinlens.NotFound)
    assert (error.code, error.sentence) == ("http_404", "The answer was 404 Not Found, without a reason.")
    odd, _ = talked(Answer(599, {}, b""))
    assert isinstance(odd, twinlens.ServerError)
    assert odd.sentence == "The answer was 599, without a reason."


def test_ids_go_as_one_part_of_the_path() -> None:
    with Client() as client:
        asked = type(client).get_product(client, "gid://shopify/Product/1 ä?#%")
        assert asked.path == "/v1/products/gid:%2F%2Fshopify%2FProduct%2F1%20%C3%A4%3F%23%25"


# --- the same with connections ---------------------------------------------------------------------------------------


def test_a_server_that_is_busy_and_a_connection_that_breaks_cost_no_answer() -> None:
    found = Reply(body=b'{"status": "ok"}')
    again = Reply(503, PROBLEM, {"Retry-After": "0"})
    cut = Reply(body=found.body * 9, cut=10)
    with scripted(again, CLOSED, cut, Reply(429, PROBLEM), found) as server, Client(server.url, key="k") as client:
        assert client.send(Request("GET", "/v1/x", content)) == found.body
        assert len(server.asked) == 5
        assert len({*headers_of(server.asked, "x-request-id")}) == 1
        assert headers_of(server.asked, "authorization") == ["Bearer k"] * 5
        assert headers_of(server.asked, "user-agent") == [f"twinlens/{twinlens.__version__}"] * 5


def test_a_picture_is_sent_whole_with_each_try() -> None:
    answer = Reply(body=b'{"results": [], "space": "s", "plan": "exact", "timings": {}, "new": 1}')
    with scripted(Reply(503, PROBLEM), answer) as server, Client(server.url) as client:
        assert client.search(b"picture", limit=3).results == []
        assert all(b"picture" in one.body and b'name="limit"' in one.body for one in server.asked)


def test_an_answer_that_does_not_come_is_given_up() -> None:
    never = threading.Event()
    with scripted(Reply(after=never)) as server, Client(server.url, deadline=0.2, retries=0) as client:
        with pytest.raises(twinlens.DeadlinePassed, match=r"within 0\.2 seconds") as late:
            client.search(text="shoe")
        assert late.value.request_id == server.asked[0].headers["x-request-id"]
        never.set()


def test_where_nobody_listens_a_sentence_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=0) as client, pytest.raises(twinlens.ConnectionFailed, match=url):
        client.search(text="shoe")
