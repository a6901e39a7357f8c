"""Searches for several things at once, over HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import numpy as np
import pytest

from server.catalogue.similarity import similarity
from tests import DEMO_PICTURES
from tests.support.pictures import unseen
from tests.support.serving import Client

KEYBOARD, TEAPOT, VIOLIN = ((DEMO_PICTURES / f"{name}.webp").read_bytes() for name in ("keyboard", "teapot", "violin"))


def compose(api: Client, *parts: Any, **fields: Any) -> httpx.Response:
    return api.post("/v1/search", json={"query": parts, **fields})


def compose_form(api: Client, files: list[bytes], *parts: Any, **fields: Any) -> httpx.Response:
    query = json.dumps(parts)
    return api.post("/v1/search", files=[("file", data) for data in files], data={"query": query, **fields})


def results(response: httpx.Response) -> list[dict[str, Any]]:
    """The matches, without what is signed anew."""
    assert response.status_code == 200, response.text
    found = response.json()["results"]
    return [{name: one for name, one in match.items() if not name.endswith("Url")} for match in found]


def names(response: httpx.Response, count: int) -> set[str]:
    return {match["productName"] for match in results(response)[:count]}


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.fixture
def media(words_api: Client) -> str:
    """The media of the demo's keyboard."""
    found = words_api.post("/v1/search", files={"file": KEYBOARD}, data={"limit": "1"}).json()["results"]
    named: str = found[0]["mediaId"]
    return named


@pytest.fixture
def space(words_api: Client) -> str:
    named: str = words_api.get("/health/ready").json()["space"]
    return named


def vector(api: Client, data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(api.post("/embed-image", files={"file": data}).json()["embedding"])


# --- what it finds ---------------------------------------------------------------------------------------------------


def test_one_part_finds_exactly_what_its_old_form_finds(words_api: Client, media: str, space: str) -> None:
    given = vector(words_api, TEAPOT).tolist()
    for part in ({"text": "teapot and violin"}, {"mediaId": media}, {"embedding": given, "space": space}):
        old = results(words_api.post("/v1/search", json=part))
        for weight in ({}, {"weight": 0.25}, {"weight": 10}):
            assert results(compose(words_api, {**part, **weight})) == old
        # A part that counts for nothing changes nothing.
        assert results(compose(words_api, part, {"text": "keyboard", "weight": 0})) == old
    old = results(words_api.post("/v1/search", files={"file": VIOLIN}))
    assert results(compose_form(words_api, [VIOLIN], {"file": 0})) == old
    assert (old[0]["cosine"], old[0]["similarity"], old[0]["grade"]) == (1.0, 100.0, "identical")


def test_a_picture_alone_in_a_query_finds_itself_before_its_vector_is_made(words_api: Client, client_id: str) -> None:
    """The lookup by its digest is that of the old form."""
    query = {"clientId": client_id}
    path = f"/v1/products/{client_id}"
    assert words_api.put(path, params=query, json={"name": "New"}).status_code == 201
    picture = unseen(KEYBOARD)
    assert words_api.post(f"{path}/media", params=query, files={"file": picture}).status_code == 201
    (only,) = results(compose_form(words_api, [picture], {"file": 0}, **query))
    assert (only["cosine"], only["grade"]) == (1.0, "identical")


def test_several_parts_are_searched_by_the_sum_of_their_vectors(words_api: Client, media: str, space: str) -> None:
    """A media, a text, a vector and a picture: each of the four is among what is found."""
    parts = [
        {"mediaId": media},
        {"text": "teapot", "weight": 0.75},
        {"embedding": vector(words_api, VIOLIN).tolist(), "space": space, "weight": 0.5},
        {"file": 0, "weight": 0.6},
    ]
    scissors = (DEMO_PICTURES / "scissors.webp").read_bytes()
    found = compose_form(words_api, [scissors], *parts, limit=280)
    assert names(found, 4) == {"Keyboard", "Teapot", "Violin", "Scissors"}
    summed = sum(
        weight * vector(words_api, data)
        for weight, data in zip((1, 0.75, 0.5, 0.6), (KEYBOARD, TEAPOT, VIOLIN, scissors), strict=True)
    )
    assert isinstance(summed, np.ndarray)
    alone = {"embedding": (summed / np.linalg.norm(summed)).tolist(), "space": space}
    by_sum = {
        one["mediaId"]: one["cosine"] for one in results(words_api.post("/v1/search", json={**alone, "limit": 280}))
    }
    assert {one["mediaId"]: one["cosine"] for one in results(found)} == pytest.approx(by_sum, abs=1e-3)


def test_a_negative_weight_is_less_like(words_api: Client) -> None:
    both = compose(words_api, {"text": "teapot"}, {"text": "violin"}, limit=280)
    less = compose(words_api, {"text": "teapot"}, {"text": "violin", "weight": -0.5}, limit=280)
    order = [one["productName"] for one in results(less)]
    assert names(both, 2) == {"Teapot", "Violin"}
    assert order[0] == "Teapot"
    assert order.index("Violin") > 200


def test_what_is_named_may_be_found_and_ranks_by_its_cosine_alone(words_api: Client, media: str) -> None:
    found = results(compose(words_api, {"mediaId": media}, {"text": "teapot", "weight": 1.2}, limit=280))
    assert [one["productName"] for one in found[:2]] == ["Teapot", "Keyboard"]
    assert 0 < found[1]["cosine"] < found[0]["cosine"] < 1


def test_matches_of_several_parts_have_no_grade_and_their_three_figures_agree(words_api: Client, media: str) -> None:
    found = results(compose(words_api, {"mediaId": media}, {"mediaId": media, "weight": 2}))
    assert {one["grade"] for one in found} == {None}
    for one in found:
        assert (one["score"], one["similarity"]) == (-one["cosine"], similarity(one["cosine"]))
    assert (found[0]["productName"], found[0]["cosine"]) == ("Keyboard", 1.0)


def test_a_filter_a_limit_and_a_bound_hold_for_several_parts(words_api: Client) -> None:
    parts = ({"text": "teapot"}, {"text": "violin"})
    among = {"filter": {"productIds": ["demo-violin", "demo-bicycle"]}}
    assert names(compose(words_api, *parts, **among), 24) == {"Violin", "Bicycle"}
    assert len(results(compose(words_api, *parts, limit=3))) == 3
    shown = results(compose(words_api, *parts, limit=100))
    kept = results(compose(words_api, *parts, limit=100, minSimilarity=shown[10]["similarity"]))
    assert kept == [one for one in shown if one["similarity"] >= shown[10]["similarity"]]


def test_the_stages_of_pictures_and_of_words_are_told(words_api: Client) -> None:
    parts = [{"file": 0}, {"file": 1}, {"text": "a violin beside a teapot"}]
    files = [unseen(KEYBOARD), unseen(TEAPOT)]
    first, again = (compose_form(words_api, files, *parts) for _ in range(2))
    assert {*first.json()["timings"]} == {"decode", "resize", "tokenize", "queue", "encode", "search"}
    assert [*again.json()["timings"]] == ["search"]
    assert "cache;desc=hit" in again.headers["Server-Timing"]
    assert results(again) == results(first)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        [],
        {},
        "violin",
        [{}],
        [{"weight": 1}],
        [{"text": "violin", "mediaId": "m"}],
        [{"text": "violin", "space": "x"}],
        [{"embedding": [1.0]}],
        [{"text": "violin", "weight": 11}],
        [{"text": "violin", "weight": -11}],
        [{"text": "violin", "weight": "much"}],
        [{"text": "violin", "wieght": 1}],
        [{"text": "violin", "weight": 0}],
        [{"text": "violin"}] * 17,
        [{"file": 0}],
        [{"mediaId": "../etc"}, {"text": "violin"}],
    ],
)
def test_a_query_that_makes_no_sense_is_422(words_api: Client, query: Any) -> None:
    response = words_api.post("/v1/search", json={"query": query})
    assert refusal(response) == (422, "bad_parameter"), response.text


