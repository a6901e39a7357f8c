"""Search keys over HTTP: they only search, and only what they allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from server.access.keys import id_of
from tests.support.access import CATALOGUE, fill, picture, signed
from tests.support.databases import fresh_database
from tests.support.keys import new_key, revoke
from tests.support.pictures import unseen
from tests.support.process import until
from tests.support.serving import Client, serving
from twinlens import derive_search_key

MUSIC = {"accordion", "drum", "violin"}
SHOP = "https://shop.example"


class Keyed(NamedTuple):
    client: Client
    url: str
    parent: str
    write: str
    media: dict[str, str]


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys of the client acme, and a small catalogue."""
    with fresh_database(postgres_url, template_database) as url:
        parent, write = new_key(url, "search").key, new_key(url, "read,write").key
        with serving(url, tmp_path_factory.mktemp("keyed")) as client:
            yield Keyed(client, url, parent, write, fill(client, write))


def ask(keyed: Keyed, body: Any, search_key: str | None = None, **bounds: Any) -> httpx.Response:
    """A search by JSON, with a search key of these bounds."""
    key = search_key or derive_search_key(keyed.parent, **bounds)
    return keyed.client.post("/v1/search", json=body, headers={"X-API-Key": key})


def found(answer: httpx.Response) -> list[str]:
    return [match["productId"] for match in answer.raise_for_status().json()["results"]]


def send(keyed: Keyed, path: str = "/v1/search", data: bytes | None = None, **bounds: Any) -> httpx.Response:
    key = derive_search_key(keyed.parent, **bounds)
    files = {"file": data or picture("keyboard")}
    return keyed.client.post(path, files=files, headers={"Authorization": f"Bearer {key}"})


def test_without_bounds_a_search_key_searches_as_its_parent_does(keyed: Keyed) -> None:
    by_parent = keyed.client.post("/v1/search", json={"text": "tea"}, headers={"X-API-Key": keyed.parent})
    assert found(ask(keyed, {"text": "tea"})) == found(by_parent)
    assert set(found(by_parent)) == set(CATALOGUE)


@pytest.mark.parametrize("path", ["/v1/search", "/api/search/by-image"])
def test_a_keys_filter_holds_for_pictures_also_for_the_very_file_that_is_searched_for(keyed: Keyed, path: str) -> None:
    music = {"attributes": {"category": "music"}}
    assert set(found(send(keyed, path, filter=music))) == MUSIC
    assert found(send(keyed, path, picture("violin"), filter=music))[0] == "violin"


@pytest.mark.parametrize(
    ("own", "keys", "expected"),
    [
        (None, {"attributes": {"category": "music"}}, MUSIC),
        ({}, {"attributes": {"category": "music"}}, MUSIC),
        ({"attributes": {"category": "office"}}, {"attributes": {"category": "music"}}, set()),
        ({"attributes": {"category": ["music", "office"]}}, {"attributes": {"category": ["kitchen", "music"]}}, MUSIC),
        ({"attributes": {"price": {"gt": 10}}}, {"attributes": {"price": {"lt": 100}}}, {"keyboard", "drum", "teapot"}),
        ({"attributes": {"price": {"lt": 600}}}, {"attributes": {"category": "music"}}, {"violin", "drum"}),
        ({"productIds": ["violin", "teapot"]}, {"productIds": ["teapot", "drum"]}, {"teapot"}),
        ({"productIds": ["violin"]}, {"productIds": ["teapot", "drum"]}, set()),
        ({"productIds": ["violin", "teapot"]}, {"attributes": {"category": "music"}}, {"violin"}),
        ({"kind": "video"}, {"kind": "image"}, set()),
        ({"kind": "image"}, {"kind": "image", "productIds": ["violin"]}, {"violin"}),
        (None, {"attributes": {"category": 'music" || "1" == "1'}}, set()),
        (None, {"attributes": {"category": {"not": ["music", "office"]}}}, {"teapot"}),
        ({"attributes": {"category": {"not": "music"}}}, {"attributes": {"category": "music"}}, set()),
        (
            {"attributes": {"price": {"not": {"lt": 100}}}},
            {"attributes": {"category": {"contains": "music"}}},
            {"violin", "accordion"},
        ),
        ({"attributes": {"colour": {"exists": False}}}, {"attributes": {"category": "kitchen"}}, {"teapot"}),
        (None, {"attributes": {"category": {"containsAll": ["music", "office"]}}}, set()),
    ],
)
def test_a_match_passes_the_keys_filter_and_the_requests_own(
    keyed: Keyed, own: Any, keys: dict[str, Any], expected: set[str]
) -> None:
    assert set(found(ask(keyed, {"text": "thing", "filter": own}, filter=keys))) == expected


