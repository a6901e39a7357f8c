"""A write that is sent again with its `Idempotency-Key`: answered as before, and made once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from psycopg import connect

from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support.databases import run_sql
from tests.support.process import until
from tests.support.serving import Client, NewShop, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


@pytest.fixture(scope="module")
def server(new_shop: NewShop) -> Iterator[tuple[Client, str]]:
    """An app, and the URL of its database."""
    with new_shop() as shop, serving(*shop) as client:
        yield client, shop.database_url


class Caller:
    """One client, whose writes each bring a key."""

    def __init__(self, server: tuple[Client, str], client_id: str) -> None:
        self.api, self.url = server
        self.client_id = client_id

    def send(self, key: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key, **more.pop("headers", {})}
        params = {"clientId": self.client_id, **more.pop("params", {})}
        return self.api.request(method, path, params=params, headers=headers, **more)

    def put(self, key: str, name: str = "Shoe", **more: Any) -> httpx.Response:
        return self.send(key, "PUT", "/v1/products/shoe", json={"name": name}, **more)

    def rows(self, what: str = "key, status") -> list[tuple[Any, ...]]:
        return run_sql(
            self.url,
            f'SELECT {what} FROM twinlens_idempotency WHERE "clientId" = %s ORDER BY key',
            [self.client_id],
        )


@pytest.fixture
def caller(server: tuple[Client, str], client_id: str) -> Caller:
    return Caller(server, client_id)


def same(first: httpx.Response, again: httpx.Response) -> None:
    """The second answer is the first one, and says so."""
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


def test_the_same_request_again_is_answered_as_the_first_one_and_changes_nothing(caller: Caller) -> None:
    first = caller.put("one")
    assert first.status_code == 201
    assert caller.put("two", "Boot").status_code == 200
    same(first, caller.put("one"))
    now = caller.api.get("/v1/products/shoe", params={"clientId": caller.client_id}).json()
    assert now["name"] == "Boot"


def test_every_write_is_made_once(caller: Caller) -> None:
    caller.put("product")
    added = caller.send("add", "POST", "/v1/products/shoe/media", files={"file": KEYBOARD})
    assert added.status_code == 201
    # httpx draws another boundary each time; the form says the same.
    same(added, caller.send("add", "POST", "/v1/products/shoe/media", files={"file": KEYBOARD}))
    renamed = caller.send("name", "PATCH", "/v1/products/shoe", json={"name": "Boot"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "Boot")
    caller.put("back")
    again = caller.send("name", "PATCH", "/v1/products/shoe", json={"name": "Boot"})
    same(renamed, again)
    assert again.headers["etag"] == renamed.headers["etag"]
    now = caller.api.get("/v1/products/shoe", params={"clientId": caller.client_id}).json()
    assert now["name"] == "Shoe"
    media = f"/v1/media/{added.json()['id']}"
    for key, path in (("media", media), ("all", "/v1/products/shoe")):
        gone = caller.send(key, "DELETE", path)
        assert gone.status_code == 200
        same(gone, caller.send(key, "DELETE", path))
        assert caller.send(f"{key}-again", "DELETE", path).status_code == 404


def test_bytes_that_are_there_already_are_an_answer_that_is_kept_as_well(caller: Caller) -> None:
    caller.put("product")
    path, files = "/v1/products/shoe/media", {"file": KEYBOARD}
    caller.send("first", "POST", path, files=files)
    known = caller.send("second", "POST", path, files=files)
    assert known.status_code == 200
    same(known, caller.send("second", "POST", path, files=files))


@pytest.mark.parametrize(
    "other",
    [
        {"json": {"name": "Boot"}},
        {"path": "/v1/products/boot"},
        {"method": "DELETE", "json": None},
        {"params": {"verbose": "1"}},
        {"headers": {"If-Match": '"65f0c1a9"'}},
    ],
)
def test_a_key_that_came_with_another_request_is_422(caller: Caller, other: dict[str, Any]) -> None:
    caller.put("one")
    request = {"method": "PUT", "path": "/v1/products/shoe", "json": {"name": "Shoe"}} | other
    answer = caller.send("one", **request)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_another_picture_or_another_field_is_another_request(caller: Caller) -> None:
    caller.put("product")
    path = "/v1/products/shoe/media"
    assert caller.send("add", "POST", path, files={"file": KEYBOARD}).status_code == 201
    field = {"clientId": caller.client_id}
    for more in ({"files": {"file": RACCOON}}, {"files": {"file": KEYBOARD}, "data": field}):
        answer = caller.send("add", "POST", path, **more)
        assert answer.json()["code"] == "idempotency_key_reused"


def test_a_refusal_frees_the_key(caller: Caller) -> None:
    path, files = "/v1/products/shoe/media", {"file": KEYBOARD}
    for _ in range(2):
        answer = caller.send("add", "POST", path, files=files)
        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
        assert "idempotency-replayed" not in answer.headers
    assert caller.rows() == []
    caller.put("product")
    assert caller.send("add", "POST", path, files=files).status_code == 201


def test_keys_are_each_clients_own(server: tuple[Client, str], client_id: str) -> None:
    answers = [Caller(server, f"{client_id}-{which}").put("one", which) for which in "ab"]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.json()["name"] for answer in answers] == ["a", "b"]


def test_a_client_that_the_body_names_is_the_one_whose_key_it_is(caller: Caller) -> None:
    def put(client_id: str) -> httpx.Response:
        return caller.api.put(
            "/v1/products/shoe", json={"name": "S", "clientId": client_id}, headers={"Idempotency-Key": "k"}
        )

    first = put(caller.client_id)
    assert first.status_code == 201
    same(first, put(caller.client_id))
    assert put(f"{caller.client_id}-b").status_code == 201


def test_while_the_first_one_is_under_way_the_second_one_is_409(caller: Caller) -> None:
    caller.put("product")
    with connect(caller.url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute('SELECT FROM products WHERE "clientId" = %s FOR UPDATE', [caller.client_id])
        first = pool.submit(caller.put, "held", "Boot")
        until(lambda: ("held", None) in caller.rows())
        second = caller.put("held", "Boot")
        assert (second.status_code, second.json()["code"]) == (409, "idempotency_key_in_use")
        assert int(second.headers["retry-after"]) >= 1
        assert caller.put("held", "Hat").json()["code"] == "idempotency_key_reused"
        holder.rollback()
        assert first.result().status_code == 200
    same(first.result(), caller.put("held", "Boot"))


def test_of_many_at_once_one_is_carried_out(caller: Caller) -> None:
    caller.put("product")
    together = threading.Barrier(6)

    def add(_: int) -> httpx.Response:
        together.wait()
        return caller.send("add", "POST", "/v1/products/shoe/media", files={"file": RACCOON})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(add, range(6)))
    made = [answer for answer in answers if "idempotency-replayed" not in answer.headers and answer.is_success]
    assert [answer.status_code for answer in made] == [201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    same(made[0], add_alone(caller))


def add_alone(caller: Caller) -> httpx.Response:
    return caller.send("add", "POST", "/v1/products/shoe/media", files={"file": RACCOON})


def test_a_request_that_died_before_its_write_is_taken_over_and_one_that_was_taken_over_writes_nothing(
    caller: Caller,
) -> None:
    caller.put("product")
    with connect(caller.url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute('SELECT FROM products WHERE "clientId" = %s FOR UPDATE', [caller.client_id])
        slow = pool.submit(caller.send, "k", "DELETE", "/v1/products/shoe")
        until(lambda: ("k", None) in caller.rows())
        # As though its time were long over, although it goes on all the same.
        run_sql(
            caller.url,
            """UPDATE twinlens_idempotency SET until = now(), token = gen_random_uuid()
            WHERE "clientId" = %s AND key = 'k'""",
            [caller.client_id],
        )
        holder.rollback()
        assert slow.result().json()["code"] == "idempotency_key_in_use"
    there = caller.api.get("/v1/products/shoe", params={"clientId": caller.client_id})
    assert there.status_code == 200
    again = caller.send("k", "DELETE", "/v1/products/shoe")
    assert (again.status_code, "idempotency-replayed" in again.headers) == (200, False)


def test_after_a_day_a_key_is_new_again(caller: Caller) -> None:
    caller.put("one")
    (lasting,) = caller.rows("extract(epoch FROM until - now()) / 3600")
    assert 23.9 < lasting[0] <= 24
    run_sql(caller.url, "UPDATE twinlens_idempotency SET until = now()")
    answer = caller.put("one", "Boot")
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, False)


def test_the_answer_and_the_write_are_one_transaction(caller: Caller) -> None:
    caller.put("product")
    run_sql(
        caller.url,
        f"""CREATE FUNCTION refuse_answers() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW."clientId" = '{caller.client_id}' AND NEW.status IS NOT NULL THEN
                RAISE check_violation USING MESSAGE = 'no answer is kept', CONSTRAINT = 'test';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON twinlens_idempotency FOR EACH ROW EXECUTE FUNCTION refuse_answers();""",
    )
    try:
        assert caller.put("k", "Boot").status_code >= 400
        assert caller.send("d", "DELETE", "/v1/products/shoe").status_code >= 400
        assert caller.send("m", "POST", "/v1/products/shoe/media", files={"file": KEYBOARD}).status_code >= 400
    finally:
        run_sql(caller.url, "DROP TRIGGER refuse ON twinlens_idempotency; DROP FUNCTION refuse_answers()")
    there = caller.api.get("/v1/products/shoe", params={"clientId": caller.client_id})
    assert there.json()["name"] == "Shoe"
    assert run_sql(caller.url, 'SELECT count(*) FROM media WHERE "clientId" = %s', [caller.client_id]) == [(0,)]
    assert caller.put("k", "Boot").status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"), [('"quoted"', "quoted"), (r'"a \"b\""', 'a "b"'), ("7e4-x_y.z:1/2", "7e4-x_y.z:1/2")]
)
def test_a_key_may_be_quoted_as_the_draft_has_it(caller: Caller, given: str, kept: str) -> None:
    assert caller.put(given).status_code == 201
    assert caller.rows("key") == [(kept,)]


@pytest.mark.parametrize("given", ["", " ", '""', "x" * 256, "caf\xe9", "a\tb", "a b", "a, a", '"a'])
def test_a_key_that_is_none_is_422(caller: Caller, given: str) -> None:
    answer = caller.api.put(
        "/v1/products/shoe",
        params={"clientId": caller.client_id},
        json={"name": "S"},
        headers=[(b"Idempotency-Key", given.encode("latin-1"))],
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_two_keys_are_422(caller: Caller) -> None:
    answer = caller.api.put(
        "/v1/products/shoe", json={"name": "S"}, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_what_only_reads_heeds_no_key(caller: Caller) -> None:
    caller.put("product")
    for _ in range(2):
        answer = caller.send("product", "GET", "/v1/products/shoe")
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, False)
