"""Products and media over HTTP: created, read, deleted, and never seen by another client."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support import heif
from tests.support.pictures import in_format
from tests.support.serving import Client

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


@pytest.fixture
def shop(api: Client, client_id: str) -> Shop:
    return Shop(api, client_id)


class Shop:
    """One client's view of the API."""

    def __init__(self, api: Client, client_id: str) -> None:
        self.api, self.client_id = api, client_id
        self.query = {"clientId": client_id}

    def put(self, product_id: str, **fields: Any) -> httpx.Response:
        return self.api.put(f"/v1/products/{product_id}", params=self.query, json={"name": "A thing"} | fields)

    def product(self, number: int = 1) -> str:
        product_id = f"{self.client_id}-{number}"
        assert self.put(product_id).status_code == 201
        return product_id

    def upload(self, product_id: str, data: bytes = KEYBOARD) -> httpx.Response:
        return self.api.post(f"/v1/products/{product_id}/media", params=self.query, files={"file": data})

    def get(self, path: str) -> httpx.Response:
        return self.api.get(path, params=self.query)

    def delete(self, path: str) -> httpx.Response:
        return self.api.delete(path, params=self.query)

    def search(self, data: bytes = KEYBOARD, **fields: Any) -> list[dict[str, Any]]:
        answer = self.api.post("/v1/search", params=self.query, files={"file": data}, data=fields)
        results: list[dict[str, Any]] = answer.json()["results"]
        return results


def test_a_product_is_created_then_replaced(shop: Shop) -> None:
    product_id = f"{shop.client_id}-1"
    created = shop.put(product_id, name="Mouse", sku="M-1")
    assert created.status_code == 201
    body = created.json()
    assert (body["id"], body["clientId"], body["name"], body["sku"], body["isActive"]) == (
        product_id, shop.client_id, "Mouse", "M-1", True,
    )  # fmt: skip
    replaced = shop.put(product_id, name="Mouse, grey", isActive=False)
    assert replaced.status_code == 200
    body = replaced.json()
    assert (body["name"], body["sku"], body["isActive"]) == ("Mouse, grey", None, False)
    assert shop.get(f"/v1/products/{product_id}").json() == body | {"media": [], "mediaNext": None}


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": 3}, {"sku": ""}, {"isActive": "yes"}, {"colour": "red"}])
def test_a_product_that_makes_no_sense_is_422(shop: Shop, fields: dict[str, Any]) -> None:
    response = shop.put(f"{shop.client_id}-1", **fields)
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert shop.get(f"/v1/products/{shop.client_id}-1").status_code == 404


def test_a_name_may_be_in_any_script_but_hold_no_nul(shop: Shop) -> None:
    name = "Näckte-Käpt'n 鍵盤 ⌨️"
    assert shop.put(f"{shop.client_id}-1", name=name).json()["name"] == name
    assert shop.put(f"{shop.client_id}-2", name="a\0b").status_code == 422


def test_attributes_are_kept_as_they_were_given_and_replaced_all_together(shop: Shop) -> None:
    product_id = f"{shop.client_id}-1"
    attributes = {
        "category": "shoes",
        "price": 49.9,
        "stock": 3,
        "new": True,
        "tags": ["red", 7],
        "größe": "⌨️",
        "x": None,
    }
    assert shop.put(product_id, attributes=attributes).json()["attributes"] == attributes
    assert shop.get(f"/v1/products/{product_id}").json()["attributes"] == attributes
    assert shop.put(product_id, attributes={"category": "hats"}).json()["attributes"] == {"category": "hats"}
    assert shop.put(product_id).json()["attributes"] == {}


@pytest.mark.parametrize(
    "attributes",
    [
        "red", ["red"], {"": 1}, {"k" * 101: 1}, {"size": {"eu": 42}}, {"tags": [["red"]]}, {"tags": ["x"] * 101},
        {"colour": "r\0d"}, {"col\0ur": "red"}, {"tags": ["\0"]},
    ],
)  # fmt: skip
def test_attributes_that_no_filter_could_ask_for_are_422(shop: Shop, attributes: Any) -> None:
    response = shop.put(f"{shop.client_id}-1", attributes=attributes)
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert shop.get(f"/v1/products/{shop.client_id}-1").status_code == 404


