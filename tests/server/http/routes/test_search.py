"""Embedding and searching over HTTP, as DESIGN's contract says."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from server.catalogue.similarity import similarity
from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support import artifacts
from tests.support.pictures import in_format, unseen
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


def search(api: Client, data: bytes = KEYBOARD, path: str = "/v1/search", **fields: Any) -> httpx.Response:
    return api.post(path, files={"file": data}, data=fields)


def embed(api: Client, *pictures: bytes, **headers: Any) -> httpx.Response:
    return api.post("/v1/embeddings", files=[("file", data) for data in pictures], headers=headers)


@pytest.mark.parametrize("path", ["/v1/search", "/api/search/by-image"])
def test_a_picture_of_the_catalogue_is_its_own_first_match(api: Client, path: str) -> None:
    response = search(api, path=path, limit=5)
    assert response.status_code == 200
    answer = response.json()
    first = answer["results"][0]
    assert (first["productId"], first["productName"]) == ("demo-keyboard", "Keyboard")
    assert (first["similarity"], first["score"], first["cosine"]) == (100.0, -1.0, 1.0)
    assert (first["width"], first["height"]) == (256, 256)
    assert first["s3Key"].endswith(".webp")
    assert len(answer["results"]) == 5


@pytest.mark.parametrize("path", ["/v1/search", "/api/search/by-image"])
def test_a_search_reports_its_stages_and_whether_its_picture_was_in_the_cache(api: Client, path: str) -> None:
    new = unseen(KEYBOARD)
    first, again = search(api, new, path=path), search(api, new, path=path)
    assert [*first.json()["timings"]] == ["decode", "resize", "queue", "encode", "search"]
    assert stages(first) == ["read", "decode", "resize", "queue", "encode", "search", "total"]
    assert [*again.json()["timings"]] == ["search"]
    assert stages(again) == ["read", "cache", "search", "total"]
    assert "cache;desc=hit" in again.headers["Server-Timing"]
    assert again.json()["results"] == first.json()["results"]


def test_what_another_client_has_just_sent_is_new_in_every_respect(api: Client, client_id: str) -> None:
    picture = unseen(RACCOON)
    for client in (f"{client_id}-a", f"{client_id}-b"):
        for path in ("/embed-image", "/v1/search", "/api/search/by-image", "/v1/embeddings"):
            answer = api.post(path, params={"clientId": client}, files={"file": picture})
            assert ("cache" in stages(answer)) == (path != "/embed-image"), (client, path)


def stages(response: httpx.Response) -> list[str]:
    return [stage.split(";")[0] for stage in response.headers["Server-Timing"].split(", ")]


def test_a_match_has_exactly_the_fields_of_the_contract(api: Client) -> None:
    (match,) = search(api, limit=1).json()["results"]
    assert set(match) == {
        "productId", "productName", "mediaId", "s3Key", "width", "height", "score", "cosine", "similarity",
        "grade", "thumbnailUrl", "fileUrl",
    }  # fmt: skip


def test_the_three_figures_of_a_match_always_agree_and_never_improve(api: Client) -> None:
    matches = search(api, RACCOON, limit=280).json()["results"]
    assert len(matches) == 280
    for match in matches:
        assert match["score"] == -match["cosine"]
        assert match["similarity"] == similarity(match["cosine"])
    assert matches == sorted(matches, key=lambda match: match["score"])


def test_the_default_is_24_matches(api: Client) -> None:
    assert len(search(api).json()["results"]) == 24


@pytest.fixture
def shoes(api: Client, client_id: str) -> str:
    """A client whose products differ in their attributes alone: one picture each, and all the same."""
    described = {
        "red": {"category": "shoes", "price": 49.9, "tags": ["new", "red"]},
        "blue": {"category": "shoes", "price": 80, "since": "2026-01-31T23:30:00Z"},
        "hat": {"category": "hats", "price": 20, "emoji": "🎩"},
        "bare": {},
    }
    for name, attributes in described.items():
        path, query = f"/v1/products/{client_id}-{name}", {"clientId": client_id}
        assert api.put(path, params=query, json={"name": name, "attributes": attributes}).status_code == 201
        assert api.post(f"{path}/media", params=query, files={"file": KEYBOARD}).status_code == 201
    return client_id


@pytest.mark.parametrize(
    ("where", "passing"),
    [
        ({}, {"red", "blue", "hat", "bare"}),
        ({"kind": "image"}, {"red", "blue", "hat", "bare"}),
        ({"kind": "video"}, set()),
        ({"productIds": ["{client}-red", "{client}-bare", "demo-keyboard"]}, {"red", "bare"}),
        ({"attributes": {"category": "shoes"}}, {"red", "blue"}),
        ({"attributes": {"category": ["shoes", "hats"], "price": {"gte": 20, "lt": 80}}}, {"red", "hat"}),
        ({"attributes": {"tags": "new"}}, {"red"}),
        ({"attributes": {"emoji": "🎩"}}, {"hat"}),
        ({"attributes": {"price": "20"}}, set()),
        ({"attributes": {"price": {"exists": False}}}, {"bare"}),
        ({"attributes": {"category": {"not": "shoes"}}}, {"hat", "bare"}),
        ({"attributes": {"category": {"not": "shoes", "exists": True}}}, {"hat"}),
        ({"attributes": {"tags": {"containsAll": ["red", "new"]}}}, {"red"}),
        ({"attributes": {"tags": {"not": {"containsAny": ["red", "sale"]}}}}, {"blue", "hat", "bare"}),
        ({"attributes": {"since": {"lt": "2026-02-01"}}}, {"blue"}),
        ({"productIds": ["{client}-blue"], "attributes": {"category": "hats"}}, set()),
    ],
)
def test_a_filter_keeps_exactly_what_passes_whatever_is_searched_with(
    api: Client, shoes: str, where: Any, passing: set[str]
) -> None:
    where = json.loads(json.dumps(where).replace("{client}", shoes))
    by_picture = search(api, filter=json.dumps(where), clientId=shoes).json()
    media = search(api, clientId=shoes).json()["results"][0]["mediaId"]
    by_media, by_text = (
        api.post("/v1/search", json={"clientId": shoes, "filter": where} | asked).json()
        for asked in ({"mediaId": media}, {"text": "a keyboard"})
    )
    for answer in (by_picture, by_media, by_text):
        assert {match["productName"] for match in answer["results"]} == passing
        assert len(answer["results"]) == len(passing)
        assert answer["plan"] == "exact"
    for answer in (by_picture, by_media):
        assert {match["similarity"] for match in answer["results"]} <= {100.0}


@pytest.mark.parametrize(
    "where",
    [
        {"colour": "red"}, {"kind": "sound"}, {"productIds": []}, {"productIds": ["a"] * 1001},
        {"attributes": {"a": None}},
        {"attributes": {"price": {}}}, {"attributes": {"price": {"min": 3}}}, {"attributes": {"a": "x\0"}},
        {"attributes": {"a\0": "x"}}, {"productIds": ["a\0"]}, [], "red",
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_422(api: Client, where: Any) -> None:
    as_json = api.post("/v1/search", json={"text": "a keyboard", "filter": where})
    as_field = search(api, filter=json.dumps(where))
    for response in (as_json, as_field):
        assert (response.status_code, response.json()["code"]) == (422, "bad_parameter"), response.text


def test_where_no_key_is_needed_everybody_may_ask_for_what_is_not_active(api: Client, shoes: str) -> None:
    off = api.patch(f"/v1/products/{shoes}-red", params={"clientId": shoes}, json={"isActive": False})
    assert off.status_code == 200
    everything = {"red", "blue", "hat", "bare"}
    for where, passing in (
        ({}, everything - {"red"}),
        ({"isActive": "any"}, everything),
        ({"isActive": "any", "attributes": {"category": "shoes"}}, {"red", "blue"}),
        ({"isActive": "any", "productIds": [f"{shoes}-red"]}, {"red"}),
    ):
        by_file = search(api, filter=json.dumps(where), clientId=shoes).json()
        by_text = api.post("/v1/search", json={"clientId": shoes, "text": "a keyboard", "filter": where}).json()
        for answer in (by_file, by_text):
            assert {match["productName"] for match in answer["results"]} == passing


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"gt": "cheap"}, "filter.attributes.price: a bound is a number, a date such as 2026-01-31,"),
        ({"lower": 3}, "filter.attributes.price: object contains unknown field lower."),
        ({"not": {"gt": []}}, "filter.attributes.price.not.gt: expected"),
    ],
)
def test_what_is_wrong_with_a_filter_names_the_attribute(api: Client, condition: Any, said: str) -> None:
    where = {"attributes": {"category": "shoes", "price": condition, "colour": ["red"]}}
    as_json = api.post("/v1/search", json={"text": "a keyboard", "filter": where}).json()["error"]
    assert as_json.startswith(said)
    listed = api.get("/v1/products", params={"attributes": json.dumps(where["attributes"])}).json()["error"]
    for sentence in (search(api, filter=json.dumps(where)).json()["error"], listed):
        assert sentence.startswith(f"The filter cannot be read: {said.removeprefix('filter.')}")


def test_a_filter_that_is_no_json_is_422(api: Client) -> None:
    response = search(api, filter="kind=image")
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "filter" in response.json()["error"]


def test_min_similarity_is_the_shown_percentage(api: Client) -> None:
    shown = [match["similarity"] for match in search(api, limit=100).json()["results"]]
    bound = shown[10]
    kept = [match["similarity"] for match in search(api, limit=100, minSimilarity=bound).json()["results"]]
    assert kept == [percent for percent in shown if percent >= bound]


def test_nothing_above_the_bound_is_an_empty_list(api: Client) -> None:
    assert search(api, RACCOON, minSimilarity=99.9).json()["results"] == []


def test_search_by_media_equals_search_by_its_picture(api: Client) -> None:
    by_picture = search(api, limit=10).json()["results"]
    response = api.post("/v1/search", json={"mediaId": by_picture[0]["mediaId"], "limit": 10})
    assert [match["mediaId"] for match in response.json()["results"]] == [match["mediaId"] for match in by_picture]
    assert response.json()["results"][0]["similarity"] == 100.0


def test_search_by_embedding_equals_search_by_its_picture(api: Client) -> None:
    embedded = api.post("/embed-image", files={"file": KEYBOARD}).json()
    asked = {"embedding": embedded["embedding"], "space": embedded["space"], "limit": 10}
    response = api.post("/v1/search", json=asked)
    assert response.json()["results"] == search(api, limit=10).json()["results"]


def test_a_vector_of_another_space_is_a_conflict(api: Client) -> None:
    response = api.post("/v1/search", json={"embedding": [1.0] + [0.0] * 511, "space": "0" * 64})
    assert (response.status_code, response.json()["code"]) == (409, "space_mismatch")


def test_a_vector_must_be_of_unit_length_finite_and_of_the_right_size(api: Client) -> None:
    space = api.post("/embed-image", files={"file": KEYBOARD}).json()["space"]
    for vector in ([2.0] + [0.0] * 511, [0.0] * 512, [1.0], [1e39] + [0.0] * 511):
        response = api.post("/v1/search", json={"embedding": vector, "space": space})
        assert (response.status_code, response.json()["code"]) == (422, "bad_vector")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mediaId": "a", "text": "b"},
        {"embedding": [1.0]},
        {"mediaId": "a", "space": "b"},
        {"mediaId": "a", "limit": 0},
        {"mediaId": "a", "limit": 1001},
        {"mediaId": "a", "limit": "ten"},
        {"mediaId": "a", "minSimilarity": 101},
        {"mediaId": "a", "minSimilarty": 50},
        {"mediaId": ["a"]},
        {"embedding": ["x"], "space": "y"},
        {"mediaId": "../etc"},
        {"mediaId": "a", "clientId": "no spaces please"},
        [],
    ],
)
def test_a_request_that_makes_no_sense_is_422(api: Client, body: Any) -> None:
    response = api.post("/v1/search", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")


@pytest.mark.parametrize(
    "fields",
    [{"limit": "0"}, {"limit": "many"}, {"minSimilarity": "-1"}, {"clientId": "a/b"}, {"colour": "red"}],
)
def test_a_form_field_that_makes_no_sense_is_422(api: Client, fields: dict[str, Any]) -> None:
    response = search(api, **fields)
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")


def test_an_empty_form_field_counts_as_not_given(api: Client) -> None:
    assert len(search(api, limit="", minSimilarity="").json()["results"]) == 24


def test_an_unknown_media_is_404(api: Client) -> None:
    response = api.post("/v1/search", json={"mediaId": "nobody"})
    assert (response.status_code, response.json()["code"]) == (404, "media_not_found")


def test_another_clients_catalogue_is_never_searched(api: Client, client_id: str) -> None:
    assert search(api, clientId=client_id).json()["results"] == []
    media_id = search(api, limit=1).json()["results"][0]["mediaId"]
    response = api.post("/v1/search", json={"mediaId": media_id, "clientId": client_id})
    assert response.status_code == 404


def test_the_client_may_be_named_in_query_and_body_but_not_differ(api: Client, client_id: str) -> None:
    assert api.post(f"/v1/search?clientId={client_id}", files={"file": KEYBOARD}).json()["results"] == []
    response = api.post("/v1/search?clientId=one", files={"file": KEYBOARD}, data={"clientId": "other"})
    assert response.status_code == 422


# --- words -----------------------------------------------------------------------------------------------------------


def ask(api: Client, text: str, **fields: Any) -> httpx.Response:
    return api.post("/v1/search", json={"text": text, **fields})


def vectors(api: Client, *texts: str) -> list[list[float]]:
    embeddings: list[list[float]] = api.post("/v1/embeddings", json={"texts": texts}).json()["embeddings"]
    return embeddings


@pytest.mark.parametrize("word", artifacts.WORDS)
def test_words_find_the_picture_that_they_mean(words_api: Client, word: str) -> None:
    response = ask(words_api, f"  {word.upper()} ", limit=3)
    assert response.status_code == 200
    answer = response.json()
    first = answer["results"][0]
    assert (first["productId"], first["similarity"]) == (f"demo-{word}", 100.0)
    assert answer["space"] == words_api.get("/health/ready").json()["space"]


def test_several_words_find_what_each_of_them_means(words_api: Client) -> None:
    first = ask(words_api, "teapot, violin", limit=2).json()["results"]
    assert {match["productId"] for match in first} == {"demo-teapot", "demo-violin"}


def test_a_search_by_words_reports_its_stages(words_api: Client) -> None:
    first, again = ask(words_api, "violin and teapot"), ask(words_api, "violin and teapot")
    assert [*first.json()["timings"]] == ["tokenize", "queue", "encode", "words", "search"]
    assert stages(first) == ["read", "tokenize", "queue", "encode", "words", "search", "total"]
    assert stages(again) == ["read", "cache", "words", "search", "total"]
    assert again.json()["results"] == first.json()["results"]


def test_words_are_searched_as_pictures_are_for_limit_bound_and_client(words_api: Client, client_id: str) -> None:
    shown = ask(words_api, "violin", limit=100).json()["results"]
    assert len(shown) == 100
    for match in shown:
        assert match["score"] == -match["cosine"]
        assert match["similarity"] == similarity(match["cosine"])
    bound = shown[10]["similarity"]
    kept = ask(words_api, "violin", limit=100, minSimilarity=bound).json()["results"]
    assert kept == [match for match in shown if match["similarity"] >= bound]
    assert len(ask(words_api, "violin").json()["results"]) == 24
    assert ask(words_api, "violin", clientId=client_id).json()["results"] == []


def test_words_are_searched_with_the_vector_that_embeddings_gives(words_api: Client) -> None:
    (vector,) = vectors(words_api, "teapot and violin")
    space = words_api.get("/health/ready").json()["space"]
    by_vector = words_api.post("/v1/search", json={"embedding": vector, "space": space}).json()["results"]
    # A vector counts as a picture's, whatever it was made of.
    ungraded = [{**match, "grade": None} for match in by_vector]
    assert ungraded == ask(words_api, "teapot and violin").json()["results"]


# Of many lengths, and more of each than one batch holds.
TEXTS = [" ".join(artifacts.WORDS[start:][:count]) for count in (1, 2, 3, 5, 8) for start in range(8)] * 2


def test_a_texts_vector_is_bit_identical_alone_among_many_and_under_load(words_api: Client) -> None:
    alone = {text: vectors(words_api, text)[0] for text in TEXTS}
    assert vectors(words_api, *TEXTS) == [alone[text] for text in TEXTS]
    crowded: list[tuple[str, list[float]]] = []

    def work(texts: list[str]) -> None:
        crowded.extend(zip(texts, vectors(words_api, *texts), strict=True))

    shares = [TEXTS[start::12] for start in range(12)] + [TEXTS] * 3
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(crowded) == 4 * len(TEXTS)
    assert [text for text, vector in crowded if vector != alone[text]] == []


def test_raw_vectors_of_texts_are_as_those_of_pictures(words_api: Client) -> None:
    response = words_api.post(
        "/v1/embeddings", json={"texts": ["violin", "teapot"]}, headers={"accept": "application/octet-stream"}
    )
    raw = np.frombuffer(response.content, "<f4").reshape(2, int(response.headers["Twinlens-Dimensions"]))
    np.testing.assert_array_equal(raw, np.array(vectors(words_api, "violin", "teapot"), np.float32))
    assert response.headers["Twinlens-Space"] == words_api.get("/health/ready").json()["space"]


ODD_TEXTS = [
    "\0violin",
    "\U0001f3bb",
    "\u202eכינור",
    "e" + "\u0301" * 500,
    "\u0378",
    "x" * 10_000,
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_an_odd_text_is_answered(words_api: Client, text: str) -> None:
    assert len(ask(words_api, text, limit=5).json()["results"]) == 5
    assert len(vectors(words_api, text)) == 1


@pytest.mark.parametrize("text", ["", " \t\r\n", "\u00a0\u2003"], ids=ascii)
def test_there_must_be_words_to_search_with_though_any_text_has_a_vector(words_api: Client, text: str) -> None:
    response = ask(words_api, text)
    assert (response.status_code, response.json()["code"]) == (422, "no_text")
    np.testing.assert_allclose(np.linalg.norm(vectors(words_api, text)[0]), 1, atol=1e-6)


def test_a_text_of_more_characters_than_we_read_is_refused_and_the_next_one_works(words_api: Client) -> None:
    response = ask(words_api, "x" * 10_001)
    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")
    response = words_api.post("/v1/embeddings", json={"texts": ["violin", "x" * 900_000]})
    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")
    assert response.json()["error"].startswith("Text 2 of 2: The text has 900,000 characters")
    assert ask(words_api, "violin").status_code == 200


@pytest.mark.parametrize("text", [r'"\ud800"', r'"violin \udfff violin"', '"\xed\xa0\x80"'])
def test_half_a_surrogate_pair_is_no_json(words_api: Client, text: str) -> None:
    body = f'{{"text": {text}}}'.encode("latin-1")
    response = words_api.post("/v1/search", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("texts", [[], ["violin"] * 257, [1], "violin", [None]])
def test_a_list_of_texts_that_makes_no_sense_is_422(words_api: Client, texts: Any) -> None:
    response = words_api.post("/v1/embeddings", json={"texts": texts})
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")


def test_one_call_embeds_256_texts(words_api: Client) -> None:
    assert len({tuple(vector) for vector in vectors(words_api, *["violin"] * 256)}) == 1


def test_a_deadline_that_words_cannot_meet_is_503_and_says_when_to_return(words_api: Client) -> None:
    for path, body in (("/v1/search", {"text": "violin"}), ("/v1/embeddings", {"texts": ["violin"] * 256})):
        response = words_api.post(path, json=body, headers={"Twinlens-Deadline": "0.000001"})
        assert (response.status_code, response.json()["code"]) == (503, "deadline_missed")
        assert int(response.headers["Retry-After"]) >= 1
    assert ask(words_api, "violin").status_code == 200


def test_pictures_are_searched_beside_words_as_without_them(words_api: Client) -> None:
    first = search(words_api, limit=1).json()["results"][0]
    assert (first["productId"], first["similarity"]) == ("demo-keyboard", 100.0)


def test_metrics_distinguish_the_towers(words_api: Client) -> None:
    def count(series: str) -> float:
        lines = words_api.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{series} "))

    counted = [
        'twinlens_stage_seconds_count{stage="tokenize",tower="text"}',
        'twinlens_stage_seconds_count{stage="queue",tower="text"}',
        'twinlens_stage_seconds_count{stage="encode",tower="text"}',
        'twinlens_stage_seconds_count{stage="search",tower=""}',
        'twinlens_batch_size_sum{tower="text"}',
        'twinlens_stage_seconds_count{stage="encode",tower="image"}',
        'twinlens_batch_size_sum{tower="image"}',
    ]
    before = [count(series) for series in counted]
    ask(words_api, "violin teapot teapot")  # what has been asked before is known
    vectors(words_api, "violin violin teapot", "teapot violin violin")
    after = [count(series) for series in counted]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 3, 3, 1, 3, 0, 0]
    assert count("twinlens_texts_inside") == count("twinlens_pictures_inside") == 0


def test_a_model_without_a_text_tower_says_so_and_refuses_words(
    database_url: str, tmp_path: Path, image_only: Path
) -> None:
    with serving(database_url, tmp_path, model=image_only) as client:
        assert client.get("/health/ready").json()["text"] is False
        for path, body in (("/v1/search", {"text": "a keyboard"}), ("/v1/embeddings", {"texts": ["a keyboard"]})):
            response = client.post(path, json=body)
            assert (response.status_code, response.json()["code"]) == (422, "no_text_tower")
        composed = {"query": '[{"file": 0}, {"text": "in red"}]'}
        response = client.post("/v1/search", files={"file": KEYBOARD}, data=composed)
        assert (response.status_code, response.json()["code"]) == (422, "no_text_tower")
        assert client.post("/embed-image", files={"file": KEYBOARD}).status_code == 200


def test_a_model_with_a_text_tower_says_so(words_api: Client) -> None:
    assert words_api.get("/health/ready").json()["text"] is True


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_embed_image_answers_as_the_legacy_service_did(api: Client) -> None:
    answer = api.post("/embed-image", files={"file": RACCOON}).json()
    assert set(answer) == {"embedding", "model", "device", "space"}
    assert (answer["model"], answer["device"]) == ("twinlens/starter", "cpu")
    assert abs(np.linalg.norm(answer["embedding"]) - 1) < 1e-6


def test_many_pictures_give_the_vectors_that_each_gives_alone(api: Client) -> None:
    pictures = [path.read_bytes() for path in sorted(DEMO_PICTURES.glob("*.webp"))[:20]] + [RACCOON]
    together = embed(api, *pictures).json()["embeddings"]
    alone = [api.post("/embed-image", files={"file": data}).json()["embedding"] for data in pictures]
    assert together == alone  # every bit of every component


def test_raw_vectors_are_little_endian_float32_with_their_space_in_the_headers(api: Client) -> None:
    response = embed(api, KEYBOARD, RACCOON, accept="application/octet-stream")
    assert response.headers["content-type"] == "application/octet-stream"
    raw = np.frombuffer(response.content, "<f4").reshape(2, int(response.headers["Twinlens-Dimensions"]))
    answer = embed(api, KEYBOARD, RACCOON).json()
    np.testing.assert_array_equal(raw, np.array(answer["embeddings"], np.float32))
    assert response.headers["Twinlens-Space"] == answer["space"]


def test_one_bad_picture_among_many_is_named_and_the_next_request_works(api: Client) -> None:
    response = embed(api, KEYBOARD, b"not a picture")
    assert (response.status_code, response.json()["code"]) == (415, "not_a_picture")
    assert embed(api, KEYBOARD).status_code == 200


# --- pictures that cannot be used ------------------------------------------------------------------------------------

BOMB = in_format(Image.new("1", (30_000, 30_000)), "PNG")


@pytest.mark.parametrize("path", ["/embed-image", "/v1/embeddings", "/v1/search", "/api/search/by-image"])
@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "no_picture"),
        (KEYBOARD[: len(KEYBOARD) // 2], 400, "unreadable_picture"),
        (b"I am a text file that somebody called photo.jpg", 415, "not_a_picture"),
        (BOMB, 413, "picture_too_large"),
        (b"\xff\xd8\xff" + b"\0" * 5_000_000, 413, "upload_too_large"),
    ],
)
def test_a_picture_that_cannot_be_used_is_refused_and_the_next_request_works(
    api: Client, path: str, data: bytes, status: int, code: str
) -> None:
    response = api.post(path, files={"file": ("photo.jpg", data, "image/jpeg")})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert search(api, limit=1).json()["results"][0]["similarity"] == 100.0


@pytest.mark.parametrize("path", ["/embed-image", "/v1/embeddings", "/v1/search"])
def test_a_form_without_a_picture_says_what_is_missing(api: Client, path: str) -> None:
    response = api.post(path, files={"picture": KEYBOARD})
    assert response.status_code == 422
    boundary = "multipart/form-data; boundary=frontier"
    empty = b'--frontier\r\nContent-Disposition: form-data; name="limit"\r\n\r\n3\r\n--frontier--\r\n'
    response = api.post(path, content=empty, headers={"content-type": boundary})
    assert (response.status_code, response.json()["code"]) == (400, "no_picture")


# --- forms as other programs send them -------------------------------------------------------------------------------


def part(disposition: str, body: bytes, *headers: str) -> bytes:
    head = [f"Content-Disposition: form-data; {disposition}", *headers]
    return "\r\n".join(["--frontier", *head, "", ""]).encode() + body + b"\r\n"


def send(api: Client, *parts: bytes, path: str = "/v1/search") -> httpx.Response:
    body = b"".join(parts) + b"--frontier--\r\n"
    return api.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=frontier"})


@pytest.mark.parametrize("path", ["/v1/search", "/api/search/by-image", "/embed-image", "/v1/embeddings"])
@pytest.mark.parametrize(
    "disposition",
    [
        'name="file"',
        'name="file"; filename=""',
        "name=\"file\"; filename*=UTF-8''caf%C3%A9.webp",
        'name="file"; filename="cafe.webp"; filename*=UTF-8\'\'caf%C3%A9.webp',
        "name=file; filename=keyboard.webp",
        r'name="file"; filename="C:\pictures\keyboard.webp"',
    ],
)
def test_a_part_named_file_is_the_picture_whatever_its_file_name(api: Client, path: str, disposition: str) -> None:
    response = send(api, part(disposition, KEYBOARD), path=path)
    assert response.status_code == 200
    assert response.json() == {**api.post(path, files={"file": KEYBOARD}).json(), **untimed(response)}


def untimed(response: httpx.Response) -> dict[str, Any]:
    return {"timings": response.json()["timings"]} if "timings" in response.json() else {}


@pytest.mark.parametrize("declared", ["image/webp; charset=nosuch", "text/plain; charset=utf-16", "nonsense", ""])
def test_the_declared_type_of_a_part_is_ignored(api: Client, declared: str) -> None:
    kind = f"Content-Type: {declared}"
    response = send(api, part('name="file"', KEYBOARD, kind), part('name="limit"', b"3", kind))
    assert response.status_code == 200
    first, _, _ = response.json()["results"]
    assert first["productId"] == "demo-keyboard"


def test_a_field_that_is_not_utf8_is_422(api: Client) -> None:
    response = send(api, part('name="file"', KEYBOARD), part('name="clientId"', b"\xff\xfe"))
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "UTF-8" in response.json()["error"]


def test_a_file_in_a_part_without_a_name_is_not_the_picture(api: Client) -> None:
    response = send(api, part('filename="keyboard.webp"', KEYBOARD))
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")


def test_a_form_has_at_most_300_parts(api: Client) -> None:
    parts = [part('name="file"', KEYBOARD), *(part(f'name="field-{number}"', b"x") for number in range(300))]
    assert send(api, *parts[:300], path="/v1/embeddings").status_code == 200
    response = send(api, *parts, path="/v1/embeddings")
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "at most 300 parts" in response.json()["error"]
    assert send(api, *parts[:1]).status_code == 200


def test_one_call_embeds_at_most_256_pictures(api: Client) -> None:
    pictures = [part('name="file"', KEYBOARD)] * 257
    response = send(api, *pictures, path="/v1/embeddings")
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "257 pictures" in response.json()["error"]
    assert len(send(api, *pictures[:256], path="/v1/embeddings").json()["embeddings"]) == 256


# --- bodies that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embeddings", "/v1/products/p"])
def test_json_of_more_than_a_megabyte_is_413(api: Client, path: str) -> None:
    method = "PUT" if "products" in path else "POST"
    for body, status in ((b" " * 1_000_000, 400), (b" " * 1_000_001, 413)):
        response = api.request(method, path, content=body, headers={"content-type": "application/json"})
        assert response.status_code == status
    assert response.json()["code"] == "upload_too_large"


@pytest.mark.parametrize(
    ("start", "nested"), [("", "["), ("", '{"a":'), ('{"mediaId":', "["), ('{"embedding":', "["), ('{"texts":', "[")]
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/embeddings"])
def test_deeply_nested_json_is_refused_and_the_next_request_works(
    api: Client, path: str, start: str, nested: str
) -> None:
    # What no field can be is refused where it begins, before anything walks down into it.
    body = start + nested * ((1_000_000 - len(start)) // len(nested))
    response = api.post(path, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert search(api, limit=1).json()["results"][0]["similarity"] == 100.0


def test_a_body_that_cannot_be_read_is_400(api: Client) -> None:
    broken = [
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"nothing like a form"),
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe"),
    ]
    for kind, body in broken:
        response = api.post("/v1/search", content=body, headers={"content-type": kind})
        assert (response.status_code, response.json()["code"]) == (400, "malformed_request"), (kind, body)


def test_a_body_of_another_kind_is_415(api: Client) -> None:
    response = api.post("/v1/search", content=KEYBOARD, headers={"content-type": "image/webp"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_body")


@pytest.mark.parametrize("header", ["soon", "-1", "0", "nan", "inf"])
def test_a_deadline_that_is_no_time_is_422(api: Client, header: str) -> None:
    response = api.post("/embed-image", files={"file": KEYBOARD}, headers={"Twinlens-Deadline": header})
    assert response.status_code == 422


def test_a_deadline_that_cannot_be_met_is_503_and_says_when_to_return(api: Client) -> None:
    response = api.post("/embed-image", files={"file": unseen(RACCOON)}, headers={"Twinlens-Deadline": "0.000001"})
    assert (response.status_code, response.json()["code"]) == (503, "deadline_missed")
    assert int(response.headers["Retry-After"]) >= 1