def test_what_words_name_is_within_the_keys_filter(keyed: Keyed) -> None:
    """Neither is a hidden product found, nor does a correction tell that it is there."""
    key = derive_search_key(keyed.parent, filter={"attributes": {"category": "music"}})
    for text in ("teapot", "teepot"):
        assert set(found(ask(keyed, {"text": text}, key))) == MUSIC
    assert found(ask(keyed, {"text": "vioiln"}, key))[0] == "violin"
    assert found(ask(keyed, {"text": "teapot"}, derive_search_key(keyed.parent)))[0] == "teapot"


def test_a_limit_above_the_keys_is_lowered_to_it(keyed: Keyed) -> None:
    for asked, given in ((None, 2), (24, 2), (1000, 2), (1, 1)):
        body = {"text": "thing"} if asked is None else {"text": "thing", "limit": asked}
        assert len(found(ask(keyed, body, limit=2))) == given
    assert len(found(send(keyed, limit=1))) == 1


def test_a_keys_limit_holds_for_all_pages_together(keyed: Keyed) -> None:
    listed: list[str] = []
    cursor: dict[str, str] = {}
    for given in (2, 2, 1):
        page = ask(keyed, {"text": "thing", "limit": 2, **cursor}, limit=5)
        assert len(found(page)) == given
        listed += found(page)
        cursor = {"cursor": page.json()["next"]}
    assert cursor == {"cursor": None}
    assert listed == found(ask(keyed, {"text": "thing"}, limit=5))
    # A cursor is no way around it: another key's is of another list.
    far = ask(keyed, {"text": "thing", "limit": 5}).json()["next"]
    assert ask(keyed, {"text": "thing", "limit": 5, "cursor": far}, limit=5).status_code == 422
    assert ask(keyed, {"text": "thing", "cursor": far}, filter={"kind": "image"}).status_code == 422
    assert ask(keyed, {"text": "thing", "cursor": far}).status_code == 200


def test_a_media_outside_of_the_filter_is_not_there(keyed: Keyed) -> None:
    music = {"attributes": {"category": "music"}}
    key = derive_search_key(keyed.parent, filter=music)

    def thumbnail(media_id: str) -> httpx.Response:
        return keyed.client.get(f"/v1/media/{media_id}/thumbnail", headers={"X-API-Key": key})

    assert found(ask(keyed, {"mediaId": keyed.media["violin"]}, key))[0] == "violin"
    assert thumbnail(keyed.media["violin"]).status_code == 200

    def regions(media_id: str) -> httpx.Response:
        return keyed.client.get(f"/v1/media/{media_id}/regions", headers={"X-API-Key": key})

    assert regions(keyed.media["violin"]).status_code == 200
    part = {"crop": [0.1, 0.1, 0.8, 0.8]}
    assert found(ask(keyed, {"mediaId": keyed.media["violin"], **part}, key))
    for media_id in (keyed.media["teapot"], "nobodys"):
        asked: list[dict[str, Any]] = [{"mediaId": media_id}, {"mediaId": media_id, **part}]
        asked.append({"query": [{"text": "tea"}, {"mediaId": media_id, **part}]})
        hidden = [*(ask(keyed, one, key) for one in asked), thumbnail(media_id), regions(media_id)]
        assert [(one.status_code, one.json()["code"]) for one in hidden] == [(404, "media_not_found")] * 5
    sentences = {thumbnail(media_id).json()["error"] for media_id in (keyed.media["teapot"], "nobodys")}
    assert len(sentences) == 1


