"""Media whose picture the server fetches: answered as an upload is, and never fetched for nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.settings import TEST_PREFIX
from tests.support.picture_host import PictureHost, answer, fetched_from, picture_host, redirect
from tests.support.pictures import unseen
from tests.support.process import KEYBOARD
from tests.support.serving import Client, serving


class Shop:
    """One client's view of the API, with a product, and a path of its own at the host of pictures."""

    def __init__(self, api: Client, pictures: PictureHost, client_id: str) -> None:
        self.api, self.pictures, self.client_id = api, pictures, client_id
        self.path = f"/{client_id}.webp"
        self.url = pictures.url(self.path)
        self.product = f"{client_id}-1"
        put = api.put(f"/v1/products/{self.product}", params={"clientId": client_id}, json={"name": "A thing"})
        assert put.status_code == 201

    def add(self, url: str | None = None, *, product: str | None = None, **more: Any) -> httpx.Response:
        return self.api.post(
            f"/v1/products/{product or self.product}/media",
            json={"url": self.url if url is None else url, "clientId": self.client_id},
            **more,
        )

    @property
    def asked(self) -> int:
        """How often the host was asked for this shop's picture."""
        return sum(one.path == self.path for one in self.pictures.asked)


@pytest.fixture
def shop(api: Client, pictures: PictureHost, client_id: str) -> Shop:
    return Shop(api, pictures, client_id)


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def fetches(api: Client, result: str) -> float:
    (line,) = [
        line
        for line in api.get("/metrics").text.splitlines()
        if line.startswith(f'twinlens_fetches_total{{result="{result}"}}')
    ]
    return float(line.split()[-1])


def test_a_picture_at_a_url_is_added_as_an_upload_is(shop: Shop) -> None:
    picture = unseen(KEYBOARD)
    shop.pictures.answers[shop.path] = answer(picture)
    before = fetches(shop.api, "fetched")
    added = shop.add()
    assert added.status_code == 201, added.text
    media = added.json()
    assert (media["productId"], media["bytes"]) == (shop.product, len(picture))
    assert media["contentDigest"] == hashlib.sha256(picture).hexdigest()
    assert shop.api.get(media["fileUrl"]).content == picture
    assert "fetch;dur=" in added.headers["Server-Timing"]
    assert fetches(shop.api, "fetched") == before + 1
    found = shop.api.post("/v1/search", params={"clientId": shop.client_id}, files={"file": picture}).json()
    assert [(one["mediaId"], one["cosine"]) for one in found["results"]] == [(media["id"], 1.0)]


def test_the_same_bytes_again_give_the_media_that_is_there_however_they_come(shop: Shop) -> None:
    picture = unseen(KEYBOARD)
    shop.pictures.answers[shop.path] = answer(picture)
    first = shop.add()
    again = shop.add()
    uploaded = shop.api.post(
        f"/v1/products/{shop.product}/media", params={"clientId": shop.client_id}, files={"file": picture}
    )
    assert (first.status_code, again.status_code, uploaded.status_code) == (201, 200, 200)
    assert {one.json()["id"] for one in (first, again, uploaded)} == {first.json()["id"]}


def test_without_its_product_nothing_is_fetched(shop: Shop) -> None:
    assert refusal(shop.add(product="none")) == (404, "product_not_found")
    assert refusal(shop.add(product="a%20")) == (422, "bad_parameter")
    assert shop.asked == 0


def test_a_url_that_is_not_allowed_is_422(shop: Shop) -> None:
    before = fetches(shop.api, "url_refused")
    for url in ("https://elsewhere.example/a.webp", "ftp://localhost/a.webp", "", "http://10.0.0.1/a.webp"):
        assert refusal(shop.add(url)) == (422, "url_refused")
    shop.pictures.answers[shop.path] = redirect("http://10.0.0.1/a.webp")
    assert refusal(shop.add()) == (422, "url_refused")
    assert fetches(shop.api, "url_refused") == before + 5


def test_a_host_that_has_no_picture_is_424(shop: Shop) -> None:
    missing = shop.add()
    assert refusal(missing) == (424, "fetch_failed")
    assert missing.json()["error"] == "localhost answered 404."
    assert missing.headers["cache-control"] == "no-store"
    shop.pictures.answers[shop.path] = answer(b"", status=503)
    assert refusal(shop.add()) == (424, "fetch_failed")


def test_what_comes_is_looked_at_like_an_upload(shop: Shop) -> None:
    shop.pictures.answers[shop.path] = answer(b"<html>Not here</html>", headers={"Content-Type": "image/webp"})
    assert refusal(shop.add()) == (415, "not_a_picture")
    shop.pictures.answers[shop.path] = answer(KEYBOARD[:200])
    assert refusal(shop.add()) == (400, "unreadable_picture")
    shop.pictures.answers[shop.path] = answer(b"")
    assert refusal(shop.add()) == (400, "no_picture")
    shop.pictures.answers[shop.path] = answer(bytes(4_000_001))
    assert refusal(shop.add()) == (413, "upload_too_large")