@pytest.mark.parametrize(
    ("weight", "expected"), [("1e999", (422, "bad_parameter")), ("NaN", (400, "malformed_request"))]
)
def test_weights_are_finite(words_api: Client, weight: str, expected: tuple[int, str]) -> None:
    headers = {"Content-Type": "application/json"}
    body = f'{{"query": [{{"text": "violin", "weight": {weight}}}, {{"text": "teapot"}}]}}'
    assert refusal(words_api.post("/v1/search", content=body, headers=headers)) == expected


def test_sixteen_parts_are_not_too_many(words_api: Client) -> None:
    assert names(compose(words_api, *[{"text": "violin"}] * 16), 1) == {"Violin"}


@pytest.mark.parametrize(
    "beside", [{"text": "a"}, {"mediaId": "a"}, {"embedding": [1.0], "space": "s"}, {"space": "s"}]
)
def test_nothing_else_goes_beside_a_query(words_api: Client, beside: dict[str, Any]) -> None:
    assert refusal(compose(words_api, {"text": "violin"}, **beside)) == (422, "bad_parameter")


def test_parts_that_cancel_each_other_out_are_422_and_say_so(words_api: Client, media: str) -> None:
    for parts in (
        [{"mediaId": media}, {"text": "keyboard", "weight": -1}],
        [{"text": "violin", "weight": 2}, {"text": "VIOLIN", "weight": -2}],
    ):
        response = compose(words_api, *parts)
        assert refusal(response) == (422, "bad_parameter")
        assert "cancel each other out" in response.json()["error"]


