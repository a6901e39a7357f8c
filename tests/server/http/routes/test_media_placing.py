"""Media under ids of their caller's: made, given another picture, moved from product to product."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support.databases import run_sql
from tests.support.pictures import unseen
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


class Shop:
    """One client's pictures, of the products `a` and `b`."""

    def __init__(self, api: Client, client_id: str) -> None:
        self.api, self.client_id = api, client_id
        self.query = {"clientId": client_id}
        for name in ("a", "b"):
            self.product(name)

    def product(self, name: str, **fields: Any) -> None:
        answer = self.api.put(f"/v1/products/{name}", params=self.query, json={"name": name} | fields)
        assert answer.is_success

    def put(self, media_id: str, product_id: str | None, data: bytes = KEYBOARD, **more: Any) -> httpx.Response:
        named = {} if product_id is None else {"productId": product_id}
        return self.api.put(
            f"/v1/media/{media_id}", params=self.query | named, files={"file": data}, headers=more.pop("headers", {}),
            **more,
        )  # fmt: skip

    def upload(self, product_id: str, data: bytes) -> str:
        answer = self.api.post(f"/v1/products/{product_id}/media", params=self.query, files={"file": data})
        media_id: str = answer.json()["id"]
        return media_id

    def patch(self, media_id: str, body: Any, kind: str = "application/merge-patch+json") -> httpx.Response:
        return self.api.patch(f"/v1/media/{media_id}", params=self.query, json=body, headers={"Content-Type": kind})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.api.get(path, params=self.query, headers=headers)

    def search(self, data: bytes) -> list[tuple[str, str, float]]:
        """The matches: media, product and similarity."""
        answer = self.api.post("/v1/search", params=self.query, files={"file": data})
        return [(one["mediaId"], one["productId"], one["similarity"]) for one in answer.json()["results"]]


@pytest.fixture
def shop(api: Client, client_id: str) -> Shop:
    return Shop(api, client_id)


@pytest.fixture
def own(database_url: str, tmp_path: Path, client_id: str) -> Iterator[tuple[Shop, Path, str]]:
    """A shop on a server of its own, the folder of its pictures, and its database."""
    with serving(database_url, tmp_path) as client:
        yield Shop(client, client_id), tmp_path / "media", database_url


def stored(folder: Path) -> set[Path]:
    return {path for kind in ("media", "thumbnails") for path in (folder / kind).rglob("*.*") if path.is_file()}


def test_a_picture_is_put_under_an_id_of_the_callers(shop: Shop) -> None:
    made = shop.put("front-1", "a", RACCOON)
    assert made.status_code == 201
    media = made.json()
    assert (media["id"], media["productId"], media["status"], media["bytes"]) == ("front-1", "a", "ready", len(RACCOON))
    assert shop.get("/v1/media/front-1").json()["contentDigest"] == media["contentDigest"]
    assert shop.search(RACCOON) == [("front-1", "a", 100.0)]
    again = shop.put("front-1", "a", RACCOON)
    assert (again.status_code, again.json()) == (200, media)


def test_the_product_may_be_named_in_the_form_and_must_be_named_once(shop: Shop) -> None:

    answer = shop.api.put("/v1/media/m", params=shop.query, files={"file": KEYBOARD}, data={"productId": "b"})
    assert (answer.status_code, answer.json()["productId"]) == (201, "b")
    wrong: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {}),
        ({"productId": "a"}, {"productId": "b"}),
        ({"productId": ["a", "a"]}, {}),
        ({"productId": ".."}, {}),
    ]
    for params, data in wrong:
        answer = shop.api.put("/v1/media/m", params=shop.query | params, files={"file": KEYBOARD}, data=data)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_another_picture_takes_the_place_of_the_first(own: tuple[Shop, Path, str]) -> None:
    shop, folder, url = own
    first = shop.put("m", "a", KEYBOARD).json()
    kept = stored(folder)
    assert len(kept) == 2
    answer = shop.put("m", "a", RACCOON)
    assert answer.status_code == 200
    media = answer.json()
    assert (media["id"], media["createdAt"]) == ("m", first["createdAt"])
    assert (media["contentType"], media["bytes"], media["width"]) == ("image/jpeg", len(RACCOON), 640)
    assert shop.search(RACCOON) == [("m", "a", 100.0)]
    assert shop.search(KEYBOARD)[0][2] < 100
    assert shop.get("/v1/media/m/file").content == RACCOON
    now = stored(folder)
    assert len(now) == 2
    assert not now & kept
    assert run_sql(url, "SELECT count(*) FROM twinlens_space_1") == [(1,)]


