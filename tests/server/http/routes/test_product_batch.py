"""Batches of products: each item comes to what the single call comes to, or all of them to nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests import DEMO_PICTURES
from tests.support.databases import run_sql
from tests.support.process import until
from tests.support.serving import Client, NewShop, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()


class Batch:
    """One client's batches."""

    def __init__(self, api: Client, client_id: str) -> None:
        self.api, self.client_id = api, client_id
        self.query = {"clientId": client_id}

    def send(self, *items: Any, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"items": items, **more}
        return self.api.post("/v1/products:batch", params=self.query, json=body, headers=headers)

    def statuses(self, *items: Any, **more: Any) -> list[tuple[str | None, int, str | None]]:
        """Of each item: the id, the status and the code of its error."""
        answer = self.send(*items, **more)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["status"], one.get("error", {}).get("code")) for one in answer.json()["items"]]

    def get(self, product_id: str) -> httpx.Response:
        return self.api.get(f"/v1/products/{product_id}", params=self.query)

    def put(self, product_id: str, **fields: Any) -> httpx.Response:
        return self.api.put(f"/v1/products/{product_id}", params=self.query, json={"name": "A thing"} | fields)


@pytest.fixture
def batch(api: Client, client_id: str) -> Batch:
    return Batch(api, client_id)


def upsert(product_id: Any, **fields: Any) -> dict[str, Any]:
    return {"op": "upsert", "id": product_id, "name": "A thing"} | fields


def delete(product_id: Any) -> dict[str, Any]:
    return {"op": "delete", "id": product_id}


def test_items_come_to_what_the_single_calls_come_to(batch: Batch) -> None:
    batch.put("there", sku="S-1")
    batch.put("goes")
    full = {"name": "Shoe", "sku": "S-2", "isActive": False, "attributes": {"colour": ["red"], "price": 4.5}}
    assert batch.statuses(
        upsert("new", **full), upsert("there", name="Boot"), delete("goes"), delete("never"), upsert("other", sku="S-2")
    ) == [
        ("new", 201, None),
        ("there", 200, None),
        ("goes", 200, None),
        ("never", 404, "product_not_found"),
        ("other", 409, "sku_taken"),
    ]
    new = batch.get("new").json()
    assert {name: new[name] for name in full} == full
    there = batch.get("there").json()
    assert (there["name"], there["sku"]) == ("Boot", None)
    assert [batch.get(one).status_code for one in ("goes", "other")] == [404, 404]


BAD: list[Any] = [
    {"op": "upsert", "id": "p"},
    upsert("p", name=""),
    upsert("p", name=3),
    upsert("p", colour="red"),
    upsert("p", clientId="another"),
    upsert("p", attributes={"size": {"eu": 42}}),
    upsert("a/../p"),
    upsert(7),
    upsert("p", name="a\0b"),
    upsert("p", attributes={"k": "\0"}),
    {"op": "rename", "id": "p", "name": "n"},
    {"id": "p", "name": "n"},
    {"op": "delete"},
    {"op": "delete", "id": "p", "name": "n"},
    [],
    "delete",
    None,
]


def test_an_item_that_makes_no_sense_is_422_and_the_others_are_made(batch: Batch) -> None:
    items = [item for number, bad in enumerate(BAD) for item in (bad, upsert(f"good-{number}"))]
    answer = batch.send(*items).json()["items"]
    for number, bad in enumerate(BAD):
        refused, good = answer[2 * number], answer[2 * number + 1]
        assert (refused["status"], refused["error"]["code"]) == (422, "bad_parameter"), bad
        assert refused["error"]["error"].endswith("."), refused
        given = bad.get("id") if isinstance(bad, dict) else None
        assert refused["id"] == (given if isinstance(given, str) else None)
        assert (good["id"], good["status"]) == (f"good-{number}", 201)
    assert batch.get("p").status_code == 404


def test_an_item_is_refused_in_the_words_of_the_single_call(batch: Batch) -> None:
    batch.put("a", sku="S")
    answers = batch.send(upsert("b", sku="S"), delete("none"), upsert("c", name="x\0")).json()["items"]
    singles = [
        batch.put("b", sku="S"),
        batch.api.delete("/v1/products/none", params=batch.query),
        batch.put("c", name="x\0"),
    ]
    for answer, single in zip(answers, singles, strict=True):
        assert answer["status"] == single.status_code
        assert answer["error"] == {name: single.json()[name] for name in ("error", "code")}


def test_items_about_one_product_are_made_in_their_order(batch: Batch) -> None:
    assert batch.statuses(
        upsert("p", name="one"), upsert("p", name="two"), delete("p"), delete("p"), upsert("p", name="three")
    ) == [("p", 201, None), ("p", 200, None), ("p", 200, None), ("p", 404, "product_not_found"), ("p", 201, None)]
    assert batch.get("p").json()["name"] == "three"