def test_what_is_wrong_with_an_attribute_names_it(shop: Shop) -> None:
    response = shop.put(f"{shop.client_id}-1", attributes={"colour": "red", "size": {"eu": 42}, "price": 3})
    assert response.json()["error"].startswith("attributes.size: expected")


def test_a_sku_is_one_products_only(shop: Shop) -> None:
    shop.put(f"{shop.client_id}-1", sku="S")
    response = shop.put(f"{shop.client_id}-2", sku="S")
    assert (response.status_code, response.json()["code"]) == (409, "sku_taken")


def test_two_clients_that_put_the_same_id_at_once_each_get_their_own(api: Client, client_id: str) -> None:
    clients = [f"{client_id}-{which}" for which in "ab"]

    def put(client: str) -> httpx.Response:
        return api.put(f"/v1/products/{client_id}", params={"clientId": client}, json={"name": client})

    with ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(put, clients))
    assert [response.status_code for response in responses] == [201, 201]
    assert [response.json()["id"] for response in responses] == [client_id, client_id]

    # Every answer names the ids that the clients chose, and none the database's, which have a ~.
    answers = list(responses)
    for client in clients:
        of_client = {"clientId": client}
        added = api.post(f"/v1/products/{client_id}/media", params=of_client, files={"file": RACCOON})
        media_id = added.json()["id"]
        answers += [
            added,
            api.post(f"/v1/products/{client_id}/media", params=of_client, files={"file": RACCOON}),
            api.get(f"/v1/products/{client_id}", params=of_client),
            api.get(f"/v1/media/{media_id}", params=of_client),
            api.get(f"/v1/media/{media_id}/duplicates", params=of_client),
            api.post("/v1/search", params=of_client, files={"file": RACCOON}),
            api.post("/v1/search", params=of_client, json={"mediaId": media_id}),
            api.post("/v1/search", params=of_client, json={"mediaId": media_id, "filter": {"productIds": [client_id]}}),
        ]
        assert [[match["productId"] for match in answer.json()["results"]] for answer in answers[-3:]] == [
            [client_id]
        ] * 3
        answers += [
            api.delete(f"/v1/media/{media_id}", params=of_client),
            api.delete(f"/v1/products/{client_id}", params=of_client),
        ]
    for answer in answers:
        assert answer.is_success, answer.text
        assert "~" not in answer.text


def test_an_upload_is_found_at_100_percent(shop: Shop) -> None:
    product_id = shop.product()
    uploaded = shop.upload(product_id, RACCOON)
    assert uploaded.status_code == 201
    media = uploaded.json()
    assert (media["productId"], media["kind"], media["status"]) == (product_id, "image", "ready")
    assert (media["width"], media["height"], media["bytes"]) == (640, 480, len(RACCOON))
    assert (media["contentType"], len(media["contentDigest"])) == ("image/jpeg", 64)
    assert shop.get(f"/v1/media/{media['id']}").json() == media
    (match,) = shop.search(RACCOON)
    assert (match["mediaId"], match["similarity"]) == (media["id"], 100.0)


def test_the_same_bytes_again_for_one_product_give_the_existing_media(shop: Shop) -> None:
    product_id = shop.product()
    first, again = shop.upload(product_id), shop.upload(product_id)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = shop.upload(shop.product(2))
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]


def test_the_same_bytes_many_times_at_once_make_one_media(shop: Shop) -> None:
    product_id = shop.product()
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: shop.upload(product_id), range(6)))
    assert {response.status_code for response in responses} <= {200, 201}
    assert len({response.json()["id"] for response in responses}) == 1
    (match,) = shop.search()
    assert match["similarity"] == 100.0
    assert shop.get(f"/v1/media/{match['mediaId']}/thumbnail").status_code == 200


