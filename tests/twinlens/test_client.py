"""The client against a running server: what is put in is found, and errors are exceptions with the server's codes."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import twinlens
from tests import ROOT
from tests.support.prefix_proxy import proxied
from tests.support.scripted import Reply, scripted
from tests.support.served import ABACUS, KEYBOARD, VIOLIN, Served
from twinlens import Client, Part
from twinlens.errors import family_of


def filled(client: Client) -> dict[str, str]:
    """Three products with a picture each; the ids of their media by those of the products."""
    media = {}
    for number, path in enumerate((ABACUS, KEYBOARD, VIOLIN)):
        client.put_product(path.stem, name=path.stem.title(), attributes={"strings": path == VIOLIN, "price": number})
        media[path.stem] = client.add_media(path.stem, path).id
    return media


def rgb(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.parametrize(
    "picture",
    [
        KEYBOARD,
        str(KEYBOARD),
        KEYBOARD.read_bytes(),
        bytearray(KEYBOARD.read_bytes()),
        memoryview(KEYBOARD.read_bytes()),
        io.BytesIO(KEYBOARD.read_bytes()),
    ],
    ids=["Path", "str", "bytes", "bytearray", "memoryview", "file"],
)
def test_a_picture_finds_itself_however_it_is_given(client: Client, picture: Any) -> None:
    media = filled(client)
    best = client.search(picture).results[0]
    assert (best.media_id, best.product_name, best.similarity) == (media["keyboard"], "Keyboard", 100.0)
    assert best.grade == "identical"


def test_pixels_find_themselves_as_an_image_and_as_an_array(client: Client) -> None:
    filled(client)
    pixels = rgb(KEYBOARD)
    client.put_product("pixels", name="Pixels")
    media = client.add_media("pixels", pixels)
    assert media.content_type == "image/png"
    assert client.search(pixels).results[0].media_id == media.id
    array = client.search(np.asarray(pixels)).results[0]
    assert (array.media_id, array.similarity, array.grade) == (media.id, 100.0, "identical")


def test_words_a_media_and_a_vector_are_searched_with(client: Client) -> None:
    media = filled(client)
    assert client.search(text="a violin").results[0].product_id == "violin"
    assert client.search(media_id=media["abacus"]).results[0].similarity == 100.0
    made = client.embed([VIOLIN, ABACUS])
    found = client.search(embedding=made.embeddings[1], space=made.space)
    assert (found.results[0].product_id, found.space, found.plan) == ("abacus", made.space, "exact")
    assert len(client.embed(texts=["a violin"]).embeddings[0]) == len(made.embeddings[0])
    assert found.timings


def test_several_things_are_searched_for_at_once(client: Client) -> None:
    media = filled(client)
    with scripted(Reply(body=KEYBOARD.read_bytes())) as elsewhere:
        parts = [
            Part(picture=VIOLIN, weight=0.6),
            Part(url=f"{elsewhere.url}/keyboard.webp", weight=0.3),
            Part(media_id=media["abacus"]),
            Part(text="a violin", weight=-0.1),
        ]
        found = client.search(query=parts).results
    assert [match.product_id for match in found] == ["abacus", "violin", "keyboard"]
    assert {match.grade for match in found} == {None}
    made = client.embed([VIOLIN])
    parts = [Part(embedding=made.embeddings[0], space=made.space), Part(text="a violin")]
    assert client.search(query=parts, limit=1).results[0].product_id == "violin"
    (alone,) = client.search(query=[Part(picture=VIOLIN)], limit=1).results
    assert (alone.product_id, alone.similarity, alone.grade) == ("violin", 100.0, "identical")


def test_a_part_of_a_picture_is_searched_with_however_it_is_named(client: Client) -> None:
    media = filled(client)
    with scripted(Reply(body=KEYBOARD.read_bytes())) as elsewhere:
        crop = (0.05, 0.1, 0.9, 0.85)
        alone: list[dict[str, Any]] = [
            {"picture": KEYBOARD},
            {"url": f"{elsewhere.url}/keyboard.webp"},
            {"media_id": media["keyboard"]},
        ]
        found = [client.search(**given, crop=crop).results[0] for given in alone]
    found.append(client.search(query=[Part(picture=KEYBOARD, crop=crop)]).results[0])
    found.append(client.search(query=[Part(media_id=media["keyboard"], crop=crop)]).results[0])
    assert {one.product_id for one in found} == {"keyboard"}
    assert len({one.cosine for one in found}) == 1
    assert found[0].similarity < 100
    proposed = client.list_regions(media["keyboard"]).regions
    assert client.search(media_id=media["keyboard"], crop=proposed[0].crop).results[0].product_id == "keyboard"
    with pytest.raises(twinlens.Unprocessable, match="left must be less than right"):
        client.search(KEYBOARD, crop=[0.5, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Part(), "exactly one of"),
        (Part(text="a", media_id="b"), "exactly one of"),
        (Part(text="a", space="s"), "space goes with embedding"),
        (Part(url="ftp://elsewhere.example/a.jpg"), "by http or https"),
    ],
    ids=["nothing", "two things", "a space without a vector", "ftp"],
)
def test_a_part_that_names_nothing_or_too_much_is_not_sent(client: Client, wrong: Part, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        client.search(query=[Part(text="a violin"), wrong])


def test_a_picture_by_its_url_is_fetched_without_the_key(client: Client) -> None:
    filled(client)
    moved = Reply(302, headers={"Location": "/there.webp"})
    with scripted(moved, Reply(body=KEYBOARD.read_bytes()), Reply(404)) as elsewhere:
        found = client.search(url=f"{elsewhere.url}/keyboard.webp", limit=1)
        assert [match.product_id for match in found.results] == ["keyboard"]
        assert [one.path for one in elsewhere.asked] == ["/keyboard.webp", "/there.webp"]
        assert not any("authorization" in one.headers for one in elsewhere.asked)
        with pytest.raises(twinlens.PictureNotFetched, match="404 Not Found"):
            client.search(url=elsewhere.url)


@pytest.mark.parametrize(
    ("to", "said"), [("/again", "more than 5 times"), ("ftp://elsewhere.example/", "by http or https")]
)
def test_a_picture_is_not_followed_to_everywhere(client: Client, to: str, said: str) -> None:
    with scripted(Reply(301, headers={"Location": to})) as elsewhere:
        with pytest.raises(twinlens.PictureNotFetched, match=said):
            client.search(url=elsewhere.url)
        assert len(elsewhere.asked) <= 6


def test_limits_and_filters_go_along_with_pictures_and_with_words(client: Client) -> None:
    filled(client)
    strings = {"attributes": {"strings": True}}
    queries: list[dict[str, Any]] = [{"picture": KEYBOARD}, {"text": "a keyboard", "lane": "bulk"}]
    for given in queries:
        assert len(client.search(**given).results) == 3
        assert len(client.search(**given, limit=2).results) == 2
        assert [match.product_id for match in client.search(**given, filter=strings).results] == ["violin"]
    alike = client.search(KEYBOARD, min_similarity=99.5, min_grade="identical")
    assert [match.product_id for match in alike.results] == ["keyboard"]


def test_a_product_is_put_read_and_deleted(client: Client, client_id: str) -> None:
    made = client.put_product("shoe:1@x", name="Schuh", sku="S-1", is_active=False, attributes={"sizes": [41, 42.5]})
    assert (made.id, made.client_id, made.sku, made.is_active) == ("shoe:1@x", client_id, "S-1", False)
    assert made.created_at.tzinfo is not None
    assert client.get_product("shoe:1@x").attributes == made.attributes == {"sizes": [41, 42.5]}
    replaced = client.put_product("shoe:1@x", name="Shoe")
    assert (replaced.sku, replaced.is_active, replaced.attributes) == (None, True, {})
    assert client.delete_product("shoe:1@x").name == "Shoe"
    with pytest.raises(twinlens.NotFound) as gone:
        client.get_product("shoe:1@x")
    assert gone.value.code == "product_not_found"


def test_a_product_has_a_version_that_writes_can_ask_for(client: Client) -> None:
    made = client.put_product("p", name="P", sku="S", only_new=True)
    with pytest.raises(twinlens.PreconditionFailed):
        client.put_product("p", name="Q", only_new=True)
    changed = client.patch_product("p", name="Q", if_match=made.etag)
    assert (changed.name, changed.sku) == ("Q", "S")
    assert changed.etag != made.etag
    with pytest.raises(twinlens.PreconditionFailed):
        client.patch_product("p", name="R", if_match=made.etag)
    with pytest.raises(twinlens.PreconditionFailed):
        client.put_product("p", name="R", if_match=made.etag)
    with pytest.raises(twinlens.PreconditionFailed):
        client.delete_product("p", if_match=made.etag)
    assert client.delete_product("p", if_match=client.get_product("p").etag).name == "Q"


def test_a_patch_changes_what_it_names_and_removes_what_is_none(client: Client) -> None:
    client.put_product("p", name="P", sku="S", attributes={"colour": "red", "size": 41})
    patched = client.patch_product("p", attributes={"colour": None, "price": 5})
    assert (patched.name, patched.sku, patched.attributes) == ("P", "S", {"size": 41, "price": 5})
    patched = client.patch_product("p", sku=None, is_active=False, attributes=None)
    assert (patched.sku, patched.is_active, patched.attributes) == (None, False, {})
    with pytest.raises(twinlens.NotFound):
        client.patch_product("none", name="P")


def test_lists_give_all_pages_one_by_one(client: Client) -> None:
    for number in range(5):
        active, sizes = number != 3, [number, number + 1]
        client.put_product(f"p{number}", name="P", sku=f"S{number}", is_active=active, attributes={"size": sizes})
    assert [one.id for one in client.list_products(page_size=2)] == ["p0", "p1", "p2", "p3", "p4"]
    assert [one.id for one in client.list_products(is_active=False)] == ["p3"]
    assert [one.id for one in client.list_products(sku="S2")] == ["p2"]
    assert [one.id for one in client.list_products(attributes={"size": {"gte": 4}}, page_size=1)] == ["p3", "p4"]
    changed = client.patch_product("p1", name="Q")
    assert [one.id for one in client.list_products(updated_since=changed.updated_at)] == ["p1"]
    added = [client.add_media("p0", path).id for path in (ABACUS, KEYBOARD, VIOLIN)]
    assert [one.id for one in client.list_media("p0", page_size=1)] == added
    product = client.get_product("p0")
    assert ([one.id for one in product.media], product.media_next) == (added, None)
    with pytest.raises(twinlens.NotFound):
        next(client.list_media("none"))


def test_a_list_asks_for_a_page_when_it_is_needed() -> None:
    page = b'{"media": [], "next": "c"}'
    with scripted(Reply(body=page), Reply(404)) as server, Client(server.url) as client:
        listed = client.list_media("p")
        assert server.asked == []
        with pytest.raises(twinlens.NotFound):
            next(listed)
        assert [one.path for one in server.asked] == ["/v1/products/p/media", "/v1/products/p/media?cursor=c"]


def test_ids_of_platforms_have_slashes(client: Client) -> None:
    id_ = "gid://shopify/Product/1 ä?#%"
    client.put_product(id_, name="P")
    media = client.add_media(id_, KEYBOARD)
    assert client.get_product(id_).id == client.get_media(media.id).product_id == id_
    assert client.search(KEYBOARD).results[0].product_id == id_
    assert client.delete_product(id_).id == id_


def test_a_media_is_added_read_and_deleted(client: Client) -> None:
    client.put_product("p", name="P")
    media = client.add_media("p", KEYBOARD)
    assert client.add_media("p", KEYBOARD.read_bytes()).id == media.id
    assert client.get_media(media.id).content_digest == hashlib.sha256(KEYBOARD.read_bytes()).hexdigest()
    assert client.get_file(media.id) == KEYBOARD.read_bytes()
    assert client.get_thumbnail(media.id)[8:12] == b"WEBP"
    client.put_product("q", name="Q")
    twin = client.add_media("q", KEYBOARD)
    same = client.list_duplicates(media.id, limit=5)
    assert [match.media_id for match in same.exact] == [twin.id]
    assert client.delete_media(media.id).id == media.id
    with pytest.raises(twinlens.NotFound):
        client.get_media(media.id)


def test_the_server_says_how_it_is(client: Client) -> None:
    assert client.live().status == "ok"
    ready = client.ready()
    assert (ready.status, ready.text, ready.checks["database"].ok) == ("ready", True, True)
    assert "image/webp" in ready.reads


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "code", "ask"),
    [
        (twinlens.UnsupportedMediaType, "not_a_picture", lambda client: client.search(b"text")),
        (twinlens.BadRequest, "unreadable_picture", lambda client: client.search(KEYBOARD.read_bytes()[:200])),
        (twinlens.NotFound, "product_not_found", lambda client: client.add_media("none", KEYBOARD)),
        (twinlens.Unprocessable, "no_text", lambda client: client.search(text=" ")),
        (twinlens.Unprocessable, "bad_parameter", lambda client: client.search(text="shoe", limit=0)),
        (twinlens.Conflict, "space_mismatch", lambda client: client.search(embedding=[1.0], space="other")),
    ],
)
def test_what_the_server_refuses_is_an_exception_with_its_code_and_the_request_id(
    client: Client, family: type[twinlens.TwinlensError], code: str, ask: Callable[[Client], object]
) -> None:
    with pytest.raises(family) as refused:
        ask(client)
    error = refused.value
    assert type(error) is family is family_of(error.status or 0)
    assert error.code == code
    assert error.request_id
    assert str(error) == f"{error.sentence} ({error.status} {code}, request {error.request_id})"


def test_a_key_that_is_missing_wrong_or_too_narrow_is_refused(served: Served) -> None:
    with Client(served.url) as nobody, pytest.raises(twinlens.Unauthorized) as missing:
        nobody.search(KEYBOARD)
    with Client(served.url, key="wrong") as stranger, pytest.raises(twinlens.Unauthorized) as invalid:
        stranger.search(KEYBOARD)
    with Client(served.url, key=served.search) as searcher:
        assert searcher.search(KEYBOARD).results == []
        with pytest.raises(twinlens.Forbidden) as narrow:
            searcher.put_product("p", name="P")
        with pytest.raises(twinlens.Forbidden) as another:
            searcher.with_options(client="other").search(KEYBOARD)
    codes = [one.value.code for one in (missing, invalid, narrow, another)]
    assert codes == ["key_missing", "key_invalid", "scope_missing", "client_mismatch"]


def test_nothing_that_is_printed_holds_the_key(served: Served) -> None:
    with Client(served.url, key=served.admin) as client:
        assert served.admin not in repr(client) + repr(client.options)
    with pytest.raises(ValueError, match="characters that no key") as refused:
        Client(served.url, key=f"{served.admin}\n")
    assert served.admin not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one"),
        ({"picture": KEYBOARD, "text": "x"}, "exactly one"),
        ({"picture": KEYBOARD, "space": "x"}, "space goes with"),
        ({"picture": "https://shop.example/x.jpg"}, "give it as url="),
        ({"url": "file:///etc/passwd"}, "by http or https"),
        ({"url": "shoe.jpg"}, "by http or https"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    client: Client, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        client.search(**given)


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_id_that_would_be_a_step_in_the_path_is_refused(client: Client, id_: str) -> None:
    with pytest.raises(ValueError, match="id cannot be"):
        client.delete_product(id_)


def test_vectors_are_of_pictures_or_of_texts(client: Client) -> None:
    with pytest.raises(ValueError, match="pictures or texts"):
        client.embed()
    with pytest.raises(ValueError, match="pictures or texts"):
        client.embed([KEYBOARD], texts=["x"])
    with pytest.raises(TypeError, match="a list of"):
        client.embed(texts="a shoe")


# --- where it calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "search.shop.example"}, "must be like"),
        ({"url": "ftp://search.shop.example"}, "must be like"),
        ({"url": "https://search.shop.example/?key=x"}, "must be like"),
        ({"url": "https://user:pass@search.shop.example"}, "give the key as"),
        ({"deadline": 0}, "deadline"),
        ({"retries": -1}, "retries"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Client(**given)


def test_what_is_not_given_is_in_the_environment(
    served: Served, client_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TWINLENS_URL", served.url)
    monkeypatch.setenv("TWINLENS_KEY", served.admin)
    monkeypatch.setenv("TWINLENS_CLIENT", client_id)
    with Client() as client:
        assert client.put_product("p", name="P").client_id == client_id
    (tmp_path / "key").write_text(f"{served.admin}\n")
    monkeypatch.delenv("TWINLENS_KEY")
    monkeypatch.setenv("TWINLENS_KEY_FILE", str(tmp_path / "key"))
    with Client(client="other") as client:
        assert client.put_product("p", name="P").client_id == "other"


def test_a_server_below_a_prefix_is_called_there(served: Served, client_id: str) -> None:
    with (
        proxied(served.url, "/search", named=True) as proxy,
        Client(f"{proxy.url}/search/", key=served.admin, client=client_id) as client,
    ):
        assert client.put_product("p", name="P").id == "p"
        media = client.add_media("p", KEYBOARD)
        assert media.thumbnail_url.startswith("/search/v1/")
        assert client.search(KEYBOARD).results[0].media_id == media.id
        assert not proxy.strays


def test_a_redirect_is_not_followed_with_the_key(served: Served) -> None:
    moved = Reply(307, headers={"Location": "https://elsewhere.example/"})
    with scripted(moved) as server, Client(server.url, key=served.admin) as client:
        with pytest.raises(twinlens.AnswerUnreadable, match=r"https://elsewhere\.example/"):
            client.search(text="shoe")
        assert len(server.asked) == 1


def test_a_page_of_another_program_is_not_taken_for_an_answer() -> None:
    page = Reply(body=b"<html>It works!</html>", headers={"Content-Type": "text/html"})
    wrong = pytest.raises(twinlens.AnswerUnreadable, match="address of a Twinlens")
    with scripted(page) as server, Client(server.url) as client, wrong:
        client.ready()


# --- how it reads in an editor ----------------------------------------------------------------------------------------


def test_methods_have_their_own_names_parameters_and_documentation(client: Client) -> None:
    assert client.get_product.__name__ == "get_product"
    assert "NotFound" in (client.get_product.__doc__ or "")
    assert [*signature(client.get_product).parameters] == ["product_id"]


TYPED = """
from twinlens import AsyncClient, Client
from twinlens.wire import Result, SearchAnswer

def waits(client: Client) -> list[Result]:
    return client.search("shoe.jpg", limit=3).results

async def awaits(client: AsyncClient) -> SearchAnswer:
    return await client.search(text="shoe")

from twinlens import Cleint
Client().search(tetx="shoe")
AsyncClient().get_media("x").id
"""


@pytest.mark.slow  # it checks NumPy and Pillow as well
def test_type_checkers_know_what_each_client_takes_and_gives(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    whole = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "typed.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(whole, cwd=tmp_path, env=environment, text=True, capture_output=True)
    complaints = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(complaints) == 3, done.stdout
    assert 'has no attribute "Cleint"' in complaints[0]
    assert 'Unexpected keyword argument "tetx"' in complaints[1]
    assert 'Coroutine[Any, Any, Media]" has no attribute "id"' in complaints[2]