def test_the_parts_of_a_query_are_within_the_keys_bounds(keyed: Keyed) -> None:
    key = derive_search_key(keyed.parent, filter={"attributes": {"category": "music"}}, limit=2)
    words, violin, teapot = {"text": "tea"}, {"mediaId": keyed.media["violin"]}, {"mediaId": keyed.media["teapot"]}
    matches = found(ask(keyed, {"query": [violin, words], "limit": 24}, key))
    assert len(matches) == 2
    assert set(matches) <= MUSIC
    for weight in (1, -0.5):
        hidden = ask(keyed, {"query": [violin, {**teapot, "weight": weight}]}, key)
        assert (hidden.status_code, hidden.json()["code"]) == (404, "media_not_found")


def test_a_query_of_several_parts_uses_up_as_much_of_the_keys_rate(keyed: Keyed) -> None:
    words = [{"text": "tea"}, {"text": "music"}] * 8
    waits = []
    for parts in (words[:1], words):
        key = derive_search_key(keyed.parent, rate=0.01, limit=len(parts))  # each is another key
        assert ask(keyed, {"query": parts}, key).status_code == 200
        refused = ask(keyed, {"text": "tea"}, key)
        assert refused.status_code == 429
        waits.append(int(refused.headers["Retry-After"]))
    assert waits[0] <= 100 < 1000 < waits[1] <= 1600


def test_a_product_whose_id_another_client_had_first_is_named_by_its_own_id(keyed: Keyed) -> None:
    """In the database it has another one, which no caller knows."""
    first = new_key(keyed.url, "read,write", "first").key

    def put(key: str) -> int:
        body = {"name": "Shared", "attributes": {"category": "shared"}}
        return keyed.client.put("/v1/products/shared", json=body, headers={"X-API-Key": key}).status_code

    until(lambda: put(first) == 201)
    assert put(keyed.write) == 201
    write, files = {"X-API-Key": keyed.write}, {"file": unseen(picture("teapot"))}
    added = keyed.client.post("/v1/products/shared/media", files=files, headers=write).raise_for_status().json()
    try:
        for filter_, status in (({"productIds": ["shared"]}, 200), ({"productIds": ["teapot"]}, 404)):
            key = derive_search_key(keyed.parent, filter=filter_)
            path = f"/v1/media/{added['id']}/thumbnail"
            assert keyed.client.get(path, headers={"X-API-Key": key}).status_code == status
            assert ask(keyed, {"mediaId": added["id"]}, key).status_code == status
            assert set(found(ask(keyed, {"text": "thing"}, key))) == set(filter_["productIds"])
    finally:
        keyed.client.delete("/v1/products/shared", headers=write).raise_for_status()


def test_a_product_that_is_switched_off_shows_nothing_to_a_search_key(keyed: Keyed) -> None:
    write = {"X-API-Key": keyed.write}
    key = derive_search_key(keyed.parent)
    address = f"/v1/media/{keyed.media['drum']}/thumbnail"
    put = {"name": "Drum", "attributes": CATALOGUE["drum"]}
    keyed.client.put("/v1/products/drum", json={**put, "isActive": False}, headers=write).raise_for_status()
    try:
        assert keyed.client.get(address, headers={"X-API-Key": key}).status_code == 404
        assert ask(keyed, {"mediaId": keyed.media["drum"]}, key).status_code == 404
        assert keyed.client.get(address, headers=write).status_code == 200
    finally:
        keyed.client.put("/v1/products/drum", json=put, headers=write).raise_for_status()
    assert keyed.client.get(address, headers={"X-API-Key": key}).status_code == 200


def test_only_an_operators_key_finds_what_is_not_active(keyed: Keyed) -> None:
    write, admin = {"X-API-Key": keyed.write}, new_key(keyed.url, "admin", None).key
    put = {"name": "Drum", "attributes": CATALOGUE["drum"]}
    keyed.client.put("/v1/products/drum", json={**put, "isActive": False}, headers=write).raise_for_status()
    body = {"text": "thing", "clientId": "acme", "filter": {"isActive": "any"}}
    asked_for = {"filter": '{"isActive": "any"}', "clientId": "acme"}
    derived = [derive_search_key(keyed.parent), derive_search_key(admin, client="acme")]
    try:
        until(lambda: ask(keyed, body, admin).status_code != 401)
        assert set(found(ask(keyed, body, admin))) == set(CATALOGUE)
        assert set(found(ask(keyed, {**body, "filter": {}}, admin))) == set(CATALOGUE) - {"drum"}
        for path in ("/v1/search", "/api/search/by-image"):
            for key in (keyed.parent, *derived):
                answers = [
                    keyed.client.post(
                        path, files={"file": picture("drum")}, data=asked_for, headers={"X-API-Key": key}
                    ),
                    ask(keyed, body, key),
                ]
                assert [(one.status_code, one.json()["code"]) for one in answers] == [(403, "scope_missing")] * 2
    finally:
        keyed.client.put("/v1/products/drum", json=put, headers=write).raise_for_status()


