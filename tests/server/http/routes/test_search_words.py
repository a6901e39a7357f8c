"""Searches by words as people type them, over HTTP: names, SKUs and misspelt words, before what the pictures give."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from server.ingest import demo
from tests.support.process import KEYBOARD
from tests.support.serving import Client

PRODUCTS = {product.id: product.name for product in demo.products()}

# Of 280 names each; measured shares are in docs/searching.md.
FIRST = {"exact": 0.98, "dropped": 0.82, "swapped": 0.87, "doubled": 0.92, "replaced": 0.86}
AMONG_FIVE = {"exact": 0.99, "dropped": 0.86, "swapped": 0.89, "doubled": 0.94, "replaced": 0.89}


def search(api: Client, text: str, **fields: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/search", json={"text": text, **fields})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def products(api: Client, text: str, **fields: Any) -> list[str]:
    return [match["productId"] for match in search(api, text, **fields)]


def misspelt(name: str, how: str, chance: random.Random) -> str:
    """A name as somebody types it with one wrong letter."""
    if how == "exact":
        return name
    letters = [place for place, letter in enumerate(name) if letter.isalpha()]
    if how == "swapped":
        beside = [place for place in letters if place + 1 in letters]
        place = chance.choice([one for one in beside if name[one].lower() != name[one + 1].lower()])
        return name[:place] + name[place + 1] + name[place] + name[place + 2 :]
    place = chance.choice(letters)
    if how == "dropped":
        return name[:place] + name[place + 1 :]
    if how == "doubled":
        return name[:place] + name[place] + name[place:]
    other = chance.choice([letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter != name[place].lower()])
    return name[:place] + other + name[place + 1 :]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("keybord", "demo-keyboard"),
        ("bycicle", "demo-bicycle"),
        ("DEMO-0001", "demo-abacus"),
        ("demo 0137", "demo-kitchen-timer"),
        ("keyb", "demo-keyboard"),
        ("bear teddy", "demo-teddy-bear"),
        ("PINATA", "demo-pinata"),
        ("a running shoe", "demo-running-shoe"),
    ],
)
def test_what_the_words_name_comes_first(api: Client, text: str, first: str) -> None:
    found = products(api, text)
    assert found[0] == first
    assert len(found) == 24


def test_words_that_name_nothing_are_answered_by_the_pictures_alone(api: Client) -> None:
    for text in ("xqzv", "house", "something to write with", "%", "''"):
        assert search(api, text) == search(api, text, mode="visual")


def test_what_is_not_named_stays_in_the_order_of_the_pictures_and_nothing_is_left_out(api: Client) -> None:
    visual = search(api, "piano", mode="visual", limit=300)
    auto = search(api, "piano", limit=300)
    assert [match["productId"] for match in auto[:1]] == ["demo-piano-keyboard"]
    rest = [match for match in visual if match["productId"] != "demo-piano-keyboard"]
    assert auto[1:] == rest
    # The figures are those of the picture, wherever the words have put it.
    assert auto[0] in visual


def test_an_answer_says_how_long_the_words_took(api: Client) -> None:
    answer = api.post("/v1/search", json={"text": "keybord"})
    assert "words;dur=" in answer.headers["Server-Timing"]
    assert "words" in answer.json()["timings"]
    answer = api.post("/v1/search", json={"text": "keybord", "mode": "visual"})
    assert "words" not in answer.headers["Server-Timing"]


def test_only_words_alone_are_taken_for_names(api: Client) -> None:
    """The mode is no mistake beside anything else."""
    composed = [{"text": "abacus"}, {"text": "drum"}]
    picture = [{"mediaId": search(api, "abacus")[0]["mediaId"]}]
    for query in (composed, picture):
        both = [api.post("/v1/search", json={"query": query, "mode": mode}) for mode in ("auto", "visual")]
        assert both[0].json()["results"] == both[1].json()["results"]
    one = [{"text": "DEMO-0001", "weight": 3}]
    assert api.post("/v1/search", json={"query": one}).json()["results"][0]["productId"] == "demo-abacus"
    less = [{"text": "DEMO-0001", "weight": -1}]
    both = [api.post("/v1/search", json={"query": less, "mode": mode}) for mode in ("auto", "visual")]
    assert both[0].json()["results"] == both[1].json()["results"]
    form = api.post("/v1/search", files={"file": KEYBOARD}, data={"mode": "visual"})
    assert form.json()["results"][0]["similarity"] == 100.0


@pytest.mark.parametrize("mode", ["words", "", 1])
def test_an_unknown_mode_is_422(api: Client, mode: Any) -> None:
    answer = api.post("/v1/search", json={"text": "a", "mode": mode})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_filters_and_bounds_hold_for_what_is_named(api: Client) -> None:
    only = {"productIds": ["demo-abacus", "demo-keyboard"]}
    assert products(api, "keyboard", filter=only) == ["demo-keyboard", "demo-abacus"]
    assert products(api, "DEMO-0002", filter=only) != []
    assert "demo-accordion" not in products(api, "DEMO-0002", filter=only)
    assert search(api, "DEMO-0001", minSimilarity=100) == []
    assert len(search(api, "DEMO-0001", limit=1)) == 1


def test_a_least_grade_leaves_out_what_is_less_alike_and_not_what_is_named(api: Client) -> None:
    asked = {"text": "violin", "minGrade": "similar", "limit": 1000, "explain": True, "facets": []}
    answer = api.post("/v1/search", json={**asked, "facetsOver": "matches"}).raise_for_status().json()
    found = answer["results"]
    assert (found[0]["productId"], found[0]["grade"]) == ("demo-violin", "weak")
    for one in found:
        assert one["grade"] == "similar" or one["explain"]["words"], one
    assert len(found) < len(search(api, "violin", limit=1000))
    assert answer["total"] == len(found)
    assert not products(api, "xqzv", minGrade="similar")


def test_every_picture_of_a_product_that_is_named_comes_first(api: Client, client_id: str) -> None:
    query = {"clientId": client_id}
    for name, picture in (("Lantern", "violin"), ("Abacus", "abacus"), ("Lantern stand", "anchor")):
        path = f"/v1/products/{name.replace(' ', '-')}"
        body = {"name": name, "sku": f"{name}-1", "attributes": {"brand": "Lumo", "line": "Winterlight"}}
        assert api.put(path, params=query, json=body).status_code == 201
        data = (demo.FOLDER / "pictures" / f"{picture}.webp").read_bytes()
        assert api.post(f"{path}/media", params=query, files={"file": data}).status_code == 201
    assert api.post("/v1/products/Lantern/media", params=query, files={"file": KEYBOARD}).status_code == 201
    assert products(api, "lantern", clientId=client_id) == ["Lantern", "Lantern", "Lantern-stand", "Abacus"]
    assert set(products(api, "lumo", clientId=client_id, limit=1)) <= {"Lantern", "Abacus", "Lantern-stand"}
    visual = products(api, "winterlight", clientId=client_id, mode="visual")
    assert products(api, "winterlight", clientId=client_id) == visual
    put = api.put("/v1/attributes", params=query, json={"attributes": {}, "searchable": ["line"]})
    assert (put.status_code, put.json()) == (200, {"attributes": {}, "searchable": ["line"]})
    assert api.get("/v1/attributes", params=query).json() == put.json()
    patch = {"attributes": {"line": None}}
    assert api.patch("/v1/products/Abacus", params=query, json=patch).status_code == 200
    assert products(api, "winterlight", clientId=client_id)[-1] == "Abacus"
    assert api.patch("/v1/products/Lantern", params=query, json={"isActive": False}).status_code == 200
    assert products(api, "lantern", clientId=client_id)[0] == "Lantern-stand"
    assert "Lantern" not in products(api, "lantern", clientId=client_id)
    assert api.delete("/v1/products/Lantern-stand", params=query).status_code == 200
    assert products(api, "lanternstand", clientId=client_id) == ["Abacus"]


def test_nobody_s_words_find_another_client_s_products(api: Client, client_id: str) -> None:
    query = {"clientId": client_id}
    assert api.put("/v1/products/own", params=query, json={"name": "Keyboard", "sku": "DEMO-0001"}).status_code == 201
    assert api.post("/v1/products/own/media", params=query, files={"file": KEYBOARD}).status_code == 201
    assert products(api, "keyboard", clientId=client_id) == ["own"]
    assert products(api, "DEMO-0001", clientId=client_id) == ["own"]
    assert products(api, "DEMO-0001")[0] == "demo-abacus"
    assert "own" not in products(api, "keyboard", limit=300)


@pytest.mark.parametrize("searchable", ["brand", [1], [""], ["x" * 101], ["a\0"], ["a"] * 21],
                         ids=["text", "number", "no name", "long", "nul", "too many"])  # fmt: skip
def test_searchable_attributes_that_make_no_sense_are_422(api: Client, client_id: str, searchable: Any) -> None:
    body = {"attributes": {}, "searchable": searchable}
    answer = api.put("/v1/attributes", params={"clientId": client_id}, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


@pytest.mark.parametrize("how", FIRST)
def test_names_are_found_however_they_are_typed(api: Client, how: str) -> None:
    """Shares of the demo catalogue's products; where they come in the answers with and without words."""
    chance = random.Random(17)
    asked = {product: misspelt(name, how, chance) for product, name in PRODUCTS.items()}
    shares = {}
    for mode in ("auto", "visual"):
        places = [products(api, text, mode=mode, limit=5) for text in asked.values()]
        first = [found[0] == product for product, found in zip(asked, places, strict=True)]
        five = [product in found for product, found in zip(asked, places, strict=True)]
        shares[mode] = (sum(first) / len(first), sum(five) / len(five))
    print(json.dumps({how: shares}))
    assert shares["auto"][0] >= FIRST[how]
    assert shares["auto"][1] >= AMONG_FIVE[how]
    assert shares["auto"][0] > shares["visual"][0]


