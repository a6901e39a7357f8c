"""Signed addresses of pictures over HTTP: no key, one picture, for a time; and the picture as it came."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest

from server.access.signed_urls import Picture, Signer
from tests import DEMO_PICTURES, PHOTOGRAPHS, ROOT
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


class Shops:
    """A server with keys on, and two clients in it that have one picture each."""

    def __init__(self, api: Client, url: str, given: dict[str, str]) -> None:
        self.api, self.url, self.keys = api, url, given
        self.media = {}
        for client, data in (("us", RACCOON), ("them", KEYBOARD)):
            product = f"/v1/products/{client}-1"
            self.ask("PUT", product, client, json={"name": "P"})
            self.media[client] = self.ask("POST", f"{product}/media", client, files={"file": data}).json()

    def ask(self, method: str, path: str, key: str = "us", **given: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[key]}", **given.pop("headers", {})}
        return self.api.request(method, path, headers=headers, **given)

    def secret(self) -> bytes:
        with psycopg.connect(self.url) as connection:
            ((secret,),) = connection.execute('SELECT "urlSecret" FROM twinlens_access').fetchall()
        return bytes(secret)

    def address(self, picture: Picture, *, left: float, client: str = "us") -> str:
        media_id = self.media[client]["id"]
        signatures = Signer(self.secret()).signatures(client, int(time.time() + left))
        return f"/v1/media/{media_id}/{picture}?{signatures.query}{signatures.of(media_id)[picture == 'file']}"


@pytest.fixture(scope="module")
def shops(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    with fresh_database(postgres_url, template_database) as url:
        made = {
            "us": new_key(url, "search,read,write", "us").key,
            "us-search": new_key(url, "search", "us").key,
            "them": new_key(url, "search,read,write", "them").key,
        }
        with serving(url, tmp_path_factory.mktemp("shops")) as api:
            yield Shops(api, url, made)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Cache-Control"] == "no-store"


# --- the picture as it came -------------------------------------------------------------------------------------------


def test_a_picture_comes_back_byte_for_byte_and_as_nothing_but_a_picture(shops: Shops) -> None:
    media = shops.media["us"]
    answer = shops.ask("GET", f"/v1/media/{media['id']}/file")
    assert answer.content == RACCOON
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Content-Length"] == str(len(RACCOON))
    assert answer.headers["Content-Disposition"] == f'inline; filename="{media["id"]}.jpg"'
    assert answer.headers["ETag"] == f'"{media["contentDigest"]}"'
    assert answer.headers["Cache-Control"] == "private, max-age=86400, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    head = shops.ask("HEAD", f"/v1/media/{media['id']}/file")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(RACCOON)))


@pytest.mark.parametrize(
    ("named", "status"),
    [("{etag}", 304), ("W/{etag}", 304), ('"x", {etag}', 304), ("*", 304), ('"x"', 200), ("{bare}", 200), ("", 200)],
)
def test_who_has_it_already_is_told_so_and_sent_nothing(shops: Shops, named: str, status: int) -> None:
    media = shops.media["us"]
    digest = media["contentDigest"]
    sent = {"If-None-Match": named.format(etag=f'"{digest}"', bare=digest)}
    answer = shops.ask("GET", f"/v1/media/{media['id']}/file", headers=sent)
    assert (answer.status_code, answer.headers["ETag"]) == (status, f'"{digest}"')
    assert answer.content == (b"" if status == 304 else RACCOON)
    assert "private" in answer.headers["Cache-Control"]
    assert answer.headers["Vary"] == "Authorization, X-API-Key"
    theirs = shops.ask("GET", f"/v1/media/{media['id']}/file", "them", headers=sent)
    refused(theirs, 404, "media_not_found")


def test_a_type_that_others_wrote_is_repeated_only_where_it_is_a_pictures(shops: Shops) -> None:
    media = shops.ask("POST", "/v1/products/us-1/media", files={"file": KEYBOARD}).json()
    with psycopg.connect(shops.url) as connection:
        connection.execute(
            """UPDATE media SET "contentType" = 'text/html', "contentDigest" = NULL WHERE id = %s""", (media["id"],)
        )
    answer = shops.ask("GET", f"/v1/media/{media['id']}/file")
    assert answer.content == KEYBOARD
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{media["id"]}"'
    assert "ETag" not in answer.headers
    shops.ask("DELETE", f"/v1/media/{media['id']}")


# --- signed addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("thumbnailUrl", "image/webp"), ("fileUrl", "image/jpeg")])
def test_every_answer_has_addresses_that_need_no_key(shops: Shops, name: str, kind: str) -> None:
    media = shops.media["us"]
    sent = {"file": RACCOON}
    found = [
        media,
        shops.ask("GET", f"/v1/media/{media['id']}").json(),
        shops.ask("POST", "/v1/search", files=sent).json()["results"][0],
        shops.ask("POST", "/api/search/by-image", files=sent).json()["results"][0],
    ]
    assert len({one[name] for one in found}) == 1  # a picture keeps its address, and browsers what they have of it
    answer = shops.api.get(found[0][name])
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert shops.api.head(found[0][name]).status_code == 200
    expires = int(parse_qs(urlsplit(found[0][name]).query)["expires"][0])
    assert 24 * 3600 <= expires - time.time() <= 36 * 3600 + 1


def test_who_may_only_search_gets_the_addresses_of_thumbnails(shops: Shops) -> None:
    (match,) = shops.ask("POST", "/v1/search", "us-search", files={"file": RACCOON}).json()["results"]
    assert match["fileUrl"] is None
    assert shops.api.get(match["thumbnailUrl"]).status_code == 200
    refused(shops.ask("GET", f"/v1/media/{match['mediaId']}/file", "us-search"), 403, "scope_missing")
    refused(shops.api.get(match["thumbnailUrl"].replace("/thumbnail", "/file")), 401, "signature_invalid")


@pytest.mark.parametrize(
    "change",
    [
        (r"/thumbnail\?", "/file?"), (r"clientId=us", "clientId=them"), (r"expires=1", "expires=2"),
        (r"signature=(.)", r"signature=\1\1"), (r"&signature=.*", "&signature="), (r"clientId=us&", ""),
        (r"expires=\d+&", ""), (r"$", "&clientId=us"), (r"$", "&clientId=them"), (r"$", "&signature=x"),
        (r"$", "&expires=1"), (r"/media/[^/]+", "/media/none"),
    ],
)  # fmt: skip
def test_an_address_that_was_changed_is_401(shops: Shops, change: tuple[str, str]) -> None:
    address = re.sub(*change, shops.media["us"]["thumbnailUrl"], count=1)
    refused(shops.api.get(address), 401, "signature_invalid")


def test_an_address_of_one_picture_opens_no_other(shops: Shops) -> None:
    ours, theirs = shops.media["us"], shops.media["them"]
    for name in ("thumbnailUrl", "fileUrl"):
        refused(shops.api.get(ours[name].replace(ours["id"], theirs["id"])), 401, "signature_invalid")
    query = urlsplit(ours["fileUrl"]).query
    for path in (f"/v1/media/{ours['id']}", f"/v1/media/{ours['id']}/duplicates", "/v1/products/us-1"):
        refused(shops.api.get(f"{path}?{query}"), 401, "key_missing")
    refused(shops.api.delete(f"/v1/media/{ours['id']}?{query}"), 401, "key_missing")


def test_an_address_is_kept_no_longer_than_it_is_good_for(shops: Shops) -> None:
    for picture in ("thumbnail", "file"):
        for left, kept in ((100 * 3600, 86_400), (600.9, 600), (-1, None)):
            answer = shops.api.get(shops.address(picture, left=left))
            if kept is None:
                refused(answer, 401, "signature_invalid")
                assert "expired" in answer.json()["error"]
            else:
                found = re.fullmatch(r"private, max-age=(\d+), immutable", answer.headers["Cache-Control"])
                assert found
                assert kept - 2 <= int(found[1]) <= kept


def test_a_signature_decides_alone_whatever_key_comes_with_it(shops: Shops) -> None:
    good, expired = shops.address("file", left=600), shops.address("file", left=-1)
    for key in ("us", "us-search", "them"):
        assert shops.ask("GET", good, key).content == RACCOON
        refused(shops.ask("GET", expired, key), 401, "signature_invalid")
    assert shops.api.get(good, headers={"X-API-Key": "nonsense"}).status_code == 200


def test_a_deleted_media_is_gone_whoever_has_its_address(shops: Shops) -> None:
    media = shops.ask("POST", "/v1/products/us-1/media", files={"file": KEYBOARD}).json()
    assert shops.api.get(media["thumbnailUrl"]).status_code == 200
    shops.ask("DELETE", f"/v1/media/{media['id']}")
    for name in ("thumbnailUrl", "fileUrl"):
        refused(shops.api.get(media[name]), 404, "media_not_found")


@pytest.mark.parametrize(("sent", "begun"), [("/shop/search", "/shop/search/v1/"), ("//evil.example", "/v1/")])
def test_an_address_begins_with_the_prefix_that_the_proxy_names(shops: Shops, sent: str, begun: str) -> None:
    media = shops.ask("GET", f"/v1/media/{shops.media['us']['id']}", headers={"X-Forwarded-Prefix": sent}).json()
    for name in ("thumbnailUrl", "fileUrl"):
        assert media[name].startswith(begun)
        assert shops.api.get(media[name].removeprefix(sent)).status_code == 200


def test_a_new_secret_ends_all_addresses_as_the_documentation_says(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    found = re.search(r"^ +UPDATE twinlens_access SET.*?;$", text, re.DOTALL | re.MULTILINE)
    assert found
    with (
        fresh_database(postgres_url, template_database) as url,
        serving(url, tmp_path_factory.mktemp("data")) as api,
    ):
        api.put("/v1/products/p", json={"name": "P"})
        media = api.post("/v1/products/p/media", files={"file": KEYBOARD}).json()
        assert api.get(media["fileUrl"]).status_code == 200  # also while callers need no key
        assert api.get(media["fileUrl"].replace("clientId=demo", "clientId=other")).status_code == 401
        with psycopg.connect(url) as connection:
            connection.execute(found[0].encode())
        deadline = time.monotonic() + 10
        while api.get(media["fileUrl"]).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        refused(api.get(media["fileUrl"]), 401, "signature_invalid")
        again = api.get(f"/v1/media/{media['id']}").json()
        assert api.get(again["fileUrl"]).content == KEYBOARD


# --- what caches may do -----------------------------------------------------------------------------------------------


def test_no_cache_in_between_can_give_one_clients_answer_to_another(shops: Shops) -> None:
    media = shops.media["us"]
    kept, not_kept = "private, max-age=86400, immutable", "no-store"
    for path, control in (
        ("/v1/products/us-1", "private, no-cache"),
        ("/v1/products", not_kept),
        ("/v1/products/us-1/media", not_kept),
        (f"/v1/media/{media['id']}", not_kept),
        (f"/v1/media/{media['id']}/duplicates", not_kept),
        (f"/v1/media/{media['id']}/thumbnail", kept),
        (f"/v1/media/{media['id']}/file", kept),
    ):
        for name, value in (("Authorization", f"Bearer {shops.keys['us']}"), ("X-API-Key", shops.keys["us"])):
            answer = shops.api.get(path, headers={name: value})
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, control), path
            assert {"Authorization", "X-API-Key"} <= set(answer.headers["Vary"].split(", "))
        refused(shops.api.get(path), 401, "key_missing")
    for path in ("/health/live", "/", "/schema/openapi.json"):
        assert "Authorization" not in shops.api.get(path).headers.get("Vary", "")