def test_a_media_with_an_id_of_the_servers_can_be_given_another_picture(own: tuple[Shop, Path, str]) -> None:
    shop, folder, _ = own
    media_id = shop.upload("a", KEYBOARD)
    assert "immutable" in shop.get(f"/v1/media/{media_id}/file").headers["cache-control"]
    assert shop.put(media_id, "a", RACCOON).status_code == 200
    assert shop.search(RACCOON) == [(media_id, "a", 100.0)]
    assert len(stored(folder)) == 2
    assert shop.get(f"/v1/media/{media_id}/file").headers["cache-control"] == "private, no-cache"


def test_vectors_of_every_space_are_those_of_the_new_picture(own: tuple[Shop, Path, str]) -> None:
    shop, _, url = own
    shop.put("m", "a", KEYBOARD)
    run_sql(
        url,
        """SELECT twinlens_register_space(repeat('a', 64), dimensions, 'other', '{}', 'there') FROM twinlens_spaces;
        INSERT INTO twinlens_space_2 (space, "mediaId", embedding) SELECT 2, "mediaId", embedding FROM twinlens_space_1;
        INSERT INTO twinlens_unreadable (space, "mediaId", reason) VALUES (2, 'm', 'a poem')""",
    )
    (before,) = run_sql(url, "SELECT revision::text::bigint FROM media")
    shop.put("m", "a", RACCOON)
    assert run_sql(url, "SELECT count(*) FROM twinlens_space_1") == [(1,)]
    assert run_sql(
        url, "SELECT (SELECT count(*) FROM twinlens_space_2), (SELECT count(*) FROM twinlens_unreadable)"
    ) == [(0, 0)]
    # Whoever fills that space looks at what is newer than what it has seen.
    assert run_sql(url, "SELECT revision::text::bigint > %s FROM media", [before[0]]) == [(True,)]


def test_the_same_bytes_put_with_another_product_move_the_media(own: tuple[Shop, Path, str]) -> None:
    shop, folder, _ = own
    shop.put("m", "a")
    kept = stored(folder)
    moved = shop.put("m", "b")
    assert (moved.status_code, moved.json()["productId"]) == (200, "b")
    assert shop.search(KEYBOARD) == [("m", "b", 100.0)]
    assert stored(folder) == kept


def test_other_bytes_put_with_another_product_move_and_replace(shop: Shop) -> None:
    shop.put("m", "a")
    moved = shop.put("m", "b", RACCOON)
    assert (moved.status_code, moved.json()["productId"]) == (200, "b")
    assert shop.search(RACCOON) == [("m", "b", 100.0)]


def test_bytes_that_another_media_of_the_product_has_are_409(own: tuple[Shop, Path, str]) -> None:
    shop, folder, _ = own
    first = shop.upload("a", KEYBOARD)
    shop.put("m", "a", RACCOON)
    kept = stored(folder)
    for answer in (shop.put("m", "a", KEYBOARD), shop.put("n", "a", KEYBOARD)):
        assert (answer.status_code, answer.json()["code"]) == (409, "picture_taken")
    shop.put("k", "b", KEYBOARD)
    assert (shop.put("k", "a", KEYBOARD).json()["code"], shop.patch("k", {"productId": "a"}).json()["code"]) == (
        "picture_taken", "picture_taken",
    )  # fmt: skip
    assert shop.search(RACCOON)[0] == ("m", "a", 100.0)
    assert {one[:2] for one in shop.search(KEYBOARD)[:2]} == {(first, "a"), ("k", "b")}
    assert kept < stored(folder)


def test_a_media_is_moved_by_a_patch(shop: Shop) -> None:
    made = shop.put("m", "a").json()
    for kind, product_id in (("application/merge-patch+json", "b"), ("application/json", "a")):
        moved = shop.patch("m", {"productId": product_id}, kind)
        assert moved.status_code == 200
        assert {**moved.json(), "productId": "a", "thumbnailUrl": "", "fileUrl": ""} == {
            **made, "thumbnailUrl": "", "fileUrl": "",
        }  # fmt: skip
        assert moved.json()["productId"] == product_id
        assert shop.search(KEYBOARD) == [("m", product_id, 100.0)]
    assert shop.patch("m", {}).json()["productId"] == "a"
    assert shop.patch("m", {"productId": "a"}).status_code == 200