def test_of_two_products_with_one_picture_the_media_that_is_asked_for_comes_first(shop: Shop) -> None:
    ours = [shop.upload(shop.product(number), RACCOON).json()["id"] for number in range(1, 4)]
    shop.upload(shop.product(4), KEYBOARD)
    for media_id in ours:
        found = shop.api.post("/v1/search", params=shop.query, json={"mediaId": media_id}).json()["results"]
        others = sorted(set(ours) - {media_id})
        assert [match["mediaId"] for match in found[:3]] == [media_id, *others]
        assert [match["similarity"] for match in found[:3]] == [100.0] * 3
        assert len(found) == 4
        only = shop.api.post("/v1/search", params=shop.query, json={"mediaId": media_id, "limit": 1})
        assert [match["mediaId"] for match in only.json()["results"]] == [media_id]
    for _ in range(3):
        assert [match["mediaId"] for match in shop.search(RACCOON)[:3]] == sorted(ours)
        assert [match["mediaId"] for match in shop.search(RACCOON, limit=2)] == sorted(ours)[:2]


def test_the_file_itself_comes_before_others_that_decode_to_the_same_pixels(shop: Shop) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    files = [in_format(noise, form) for form in ("PNG", "BMP", "TIFF")]
    ours = [shop.upload(shop.product(number), data).json()["id"] for number, data in enumerate(files)]
    for media_id, data in zip(ours, files, strict=True):
        found = shop.search(data)
        assert [match["mediaId"] for match in found] == [media_id, *sorted(set(ours) - {media_id})]
        assert {match["similarity"] for match in found} == {100.0}


def test_width_and_height_are_those_after_orientation(shop: Shop) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = in_format(Image.new("RGB", (80, 40), "teal"), "JPEG", exif=exif)
    media = shop.upload(shop.product(), sideways).json()
    assert (media["width"], media["height"]) == (40, 80)


def test_an_upload_for_an_unknown_product_leaves_nothing(shop: Shop) -> None:
    response = shop.upload(f"{shop.client_id}-none")
    assert (response.status_code, response.json()["code"]) == (404, "product_not_found")
    assert shop.search() == []


@pytest.mark.parametrize("data", [b"", b"text", KEYBOARD[:300]])
def test_an_upload_that_is_no_picture_leaves_nothing(shop: Shop, data: bytes) -> None:
    product_id = shop.product()
    assert shop.upload(product_id, data).status_code in (400, 415)
    assert shop.search() == []


def test_a_thumbnail_is_a_small_webp(shop: Shop) -> None:
    media = shop.upload(shop.product(), RACCOON).json()
    response = shop.get(f"/v1/media/{media['id']}/thumbnail")
    assert response.headers["content-type"] == "image/webp"
    assert "private" in response.headers["cache-control"]
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.size) == ("WEBP", (256, 192))


def test_a_deleted_media_is_gone_everywhere(shop: Shop) -> None:
    media = shop.upload(shop.product()).json()
    deleted = shop.delete(f"/v1/media/{media['id']}")
    assert (deleted.status_code, deleted.json()) == (200, media)
    assert shop.search() == []
    for path in (f"/v1/media/{media['id']}", f"/v1/media/{media['id']}/thumbnail"):
        assert shop.get(path).json()["code"] == "media_not_found"
    assert shop.delete(f"/v1/media/{media['id']}").status_code == 404


def test_a_product_is_deleted_together_with_its_media(shop: Shop) -> None:
    product_id = shop.product()
    media = shop.upload(product_id).json()
    assert shop.delete(f"/v1/products/{product_id}").json()["id"] == product_id
    assert shop.search() == []
    assert shop.get(f"/v1/products/{product_id}").json()["code"] == "product_not_found"
    assert shop.get(f"/v1/media/{media['id']}").status_code == 404


def test_an_inactive_product_disappears_and_comes_back(shop: Shop) -> None:
    product_id = shop.product()
    shop.upload(product_id)
    shop.put(product_id, isActive=False)
    assert shop.search() == []
    shop.put(product_id, isActive=True)
    assert len(shop.search()) == 1


def test_nothing_of_a_client_is_seen_or_touched_by_another(api: Client, client_id: str) -> None:
    ours, theirs = Shop(api, f"{client_id}-a"), Shop(api, f"{client_id}-b")
    product_id = ours.product()
    media = ours.upload(product_id).json()
    below = f"/v1/media/{media['id']}"
    paths = [f"/v1/products/{product_id}", below, f"{below}/thumbnail", f"{below}/file", f"{below}/duplicates"]
    for path in paths:
        assert theirs.get(path).status_code == 404
    for path in paths[:2]:
        assert theirs.delete(path).status_code == 404
    assert theirs.upload(product_id).status_code == 404
    assert theirs.put(product_id).status_code == 201  # of their own
    assert theirs.search() == []
    assert len(ours.search()) == 1