def test_a_sku_goes_from_one_product_to_another_only_in_that_order(batch: Batch) -> None:
    batch.put("a", sku="S")
    assert batch.statuses(upsert("b", sku="S"), upsert("a"), upsert("c", sku="S")) == [
        ("b", 409, "sku_taken"), ("a", 200, None), ("c", 201, None),
    ]  # fmt: skip


def test_a_thousand_items_with_failures_among_them_come_to_what_they_come_to_alone(batch: Batch) -> None:
    items = [upsert(f"p{number}", sku=f"S{number // 2 if number % 97 == 1 else number}") for number in range(1000)]
    found = batch.statuses(*items)
    assert len(found) == 1000
    taken: set[str] = set()
    for item, (id_, status, code) in zip(items, found, strict=True):
        expected = (409, "sku_taken") if item["sku"] in taken else (201, None)
        assert (id_, status, code) == (item["id"], *expected)
        taken.add(item["sku"])
    assert {status for _, status, _ in batch.statuses(*[delete(item["id"]) for item in items])} == {200, 404}
    assert batch.get("p0").status_code == 404


def test_more_than_a_thousand_items_are_refused_and_none_are_none(batch: Batch) -> None:
    answer = batch.send(*[upsert(f"p{number}") for number in range(1001)])
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert "1,000" in answer.json()["error"]
    assert batch.get("p0").status_code == 404
    assert batch.statuses() == []


def test_all_or_nothing(batch: Batch) -> None:
    batch.put("a", sku="S")
    batch.put("goes")
    for bad, status, code in (
        (upsert("b", sku="S"), 409, "sku_taken"),
        (delete("none"), 404, "product_not_found"),
        (upsert("b", name=""), 422, "bad_parameter"),
        (upsert("b", name="\0"), 422, "bad_parameter"),
    ):
        answer = batch.send(upsert("a", name="new", sku="S"), delete("goes"), bad, upsert("c"), atomic=True)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["error"].startswith("items[2]: ")
        assert answer.json()["error"].endswith("Nothing of the batch was changed.")
    assert batch.get("a").json()["name"] == "A thing"
    assert (batch.get("goes").status_code, batch.get("c").status_code) == (200, 404)
    assert batch.statuses(upsert("a", name="new"), delete("goes"), upsert("c"), atomic=True) == [
        ("a", 200, None), ("goes", 200, None), ("c", 201, None),
    ]  # fmt: skip


def test_the_first_item_that_is_refused_beyond_those_that_are_sent_together_is_named(batch: Batch) -> None:
    items = [upsert(f"p{number}") for number in range(120)]
    answer = batch.send(*items, delete("none"), *items, atomic=True)
    assert answer.json()["error"].startswith("items[120]: There is no such product")
    assert batch.get("p0").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 422),
        ('{"items": {}}', 422),
        ("{}", 422),
        ('{"items": [], "atomic": "yes"}', 422),
        ('{"items": [], "more": 1}', 422),
        ('{"items": [], "clientId": "a", "client\\u0049d": "a"}', 422),
        ('{"items": [{"op": "delete", "id": "x"}], "clientId": "a", "clientId": "b"}', 422),
    ],
)
def test_a_body_that_is_no_batch_is_refused(api: Client, body: str, status: int) -> None:
    answer = api.post("/v1/products:batch", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, set(answer.json())) == (status, {"error", "code", "requestId"})


def test_a_body_is_bounded_as_an_upload_is(batch: Batch) -> None:
    wide = {"note": "x" * 2000}
    items = [upsert(f"p{number}", attributes=wide) for number in range(1000)]
    assert len(json.dumps(items)) > 1_500_000  # more than any other JSON may have
    assert {status for _, status, _ in batch.statuses(*items)} == {201}
    wide = {"note": "x" * 5000}
    answer = batch.send(*[upsert(f"p{number}", attributes=wide) for number in range(1000)])
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


def test_the_bytes_of_deleted_products_go_with_them(database_url: str, tmp_path: Path, client_id: str) -> None:
    with serving(database_url, tmp_path) as api:
        batch = Batch(api, client_id)
        for name in ("a", "b"):
            batch.put(name)
            api.post(f"/v1/products/{name}/media", params=batch.query, files={"file": KEYBOARD})

        def stored() -> list[Path]:
            return [path for path in (tmp_path / "media").rglob("*.webp") if path.is_file()]

        assert len(stored()) == 4
        assert batch.send(delete("a"), delete("none"), atomic=True).status_code == 404
        assert len(stored()) == 4
        assert batch.statuses(delete("a"), delete("none"), upsert("a")) == [
            ("a", 200, None), ("none", 404, "product_not_found"), ("a", 201, None),
        ]  # fmt: skip
        assert len(stored()) == 2
        found = api.post("/v1/search", params=batch.query, files={"file": KEYBOARD}).json()["results"]
        assert [match["productId"] for match in found] == ["b"]