def test_a_media_shows_as_its_new_product_does(shop: Shop) -> None:
    shop.product("b", isActive=False)
    shop.put("m", "a")
    shop.patch("m", {"productId": "b"})
    assert shop.search(KEYBOARD) == []
    shop.product("b", isActive=True)
    assert shop.search(KEYBOARD) == [("m", "b", 100.0)]
    shop.product("a", isActive=False)
    assert shop.search(KEYBOARD) == [("m", "b", 100.0)]


def test_what_is_not_there_is_404_and_leaves_nothing(own: tuple[Shop, Path, str]) -> None:
    shop, folder, _ = own
    shop.put("m", "a")
    kept = stored(folder)
    for answer, code in (
        (shop.put("m", "none", RACCOON), "product_not_found"),
        (shop.put("n", "none", RACCOON), "product_not_found"),
        (shop.patch("m", {"productId": "none"}), "product_not_found"),
        (shop.patch("none", {"productId": "a"}), "media_not_found"),
        (shop.patch("none", {}), "media_not_found"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert stored(folder) == kept
    assert shop.search(KEYBOARD) == [("m", "a", 100.0)]


@pytest.mark.parametrize("data", [b"", b"text", KEYBOARD[:300]])
def test_what_is_no_picture_leaves_the_one_that_is_there(shop: Shop, data: bytes) -> None:
    shop.put("m", "a")
    assert shop.put("m", "a", data).status_code in (400, 415)
    assert shop.search(KEYBOARD) == [("m", "a", 100.0)]


@pytest.mark.parametrize(
    "body", [{"productId": None}, {"productId": 3}, {"productId": "a/../b"}, {"kind": "video"}, []]
)
def test_a_patch_that_makes_no_sense_is_422(shop: Shop, body: Any) -> None:
    shop.put("m", "a")
    assert shop.patch("m", body).status_code == 422
    assert shop.patch("m", {"productId": "b"}, "text/plain").status_code == 415
    assert shop.search(KEYBOARD) == [("m", "a", 100.0)]


def test_ids_are_each_clients_own(api: Client, client_id: str) -> None:
    ours, theirs = Shop(api, f"{client_id}-a"), Shop(api, f"{client_id}-b")
    assert [one.put("m", "a").status_code for one in (ours, theirs)] == [201, 201]
    assert [one.put("m", "a", RACCOON).status_code for one in (ours, theirs)] == [200, 200]
    assert "~" not in theirs.put("m", "b", KEYBOARD).text
    assert theirs.get("/v1/media/m").json()["productId"] == "b"
    assert ours.search(RACCOON) == [("m", "a", 100.0)]
    assert theirs.patch("m", {"productId": "a"}).json()["id"] == "m"


def test_many_pictures_under_one_id_at_once_end_with_one_of_them(own: tuple[Shop, Path, str]) -> None:
    shop, folder, url = own
    pictures = [unseen(KEYBOARD) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: shop.put("m", "ab"[number % 2], pictures[number]), range(4)))
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    assert sum(answer.status_code == 201 for answer in answers) == 1
    assert len(stored(folder)) == 2
    assert run_sql(url, "SELECT count(*) FROM twinlens_space_1") == [(1,)]
    last = next(one for one in pictures if one == shop.get("/v1/media/m/file").content)
    assert shop.search(last)[0][2] == 100.0


def test_a_picture_that_may_be_replaced_is_asked_for_again_by_its_etag(shop: Shop) -> None:
    shop.put("m", "a", KEYBOARD)
    for path in ("/v1/media/m/file", "/v1/media/m/thumbnail"):
        first = shop.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        assert shop.get(path, **{"If-None-Match": first.headers["etag"]}).status_code == 304
        shop.put("m", "a", RACCOON)
        other = shop.get(path, **{"If-None-Match": first.headers["etag"]})
        assert other.status_code == 200
        assert other.content != first.content
        shop.put("m", "a", KEYBOARD)


def test_sent_again_with_its_key_a_picture_is_put_once(shop: Shop) -> None:
    headers = {"Idempotency-Key": "k"}
    first = shop.put("m", "a", headers=headers)
    shop.put("m", "a", RACCOON)
    again = shop.put("m", "a", headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert shop.search(RACCOON) == [("m", "a", 100.0)]