@pytest.mark.parametrize("bad", ["%20", "a%2F..", "a%20", "x" * 129])
def test_an_id_that_cannot_be_one_is_refused(api: Client, bad: str) -> None:
    assert api.put(f"/v1/products/{bad}", json={"name": "x"}).status_code in (404, 422)


def test_any_picture_can_be_a_media(shop: Shop) -> None:
    product_id = shop.product()
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for form in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG"):
        assert shop.upload(product_id, in_format(Image.fromarray(noise), form)).status_code == 201, form
    assert len(shop.search()) == 7


@pytest.mark.parametrize(
    ("name", "size"), [("plain", (96, 64)), ("turned-6", (64, 96)), ("grid", (64, 96)), ("alpha-10", (96, 64))]
)
def test_a_heic_can_be_a_media_and_finds_itself(shop: Shop, name: str, size: tuple[int, int]) -> None:
    data = heif.file(name)
    made = shop.upload(shop.product(), data).json()
    assert (made["contentType"], made["width"], made["height"], made["bytes"]) == ("image/heic", *size, len(data))
    thumbnail = shop.get(f"/v1/media/{made['id']}/thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).size == size
    (found,) = shop.search(data)
    assert (found["mediaId"], found["similarity"], found["grade"]) == (made["id"], 100, "identical")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"%PDF-1.7", "not_a_picture", "send the page"),
        (heif.written([heif.Item(bytes(9), [heif.extent(9, 9)], b"avc1")]), "unsupported_picture", "H.264"),
    ],
)
def test_a_refusal_names_what_was_sent(shop: Shop, data: bytes, code: str, words: str) -> None:
    response = shop.upload(shop.product(), data)
    assert (response.status_code, response.json()["code"]) == (415, code)
    assert words in response.json()["error"]


def blank(colour: tuple[int, int, int], form: str, size: tuple[int, int] = (300, 200)) -> bytes:
    return in_format(Image.new("RGB", size, colour), form)


BLANK = (
    blank((255, 255, 255), "PNG"),
    blank((255, 255, 255), "JPEG", (640, 480)),
    blank((30, 60, 200), "WEBP", (90, 400)),
    blank((240, 240, 230), "JPEG"),
)


def test_blank_pictures_find_themselves_and_are_never_identical_nor_duplicates(shop: Shop) -> None:
    media = [shop.upload(shop.product(number), data).json() for number, data in enumerate(BLANK)]
    other = shop.upload(shop.product(9)).json()
    assert [one["blank"] for one in [*media, other]] == [True] * len(BLANK) + [False]
    for one, data in zip(media, BLANK, strict=True):
        assert shop.get(f"/v1/media/{one['id']}").json() == one
        found = shop.search(data)
        assert (found[0]["mediaId"], found[0]["similarity"]) == (one["id"], 100.0)
        assert {match["grade"] for match in found} <= {"similar", "weak"}
        by_media = shop.api.post("/v1/search", params=shop.query, json={"mediaId": one["id"]}).json()
        assert {match["grade"] for match in by_media["results"]} <= {"similar", "weak"}
        duplicates = shop.get(f"/v1/media/{one['id']}/duplicates").json()
        assert (duplicates["exact"], duplicates["near"]) == ([], [])
        assert shop.search(data, minGrade="near-duplicate") == []
        assert shop.search(data, minGrade="similar")[0]["mediaId"] == one["id"]
    assert shop.search()[0]["grade"] == "identical"


def test_the_same_blank_file_of_two_products_is_no_duplicate_and_again_for_one_is_its_media(shop: Shop) -> None:
    one, other = (shop.upload(shop.product(number), BLANK[0]) for number in (1, 2))
    assert (one.status_code, other.status_code) == (201, 201)
    again = shop.upload(f"{shop.client_id}-1", BLANK[0])
    assert (again.status_code, again.json()) == (200, one.json())
    assert shop.get(f"/v1/media/{one.json()['id']}/duplicates").json()["exact"] == []
    assert shop.delete(f"/v1/media/{one.json()['id']}").json() == one.json()
