"""Changing some of a product, and only the version that was read: JSON merge patches, ETags and their conditions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests import DEMO_PICTURES
from tests.support.serving import Client

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
MERGE_PATCH = "application/merge-patch+json"
ATTRIBUTES: dict[str, Any] = {"colour": ["red", "white"], "price": 49.9, "new": True}
FULL: dict[str, Any] = {
    "name": "Mouse",
    "sku": "M-1",
    "isActive": True,
    "attributes": ATTRIBUTES,
}


class Products:
    """One client's products."""

    def __init__(self, api: Client, client_id: str) -> None:
        self.api, self.of = api, {"clientId": client_id}

    def put(self, body: dict[str, Any], item: str = "p", **headers: str) -> httpx.Response:
        return self.api.put(f"/v1/products/{item}", params=self.of, json=body, headers=headers)

    def patch(self, body: Any, item: str = "p", kind: str = MERGE_PATCH, **headers: str) -> httpx.Response:
        sent = {"Content-Type": kind, **headers}
        content = body if isinstance(body, bytes) else httpx.Request("POST", "http://x", json=body).content
        return self.api.patch(f"/v1/products/{item}", params=self.of, content=content, headers=sent)

    def get(self, item: str = "p", **headers: str) -> httpx.Response:
        return self.api.get(f"/v1/products/{item}", params=self.of, headers=headers)

    def delete(self, item: str = "p", **headers: str) -> httpx.Response:
        return self.api.delete(f"/v1/products/{item}", params=self.of, headers=headers)

    def state(self, item: str = "p") -> dict[str, Any]:
        body = self.get(item).json()
        return {name: body[name] for name in ("name", "sku", "isActive", "attributes")}


@pytest.fixture
def products(api: Client, client_id: str) -> Products:
    made = Products(api, client_id)
    assert made.put(FULL).status_code == 201
    return made


# --- merge patches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MERGE_PATCH, "application/json", f"{MERGE_PATCH}; charset=utf-8"])
def test_a_job_that_renames_changes_nothing_else(products: Products, kind: str) -> None:
    answer = products.patch({"name": "Mouse, grey"}, kind=kind)
    assert answer.status_code == 200
    assert products.state() == FULL | {"name": "Mouse, grey"}
    assert {name: answer.json()[name] for name in FULL} == products.state()


@pytest.mark.parametrize(
    ("patch", "becomes"),
    [
        ({}, FULL),
        ({"sku": None}, FULL | {"sku": None}),
        ({"sku": "M-2", "isActive": False}, FULL | {"sku": "M-2", "isActive": False}),
        ({"attributes": {}}, FULL),
        ({"attributes": {"price": 39.9}}, FULL | {"attributes": {**ATTRIBUTES, "price": 39.9}}),
        ({"attributes": {"price": None, "x": None}}, FULL | {"attributes": {"colour": ["red", "white"], "new": True}}),
        ({"attributes": {"colour": ["blue"]}}, FULL | {"attributes": {**ATTRIBUTES, "colour": ["blue"]}}),
        ({"attributes": {"größe": "⌨️"}}, FULL | {"attributes": {**ATTRIBUTES, "größe": "⌨️"}}),
        ({"attributes": None}, FULL | {"attributes": {}}),
    ],
)  # fmt: skip
def test_what_is_left_out_stays_and_null_removes(
    products: Products, patch: dict[str, Any], becomes: dict[str, Any]
) -> None:
    """RFC 7396; within `attributes` as well, and a list is a value."""
    assert products.patch(patch).status_code == 200
    assert products.state() == becomes


@pytest.mark.parametrize(
    "patch",
    [
        {"name": None}, {"name": ""}, {"isActive": None}, {"isActive": "no"}, {"sku": ""}, {"colour": "red"},
        {"attributes": {"a": {"b": 1}}}, {"attributes": {"": 1}}, {"attributes": []}, {"id": "q"}, [], "name", b"null",
        {"attributes": {f"{number}": number for number in range(98)}}, {"name": "a\0b"},
    ],
)  # fmt: skip
def test_a_patch_that_makes_no_sense_is_422_and_changes_nothing(products: Products, patch: Any) -> None:
    answer = products.patch(patch)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert answer.json()["error"].endswith(".")
    assert products.state() == FULL