def test_of_another_client_nothing_is_seen_or_changed(api: Client, client_id: str) -> None:
    ours, theirs = Batch(api, f"{client_id}-a"), Batch(api, f"{client_id}-b")
    ours.put("p", name="ours", sku="S")
    assert theirs.statuses(delete("p"), upsert("p", name="theirs", sku="S")) == [
        ("p", 404, "product_not_found"), ("p", 201, None),
    ]  # fmt: skip
    assert ours.get("p").json()["name"] == "ours"


def test_batches_of_the_same_products_in_other_orders_all_come_through(batch: Batch) -> None:
    items = [upsert(f"p{number}") for number in range(120)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda some: batch.send(*some), [items, items[::-1], items[50:] + items[:50]]))
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    came = [one["status"] for answer in answers for one in answer.json()["items"]]
    assert sorted(came) == [200] * 240 + [201] * 120


def test_each_item_is_in_the_audit(new_shop: NewShop, client_id: str) -> None:
    with new_shop() as shop, serving(*shop) as api:
        batch = Batch(api, client_id)
        batch.send(upsert("a"), delete("b"), {"op": "rename", "id": "c"}, headers={"X-Request-Id": "the-batch"})
        batch.send(upsert("a"), delete("b"), atomic=True)
        batch.send(*[upsert("z")] * 1001)
        for _ in range(2):
            batch.send(upsert("a"), headers={"Idempotency-Key": "k"})

        def found() -> list[tuple[Any, ...]]:
            asked = 'SELECT action, object, status, code FROM twinlens_audit WHERE "clientId" = %s ORDER BY id'
            return run_sql(shop.database_url, asked, [client_id])

        until(lambda: len(found()) == 6)
        assert found() == [
            ("POST /v1/products:batch upsert", "a", 201, None),
            ("POST /v1/products:batch delete", "b", 404, "product_not_found"),
            ("POST /v1/products:batch unknown", "c", 422, "bad_parameter"),
            ("POST /v1/products:batch", None, 404, "product_not_found"),
            ("POST /v1/products:batch upsert", "a", 200, None),
            ("POST /v1/products:batch", None, 200, None),  # the answer was given again, and nothing was done
        ]
        about = 'SELECT DISTINCT "requestId" FROM twinlens_audit WHERE status = 201'
        assert run_sql(shop.database_url, about) == [("the-batch",)]


def test_a_batch_that_is_sent_again_with_its_key_is_made_once(batch: Batch) -> None:
    headers = {"Idempotency-Key": "feed-1"}
    items = (upsert("a"), delete("b"), upsert("", name="x"))
    first = batch.send(*items, headers=headers)
    assert [one["status"] for one in first.json()["items"]] == [201, 404, 422]
    batch.put("b")
    again = batch.send(*items, headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert batch.get("b").status_code == 200
    other = batch.send(*items, atomic=True, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"


def test_a_product_that_another_program_has_locked_refuses_the_batch_and_nothing_is_changed(
    new_shop: NewShop, client_id: str
) -> None:
    with new_shop() as shop, serving(*shop) as api:
        batch = Batch(api, client_id)
        batch.put("held")
        with psycopg.connect(shop.database_url) as holder:
            holder.execute("SELECT FROM products WHERE id = 'held' FOR UPDATE")
            answer = batch.send(upsert("a"), upsert("held"))
            assert (answer.status_code, answer.json()["code"]) == (503, "database_busy")
        assert batch.get("a").status_code == 404


def test_past_its_deadline_a_batch_is_said_to_be_possible_and_its_key_tells(new_shop: NewShop, client_id: str) -> None:
    with new_shop() as shop, serving(*shop) as api:
        batch = Batch(api, client_id)
        batch.put("held")
        items, headers = (upsert("a"), upsert("held", name="new")), {"Idempotency-Key": "k"}
        with psycopg.connect(shop.database_url) as holder:
            holder.execute("SELECT FROM products WHERE id = 'held' FOR UPDATE")
            answer = batch.send(*items, headers={**headers, "Twinlens-Deadline": "0.5"})
            assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
        until(lambda: batch.send(*items, headers=headers).status_code == 200)
        again = batch.send(*items, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert [one["status"] for one in again.json()["items"]] == [201, 200]