@pytest.mark.parametrize("where", [{"isActive": "any"}, {"isActive": "any", "attributes": {"category": "music"}}])
def test_a_search_keys_filter_never_names_what_is_not_active(keyed: Keyed, where: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="isActive"):
        derive_search_key(keyed.parent, filter=where)
    by_hand = signed(keyed.parent, {"version": 1, "key": id_of(keyed.parent), "filter": where})
    answers = [
        ask(keyed, {"text": "thing"}, by_hand),
        keyed.client.get(f"/v1/media/{keyed.media['drum']}/thumbnail", headers={"X-API-Key": by_hand}),
    ]
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(401, "key_invalid")] * 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/embed-image"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/products/violin"),
        ("PUT", "/v1/products/violin"),
        ("DELETE", "/v1/products/violin"),
        ("POST", "/v1/products/violin/media"),
        ("GET", "/v1/media/x"),
        ("DELETE", "/v1/media/x"),
        ("GET", "/v1/media/x/duplicates"),
        ("GET", "/metrics"),
    ],
)
def test_a_search_key_does_nothing_else(keyed: Keyed, method: str, path: str) -> None:
    answer = keyed.client.request(method, path, headers={"X-API-Key": derive_search_key(keyed.parent)})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_the_client_of_a_search_key_cannot_be_left(keyed: Keyed) -> None:
    assert ask(keyed, {"text": "x", "clientId": "other"}).json()["code"] == "client_mismatch"
    other = ask(keyed, {"text": "x"}, client="other")
    assert (other.status_code, other.json()["code"]) == (401, "key_invalid")


def test_only_pages_of_its_origins_may_use_it(keyed: Keyed) -> None:
    key = derive_search_key(keyed.parent, origins=[SHOP, "http://localhost:3000"])

    def ask_from(*origins: str) -> tuple[int, str]:
        headers = [("x-api-key", key), *(("origin", origin) for origin in origins)]
        answer = keyed.client.post("/v1/search", json={"text": "x"}, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    assert ask_from(SHOP)[0] == ask_from("http://localhost:3000")[0] == 200
    for origins in [
        (),
        ("null",),
        ("https://other.example",),
        (f"{SHOP}.other.example",),
        (f"{SHOP}:8443",),
        ("http://shop.example",),
        (SHOP, "https://other.example"),
    ]:
        assert ask_from(*origins) == (403, "origin_refused"), origins


@pytest.mark.parametrize("filter_", [{}, {"attributes": {}}, {"colour": "red"}, {"attributes": {"price": {"over": 1}}}])
def test_a_filter_that_is_none_is_refused_before_anything_is_searched(keyed: Keyed, filter_: Any) -> None:
    key = signed(keyed.parent, {"version": 1, "key": id_of(keyed.parent), "filter": filter_})
    answer = ask(keyed, {"text": "x"}, key)
    assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid")
    assert "filter" in answer.json()["error"]


def test_another_picture_of_the_same_bytes_under_a_hidden_product_stays_hidden(keyed: Keyed) -> None:
    data, write = unseen(picture("violin")), {"X-API-Key": keyed.write}
    for product in ("violin", "teapot"):
        keyed.client.post(f"/v1/products/{product}/media", files={"file": data}, headers=write).raise_for_status()
    matches = found(send(keyed, "/v1/search", data, filter={"attributes": {"category": "kitchen"}}, limit=1))
    assert matches == ["teapot"]


def test_a_parents_end_ends_its_search_keys(keyed: Keyed) -> None:
    made = new_key(keyed.url, "search")

    def status() -> int:
        key = derive_search_key(made.key)
        return keyed.client.post("/v1/search", json={"text": "x"}, headers={"X-API-Key": key}).status_code

    until(lambda: status() == 200)
    revoke(keyed.url, made)
    until(lambda: status() == 401)