def test_all_attributes_can_be_replaced_by_others_at_once(products: Products) -> None:
    first = {f"a{number}": number for number in range(100)}
    assert products.put({**FULL, "attributes": first}).status_code == 200
    other = {f"b{number}": number for number in range(100)}
    assert products.patch({"attributes": {**dict.fromkeys(first), **other}}).status_code == 200
    assert products.state()["attributes"] == other


@pytest.mark.parametrize("kind", ["application/json-patch+json", "text/plain", "multipart/form-data", "text/json"])
def test_another_content_type_is_415_and_says_which_are_read(products: Products, kind: str) -> None:
    answer = products.patch({"name": "x"}, kind=kind)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_body")
    assert MERGE_PATCH in answer.json()["error"]
    assert products.state() == FULL


def test_a_patch_of_nothing_is_404_and_creates_nothing(products: Products) -> None:
    answer = products.patch({"name": "x"}, item="none")
    assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
    assert products.get("none").status_code == 404
    assert products.patch(b"{", item="p").json()["code"] == "malformed_request"


def test_a_sku_of_another_product_is_409(products: Products) -> None:
    products.put({"name": "Other", "sku": "M-2"}, item="q")
    answer = products.patch({"sku": "M-2", "name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "sku_taken")
    assert products.state() == FULL


def test_patches_at_once_all_count(products: Products) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: products.patch({"attributes": {f"n{n}": n}}), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert products.state()["attributes"] == {**ATTRIBUTES, **{f"n{n}": n for n in range(12)}}


def test_a_search_that_begins_after_the_answer_sees_the_change(products: Products) -> None:
    products.api.post("/v1/products/p/media", params=products.of, files={"file": KEYBOARD})

    def found(**fields: str) -> list[dict[str, Any]]:
        answer = products.api.post("/v1/search", params=products.of, files={"file": KEYBOARD}, data=fields)
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    for round_ in range(5):
        products.patch({"isActive": False})
        assert found() == []
        products.patch({"isActive": True, "name": f"Mouse {round_}", "attributes": {"round": round_}})
        assert [match["productName"] for match in found(filter=f'{{"attributes": {{"round": {round_}}}}}')] == [
            f"Mouse {round_}"
        ]
        assert found(filter=f'{{"attributes": {{"round": {round_ - 1}}}}}') == []


# --- versions ---------------------------------------------------------------------------------------------------------


def test_each_version_has_an_etag_and_what_changes_nothing_is_none(products: Products) -> None:
    first = products.put(FULL)
    assert first.headers["etag"] == products.patch({}).headers["etag"]
    second = products.patch({"name": "Other"})
    assert second.headers["etag"] != first.headers["etag"]
    assert second.json()["updatedAt"] > first.json()["updatedAt"]
    assert first.json() == products.put(FULL).json() | {"updatedAt": first.json()["updatedAt"]}
    assert first.headers["etag"].startswith('"')


@pytest.mark.parametrize("write", ["put", "patch", "delete"])
def test_a_write_with_if_match_changes_only_the_version_that_was_read(products: Products, write: str) -> None:
    stale = products.get().headers["etag"]
    current = products.patch({"name": "Changed meanwhile"}).headers["etag"]

    def do(tag: str) -> httpx.Response:
        condition = {"If-Match": tag}
        if write == "delete":
            return products.delete(**condition)
        return (products.put if write == "put" else products.patch)({"name": "Mine"}, **condition)

    for tag in (stale, '"none"', f"W/{current}", '""', f'{stale}, "ffffffffffffffffff"', ""):
        answer = do(tag)
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed"), tag
    assert products.state()["name"] == "Changed meanwhile"
    for broken in ("5", '"a', "*, *", '"a" "b"'):
        assert do(broken).status_code == 422
    assert do(f'{stale} , {current},W/"x"').status_code == 200
    if write != "delete":
        assert products.state()["name"] == "Mine"


def test_the_etag_of_any_answer_will_do_also_after_a_picture_was_added(products: Products) -> None:
    read = products.get().headers["etag"]
    products.api.post("/v1/products/p/media", params=products.of, files={"file": KEYBOARD})
    assert products.get().headers["etag"] != read, "the answer has a picture more"
    written = products.patch({"name": "Mine"}, **{"If-Match": read})
    assert written.status_code == 200
    again = products.put(FULL, **{"If-Match": written.headers["etag"]})
    assert again.status_code == 200


def test_a_star_is_any_version_that_is_there(products: Products) -> None:
    star = {"If-Match": "*"}
    assert products.patch({"name": "x"}, **star).status_code == 200
    assert products.put(FULL, **star).status_code == 200
    answer = products.put(FULL, item="none", **star)
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    # Without the condition it would be 404, and so it is with it.
    assert products.patch({"name": "x"}, item="none", **star).status_code == 404
    assert products.delete("none", **star).status_code == 404
    assert products.get("none").status_code == 404


def test_a_product_is_created_and_never_replaced_with_if_none_match(products: Products) -> None:
    new = {"If-None-Match": "*"}
    answer = products.put({"name": "Mine"}, **new)
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert products.state() == FULL
    assert products.put({"name": "Mine"}, item="q", **new).status_code == 201
    assert products.put({"name": "x"}, item="q", **{"If-None-Match": '"1"'}).status_code == 422
    assert products.state("q")["name"] == "Mine"


def test_a_foreign_products_id_is_no_obstacle_to_creating_ones_own(api: Client, client_id: str) -> None:
    ours, theirs = Products(api, f"{client_id}-a"), Products(api, f"{client_id}-b")
    item = f"{client_id}-p"
    for shop in (ours, theirs):
        assert shop.put({"name": "x"}, item=item, **{"If-None-Match": "*"}).status_code == 201
        assert shop.put({"name": "y"}, item=item, **{"If-None-Match": "*"}).status_code == 412
        assert shop.put({"name": "y"}, item=item, **{"If-Match": "*"}).status_code == 200
    # A version of one is none of the other.
    tag = ours.get(item).headers["etag"]
    assert theirs.patch({"name": "z"}, item=item, **{"If-Match": tag}).status_code == 412


def test_of_writers_with_one_version_at_once_one_wins(products: Products) -> None:
    for round_ in range(5):
        tag = products.get().headers["etag"]
        with ThreadPoolExecutor(6) as threads:
            answers = list(
                threads.map(
                    lambda n, tag=tag, round_=round_: products.put({"name": f"{round_} {n}"}, **{"If-Match": tag}),
                    range(6),
                )
            )
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
        (won,) = (answer.json()["name"] for answer in answers if answer.status_code == 200)
        assert products.state()["name"] == won


def test_of_creators_at_once_one_wins(products: Products) -> None:
    for item in "abc":
        with ThreadPoolExecutor(6) as threads:
            answers = list(
                threads.map(
                    lambda n, item=item: products.put({"name": f"{n}"}, item=item, **{"If-None-Match": "*"}), range(6)
                )
            )
        assert sorted(answer.status_code for answer in answers) == [201] + [412] * 5


def test_counting_up_with_if_match_loses_nothing(products: Products) -> None:
    """What ETags are for: read, change, write, and again where somebody was quicker."""
    products.patch({"attributes": {"stock": 0}})

    def count_up(_: int) -> None:
        while True:
            read = products.get()
            stock = read.json()["attributes"]["stock"]
            answer = products.patch({"attributes": {"stock": stock + 1}}, **{"If-Match": read.headers["etag"]})
            if answer.status_code != 412:
                assert answer.status_code == 200
                return

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count_up, range(12)))
    assert products.state()["attributes"]["stock"] == 12


def test_a_reader_that_has_it_already_is_told_so(products: Products) -> None:
    products.api.post("/v1/products/p/media", params=products.of, files={"file": KEYBOARD})
    first = products.get()
    assert first.headers["cache-control"] == "private, no-cache"
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = products.get(**{"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == tag
        assert "X-API-Key" in answer.headers["vary"]
    for unknown in ('"other"', "broken", tag.strip('"')):
        assert products.get(**{"If-None-Match": unknown}).json() == first.json()
    products.patch({"name": "Other"})
    assert products.get(**{"If-None-Match": tag}).status_code == 200


def test_an_answer_with_other_addresses_is_another_answer(products: Products, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a reader would go on with the addresses of pictures that have expired."""
    products.api.post("/v1/products/p/media", params=products.of, files={"file": KEYBOARD})
    before = products.get()
    monkeypatch.setattr("server.http.signed.expiry", lambda now, lifetime: int(now) + 1_000_000)
    after = products.get(**{"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["media"][0]["fileUrl"] != before.json()["media"][0]["fileUrl"]
    # For a write it is the same version.
    assert products.patch({"name": "x"}, **{"If-Match": before.headers["etag"]}).status_code == 200