def test_a_part_is_refused_as_its_old_form_is(words_api: Client, space: str) -> None:
    beside = {"text": "violin"}
    assert refusal(compose(words_api, beside, {"mediaId": "nobody"})) == (404, "media_not_found")
    assert refusal(compose(words_api, beside, {"text": " \n"})) == (422, "no_text")
    assert refusal(compose(words_api, beside, {"text": "a" * 10_001})) == (422, "text_too_long")
    other = {"embedding": [1.0] + [0.0] * 511, "space": "0" * 64}
    assert refusal(compose(words_api, beside, other)) == (409, "space_mismatch")
    for numbers in ([], [1.0], [0.0] * 512, [1e39] + [0.0] * 511, [2.0] + [0.0] * 511):
        assert refusal(compose(words_api, beside, {"embedding": numbers, "space": space})) == (422, "bad_vector")


def test_a_media_of_another_client_is_not_there(words_api: Client, media: str, client_id: str) -> None:
    response = compose(words_api, {"text": "violin"}, {"mediaId": media}, clientId=client_id)
    assert refusal(response) == (404, "media_not_found")


def test_several_parts_have_no_grades_to_ask_for_and_one_has_those_of_its_old_form(
    words_api: Client, media: str
) -> None:
    response = compose(words_api, {"mediaId": media}, {"text": "teapot"}, minGrade="similar")
    assert refusal(response) == (422, "bad_parameter")
    assert "several parts" in response.json()["error"]
    (only,) = results(compose(words_api, {"mediaId": media}, minGrade="near-duplicate"))
    assert only["grade"] == "identical"


def test_a_bad_picture_among_several_is_named_and_the_next_search_works(words_api: Client) -> None:
    parts = ({"file": 0}, {"file": 1}, {"text": "violin"})
    response = compose_form(words_api, [KEYBOARD, b"text"], *parts)
    assert refusal(response) == (415, "not_a_picture")
    assert "Picture 2 of 2" in response.json()["error"]
    assert names(compose_form(words_api, [KEYBOARD, TEAPOT], *parts), 3) == {"Keyboard", "Teapot", "Violin"}


def test_a_deadline_that_the_parts_cannot_meet_is_503_and_leaves_nothing_behind(words_api: Client) -> None:
    data = {"query": json.dumps([{"file": 0}, {"text": f"violin {'teapot ' * 50}"}])}
    files = {"file": unseen(KEYBOARD)}
    response = words_api.post("/v1/search", files=files, data=data, headers={"Twinlens-Deadline": "0.000001"})
    assert refusal(response) == (503, "deadline_missed")
    inside = [line for line in words_api.get("/metrics").text.splitlines() if re.match(r"twinlens_\w+_inside\b", line)]
    assert len(inside) >= 2
    assert {float(line.split()[-1]) for line in inside} == {0.0}


# --- forms -----------------------------------------------------------------------------------------------------------


def test_the_pictures_of_a_form_are_counted_from_0_in_the_order_they_came(words_api: Client) -> None:
    for weights, first in (((1, 0.2), "Keyboard"), ((0.2, 1), "Teapot")):
        parts = [{"file": number, "weight": weight} for number, weight in enumerate(weights)]
        assert names(compose_form(words_api, [KEYBOARD, TEAPOT], *parts), 1) == {first}


@pytest.mark.parametrize(
    ("count", "query"),
    [
        (1, "[{}]"),
        (1, '[{"file": 1}]'),
        (1, '[{"file": -1}]'),
        (1, '[{"text": "violin"}]'),
        (2, '[{"file": 0}, {"text": "violin"}]'),
        (1, '[{"file": 0}, {"file": 2}]'),
        (1, '[{"file": 0, "text": "violin"}]'),
        (1, "file"),
        (1, "[" * 10_000),
        (1, '{"file": 0}'),
    ],
)
def test_a_form_whose_query_does_not_name_its_pictures_is_422(words_api: Client, count: int, query: str) -> None:
    files = [("file", KEYBOARD)] * count
    response = words_api.post("/v1/search", files=files, data={"query": query})
    assert refusal(response) == (422, "bad_parameter"), response.text
    assert "query" in response.json()["error"]


def test_several_pictures_without_a_query_are_refused_as_before(words_api: Client) -> None:
    response = words_api.post("/v1/search", files=[("file", KEYBOARD), ("file", TEAPOT)])
    assert refusal(response) == (422, "bad_parameter")


def test_a_form_without_a_picture_is_refused_as_before(words_api: Client) -> None:
    response = words_api.post("/v1/search", files={"query": (None, '[{"text": "violin"}]')})
    assert refusal(response) == (400, "no_picture")


def test_the_call_of_the_legacy_service_takes_no_query(words_api: Client) -> None:
    response = words_api.post("/api/search/by-image", files={"file": KEYBOARD}, data={"query": '[{"file": 0}]'})
    assert refusal(response) == (422, "bad_parameter")