def test_a_slow_host_is_given_up_before_the_request_is(shop: Shop) -> None:
    def drips() -> Iterator[bytes]:
        yield answer(headers={"Content-Length": "1000"}, length=False)
        while not shop.pictures.gone.wait(0.01):
            yield b"x"

    shop.pictures.gone.clear()
    shop.pictures.answers[shop.path] = drips()
    try:
        refused = shop.add(headers={"Twinlens-Deadline": "3"})
    finally:
        shop.pictures.gone.set()
    assert refusal(refused) == (424, "fetch_failed")
    assert "localhost within" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_parameter"),
        ({"url": 7}, 422, "bad_parameter"),
        ({"url": "https://a.example/b", "productId": "p"}, 422, "bad_parameter"),
        ([], 422, "bad_parameter"),
    ],
)
def test_a_body_that_names_no_url_is_refused(shop: Shop, body: Any, status: int, code: str) -> None:
    path = f"/v1/products/{shop.product}/media"
    assert refusal(shop.api.post(path, params={"clientId": shop.client_id}, json=body)) == (status, code)


def test_another_content_type_is_told_both_that_are_read(shop: Shop) -> None:
    refused = shop.api.post(
        f"/v1/products/{shop.product}/media", content=KEYBOARD, headers={"Content-Type": "image/webp"}
    )
    assert refusal(refused) == (415, "unsupported_body")
    assert "multipart/form-data" in refused.json()["error"]
    assert "application/json" in refused.json()["error"]


def test_a_picture_by_url_is_put_under_an_id_of_the_callers(shop: Shop) -> None:
    shop.pictures.answers[shop.path] = answer(KEYBOARD)
    front, named = f"/v1/media/{shop.client_id}-front", {"url": shop.url, "clientId": shop.client_id}
    made = shop.api.put(front, json={**named, "productId": shop.product})
    assert (made.status_code, made.json()["productId"]) == (201, shop.product)
    again = shop.api.put(front, params={"productId": shop.product}, json=named)
    assert (again.status_code, again.json()["createdAt"]) == (200, made.json()["createdAt"])
    shop.pictures.answers[shop.path] = answer(unseen(KEYBOARD))
    assert shop.api.put(front, params={"productId": shop.product}, json=named).status_code == 200
    asked = shop.asked
    assert refusal(shop.api.put(front, json=named)) == (422, "bad_parameter")  # whose picture is it?
    assert refusal(shop.api.put(front, json={**named, "productId": "none"})) == (404, "product_not_found")
    assert shop.asked == asked == 3


def test_a_server_without_the_setting_fetches_nothing_nor_does_one_whose_host_is_itself(
    database_url: str, tmp_path: Path, client_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{TEST_PREFIX}FETCH_LOOPBACK", raising=False)
    with picture_host() as host:
        for hosts, said in (
            ((), "This server fetches no pictures by URL."),
            ((f"localhost:{host.port}",), "The host localhost is not out in the internet."),
        ):
            with serving(database_url, tmp_path, fetch_hosts=hosts) as client:
                client.put("/v1/products/p", json={"name": "P", "clientId": client_id})
                named = {"url": host.url("/a.webp"), "clientId": client_id}
                refused = client.post("/v1/products/p/media", json=named)
                assert refusal(refused) == (422, "url_refused")
                assert refused.json()["error"] == said
        assert host.connections == 0


def test_a_fetched_picture_counts_for_the_limits_of_its_client(
    database_url: str, tmp_path: Path, client_id: str
) -> None:
    limits = "pictures=0.001/2,bytes=1MB"
    with picture_host() as host, fetched_from(host) as hosts:
        host.answers["/large"] = answer(bytes(300_000))
        with serving(database_url, tmp_path, client_limits=limits, **hosts) as client:
            client.put("/v1/products/p", json={"name": "P", "clientId": client_id})
            named, whose = {"url": host.url("/large")}, {"clientId": client_id}
            answers = [client.post("/v1/products/p/media", json=named, params=whose) for _ in range(3)]
            assert [refusal(one) for one in answers] == [
                (415, "not_a_picture"),
                (415, "not_a_picture"),
                (429, "rate_limited"),
            ]
            left = [int(re.findall(r'"bytes";r=([0-9]+)', one.headers["RateLimit"])[0]) for one in answers[:2]]
        assert [one.path for one in host.asked] == ["/large", "/large"]
    assert left[0] - left[1] >= 300_000 - 10_000  # some of it has come back meanwhile