def test_an_explanation_says_what_the_words_gave(api: Client) -> None:
    answer = api.post("/v1/search", json={"text": "keybord", "explain": True, "limit": 3}).json()
    assert answer["explain"]["words"] == {"products": 2, "corrected": {"keybord": ["keyboard"]}}
    first, _, third = answer["results"]
    assert first["explain"]["words"] == {"by": "misspelt", "likeness": 0.5, "bonus": 10.0}
    assert first["explain"]["boosts"] == 0
    assert first["explain"]["ranking"] == pytest.approx(first["cosine"] + 10, abs=2e-6)
    assert third["explain"]["words"] is None
    visual = api.post("/v1/search", json={"text": "keybord", "explain": True, "mode": "visual"}).json()
    assert visual["explain"]["words"] is None


def test_pages_go_on_behind_what_is_named(api: Client) -> None:
    asked: dict[str, Any] = {"text": "keybord", "limit": 1}
    whole = products(api, "keybord", limit=4)
    paged = []
    for _ in range(4):
        answer = api.post("/v1/search", json=asked).json()
        paged += [match["productId"] for match in answer["results"]]
        asked["cursor"] = answer["next"]
    assert paged == whole
    foreign = api.post("/v1/search", json={**asked, "mode": "visual"})
    assert (foreign.status_code, foreign.json()["code"]) == (422, "bad_parameter")
