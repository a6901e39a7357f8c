"""The client for InstantSearch: its widgets, as npm has them, on a shop's page and with a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.support.access import CATALOGUE, picture
from tests.support.browsers import launched, needs_chromium, wait_until
from tests.support.pages_elsewhere import DOCUMENTED, Shop, example, installed, needs_npm, run, shop

PATIENCE = 20_000
VIOLIN: FilePayload = {"name": "violin.webp", "mimeType": "image/webp", "buffer": picture("violin")}
PUBLISHED = "https://cdn.jsdelivr.net/npm/"

MORE: dict[str, dict[str, Any]] = {
    "keyboard": {"tags": ["new", "loud"], "keys": 88, "stock": True},
    "notebook": {"tags": ["new"], "keys": 0, "stock": True},
    "violin": {"tags": ["new", "loud", "wood"], "keys": 0, "stock": False},
    "accordion": {"tags": ["loud"], "keys": 120, "stock": True},
    "drum": {"tags": ["loud"], "keys": 0, "stock": False},
    "teapot": {"keys": 0, "stock": True},
}
"""Attributes beside those of the catalogue."""


@pytest.fixture(scope="module")
def served(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose search key shows all attributes."""
    data = tmp_path_factory.mktemp("instantsearch")
    with shop(postgres_url, template_database, data, fields=["attributes"]) as served:
        with served.process.client() as client:
            headers = {"Authorization": f"Bearer {served.write}"}
            for name, more in MORE.items():
                client.patch(f"/v1/products/{name}", json={"attributes": more}, headers=headers).raise_for_status()
            # A second picture of one product, which must not count twice.
            file = {"file": picture("teapot")}
            client.post("/v1/products/violin/media", files=file, headers=headers).raise_for_status()
        yield served


# --- what is asked for -----------------------------------------------------------------------------------------------

ASK = """
import { twinlensClient } from "SCRIPT";
const [options, steps] = JSON.parse(process.argv[1]);
const client = twinlensClient(options);
const sent = [];
const real = globalThis.fetch;
globalThis.fetch = (address, given) => {
    const form = given.body instanceof FormData;
    sent.push(form ? Object.fromEntries([...given.body].map(([name, one]) => [name, name === "file" ? one.size : one]))
        : JSON.parse(given.body));
    return real(address, given);
};
const answers = [];
for (const step of steps) {
    if (step.picture) client.setPicture(new Blob([Buffer.from(step.picture, "base64")]));
    if (step.values) answers.push(await client.searchForFacetValues(step.values));
    if (step.search) {
        try {
            answers.push((await client.search(step.search.map((params) => ({ indexName: "x", params })))).results);
        } catch (error) {
            answers.push([error.name, error.code, error.message]);
        }
    }
}
console.log(JSON.stringify({ sent, answers }));
"""


def ask(served: Shop, *steps: dict[str, Any], **options: Any) -> tuple[list[Any], list[Any]]:
    """What the client sends for these steps, and what it answers, in Node."""
    script = ASK.replace("SCRIPT", (Path("server") / "http" / "web" / "twinlens-instantsearch.js").resolve().as_uri())
    given = {"endpoint": served.process.url, "searchKey": served.write, "fields": ["attributes"], **options}
    printed = run("node", "--input-type=module", "-e", script, json.dumps([given, steps]), folder=Path(__file__).parent)
    found = json.loads(printed)
    return found["sent"], found["answers"]


def names(result: Any) -> set[str]:
    return {hit["objectID"] for hit in result["hits"]}


def passing(served: Shop, **params: Any) -> set[str]:
    """The products that these filters pass."""
    (_, ((result,),)) = ask(served, {"search": [{"query": "thing", **params}]})
    found = names(result)
    assert len(found) == result["nbHits"]
    return found


@needs_npm
def test_filters_of_widgets_pass_what_they_pass_elsewhere(served: Shop) -> None:
    music = {"violin", "accordion", "drum"}
    assert passing(served) == set(CATALOGUE)
    assert passing(served, facetFilters=["category:music"]) == music
    assert passing(served, facetFilters=[["category:music", "category:kitchen"]]) == music | {"teapot"}
    assert passing(served, facetFilters=["tags:new", "tags:loud"]) == {"keyboard", "violin"}
    assert passing(served, facetFilters=[["tags:wood", "tags:new"], "tags:loud"]) == {"keyboard", "violin"}
    assert passing(served, facetFilters=["category:-music", "category:-office"]) == {"teapot"}
    assert passing(served, facetFilters=["category:music", "tags:-wood"]) == {"accordion", "drum"}
    # Numbers and truth values, as texts.
    assert passing(served, facetFilters=["stock:false"]) == {"violin", "drum"}
    assert passing(served, facetFilters=[["keys:88", "keys:120"]]) == {"keyboard", "accordion"}
    assert passing(served, numericFilters=["price>=50", "price<=500"]) == {"keyboard", "drum", "violin"}
    assert passing(served, numericFilters=["price>50", "price<500"]) == {"drum"}
    assert passing(served, numericFilters=["price>=5", "price>=90", "price<900"]) == {"drum", "violin"}
    assert passing(served, numericFilters=[["keys=88", "keys=120"]]) == {"keyboard", "accordion"}
    assert passing(served, numericFilters=["keys=88"]) == {"keyboard"}
    assert passing(served, numericFilters=["keys!=0", "price: 0 TO 100"]) == {"keyboard"}
    assert passing(served, facetFilters=["category:music"], numericFilters=["price<100"]) == {"drum"}
    assert passing(served, numericFilters=["price>=50"], facetFilters=["price:-500"]) == {
        "keyboard",
        "drum",
        "accordion",
    }


@needs_npm
@pytest.mark.parametrize(
    "params",
    [
        {"filters": "price < 10"},
        {"aroundLatLng": "47,15"},
        {"distinct": 2},
        {"facets": ["*"]},
        {"facetFilters": [["category:music", "tags:new"]]},
        {"facetFilters": [["tags:a", "tags:b"], ["tags:c", "tags:d"]]},
        {"numericFilters": [["price<10", "price>90"]]},
        {"numericFilters": ["cheap"]},
    ],
    ids=lambda params: next(iter(params)),
)
def test_what_has_no_like_is_refused_and_not_left_out(served: Shop, params: dict[str, Any]) -> None:
    sent, (answer,) = ask(served, {"search": [{"query": "thing", **params}]})
    assert sent == []
    assert answer[0] == "TwinlensError"
    assert answer[2].endswith(".")


@needs_npm
def test_an_empty_query_asks_for_nothing_or_for_what_the_shop_begins_with(served: Shop) -> None:
    search = {"search": [{"query": "", "facets": ["category"], "hitsPerPage": 3}]}
    sent, ((nothing,),) = ask(served, search)
    assert (sent, nothing["hits"], nothing["nbHits"], nothing["nbPages"], nothing["facets"]) == ([], [], 0, 0, {})
    sent, ((begun,),) = ask(served, search, initial={"text": "new in the shop"})
    assert [one["text"] for one in sent] == ["new in the shop"]
    assert (len(begun["hits"]), begun["nbHits"], begun["nbPages"]) == (3, 6, 2)
    assert begun["facets"] == {"category": {"music": 3, "office": 2, "kitchen": 1}}
    sent, _ = ask(served, search, initial={"mediaId": served.media["drum"]})
    assert [one["mediaId"] for one in sent] == [served.media["drum"]]


@needs_npm
def test_pages_are_one_list_each_part_of_which_is_asked_for_once(served: Shop) -> None:
    def page(number: int) -> dict[str, Any]:
        return {"search": [{"query": "thing", "hitsPerPage": 2, "page": number}]}

    sent, answers = ask(served, *map(page, (0, 1, 0, 2, 3)))
    assert [(one["limit"], "cursor" in one) for one in sent] == [(2, False), (2, True), (2, True)]
    (jump,), ((last,),) = ask(served, page(2))
    assert jump["limit"] == 6
    _, ((whole,),) = ask(served, {"search": [{"query": "thing", "hitsPerPage": 6}]})
    order = [hit["objectID"] for hit in whole["hits"]]
    found = [[hit["objectID"] for hit in answer[0]["hits"]] for answer in answers]
    assert found == [order[:2], order[2:4], order[:2], order[4:], []]
    assert [hit["objectID"] for hit in last["hits"]] == order[4:]
    assert {(one[0]["nbHits"], one[0]["nbPages"]) for one in answers} == {(6, 3)}


@needs_npm
def test_a_picture_is_sent_for_the_hits_and_not_again_to_count(served: Shop) -> None:
    first = {"query": "", "facets": ["category"], "facetFilters": [["category:music"]], "hitsPerPage": 2}
    counting = {"query": "", "facets": "category", "hitsPerPage": 0, "page": 0}
    data = _base64(picture("violin"))
    sent, (begun, refined) = ask(
        served, {"picture": data, "search": [{"query": ""}]}, {"search": [first, counting]}, initial={"text": "x"}
    )
    assert begun[0]["hits"][0]["objectID"] == "violin"
    assert begun[0]["hits"][0]["similarity"] == 100
    assert [one.get("file") for one in sent] == [len(picture("violin")), len(picture("violin")), None]
    assert (refined[0]["nbHits"], refined[0]["facets"]) == (3, {"category": {"music": 3}})
    assert refined[1]["facets"] == {"category": {"music": 3, "office": 2, "kitchen": 1}}
    # What is bounded is counted as it is bounded.
    sent, ((bounded,),) = ask(served, {"picture": data, "search": [{"facets": ["category"]}]}, minSimilarity=99.9)
    assert (sent[0]["minSimilarity"], sent[0]["facetsOver"]) == ("99.9", "matches")
    assert (bounded["nbHits"], names(bounded), bounded["facets"]) == (1, {"violin"}, {"category": {"music": 1}})
    # Words beside it say what is different.
    sent, _ = ask(served, {"picture": data, "search": [{"query": "in red"}]}, minSimilarity=99.9)
    assert json.loads(sent[0]["query"]) == [{"file": 0}, {"text": "in red", "weight": 2}]
    assert "minSimilarity" not in sent[0]


@needs_npm
def test_hits_have_what_templates_want(served: Shop) -> None:
    marks = {"highlightPreTag": "<mark>", "highlightPostTag": "</mark>"}
    _, ((result,),) = ask(served, {"search": [{"query": "vio Key", "facets": ["price", "category"], **marks}]})
    hit = next(hit for hit in result["hits"] if hit["objectID"] == "violin")
    assert (hit["name"], hit["price"], hit["category"], hit["tags"]) == ("Violin", 500, "music", MORE["violin"]["tags"])
    assert (hit["productId"], hit["mediaId"]) == ("violin", served.media["violin"])
    assert hit["image"].startswith(f"{served.process.url}/v1/media/")
    assert hit["_highlightResult"]["name"] == {
        "value": "<mark>Vio</mark>lin",
        "matchLevel": "partial",
        "fullyHighlighted": False,
        "matchedWords": ["vio"],
    }
    assert hit["_highlightResult"]["category"]["matchLevel"] == "none"
    assert result["facets_stats"] == {"price": {"min": 5, "max": 900}}
    assert result["exhaustiveNbHits"]
    _, ((found,),) = ask(
        served,
        {"values": [{"indexName": "x", "params": {"facetName": "category", "facetQuery": "Mus", "query": "thing"}}]},
    )
    assert [(one["value"], one["count"]) for one in found["facetHits"]] == [("music", 3)]
    assert found["facetHits"][0]["highlighted"] == "<em>mus</em>ic"
    _, ((media,),) = ask(served, {"search": [{"query": "violin"}]}, groupBy=None)
    assert media["hits"][0]["objectID"] == served.media["violin"]
    assert (result["nbHits"], media["nbHits"]) == (6, 7)


@needs_npm
def test_an_index_by_another_name_has_fields_of_its_own(served: Shop) -> None:
    cheap = {"boosts": [{"attribute": "price", "from": 1000, "to": 0, "weight": 2}]}
    sent, ((result,),) = ask(served, {"search": [{"query": "thing"}]}, indices={"x": cheap}, mode="visual")
    assert (sent[0]["boosts"], sent[0]["mode"]) == (cheap["boosts"], "visual")
    assert [hit["objectID"] for hit in result["hits"]][-2:] == ["violin", "accordion"]


@needs_npm
def test_an_error_is_the_servers_sentence_and_the_next_search_asks_anew(served: Shop) -> None:
    search = {"search": [{"query": "thing"}]}
    sent, answers = ask(served, search, search, searchKey="wrong")
    assert [one[:2] for one in answers] == [["TwinlensError", "key_invalid"]] * 2
    assert len(sent) == 2
    _, answers = ask(served, search, endpoint="http://127.0.0.1:9")
    assert answers[0][1] == "unreachable"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- the widgets -----------------------------------------------------------------------------------------------------


class Widgets(NamedTuple):
    page: Page

    def shows(self, *products: str) -> None:
        """These hits, in this order."""
        expect(self.page.locator(".ais-Hits-item")).to_have_count(len(products), timeout=PATIENCE)
        for number, name in enumerate(products):
            expect(self.page.locator(".ais-Hits-item").nth(number)).to_contain_text(name.title(), timeout=PATIENCE)

    def says(self, text: str) -> None:
        expect(self.page.locator(".ais-Stats-text")).to_contain_text(text, timeout=PATIENCE)

    def counts(self, **expected: int) -> None:
        """What the list of categories has."""
        shown = """(expected) => {
            const said = (item, part) => item.querySelector(`.ais-RefinementList-${part}`).innerText;
            const items = [...document.querySelectorAll(".ais-RefinementList-item")];
            const pairs = items.map((item) => [said(item, "labelText"), said(item, "count")]);
            return JSON.stringify(pairs.sort()) === expected;
        }"""
        pairs = sorted([name, str(count)] for name, count in expected.items())
        wait_until(self.page, shown, json.dumps(pairs, separators=(",", ":")))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def widgets(served: Shop, browser: Browser, modules: Path) -> Iterator[Widgets]:
    """The page of the documentation, with the library as npm has it."""
    heading = "## InstantSearch"
    page_text, script = example("html", heading), example("js", heading)
    assert len([line for line in script.splitlines() if line.strip()]) <= 36
    library = "instantsearch.js@4.118.1/dist/instantsearch.production.min.js"
    assert PUBLISHED + library in page_text
    served.site.put("/instantsearch.js", (modules / "node_modules" / library.replace("@4.118.1", "")).read_bytes())
    served.site.put(
        "/search.js", script.replace(DOCUMENTED, served.process.url).replace("twinlens-search.EXAMPLE", served.key)
    )
    server = served.process.url
    policy = f"default-src 'none'; script-src 'self' {server}; connect-src {server}; img-src {server} data:"
    at = served.site.put(
        "/shop.html", page_text.replace(PUBLISHED + library, "instantsearch.js"), Content_Security_Policy=policy
    )
    complaints: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.goto(at)
        yield Widgets(page)
    assert complaints == []


@pytest.mark.slow  # it installs packages
@needs_npm
@needs_chromium
def test_the_widgets_of_the_documentation_search_filter_and_page(served: Shop, browser: Browser, modules: Path) -> None:
    with widgets(served, browser, modules) as shown:
        page = shown.page
        shown.says("6 results")
        shown.counts(music=3, office=2, kitchen=1)
        whole: list[str] = []
        for number in ("1", "2", "3"):
            page.locator(".ais-Pagination").get_by_text(number, exact=True).click()
            expect(page.locator(".ais-Pagination-item--selected")).to_have_text(number, timeout=PATIENCE)
            # The number is shown as chosen before the hits have come.
            news = """(known) => {
                const shown = [...document.querySelectorAll(".ais-Hits-item")].map((one) => one.innerText);
                return shown.length === 2 && !shown.some((text) => known.includes(text));
            }"""
            wait_until(page, news, whole)
            whole += page.locator(".ais-Hits-item").all_inner_texts()
        assert len({text.split()[0] for text in whole}) == 6, "each product is on one page"

        page.get_by_role("searchbox").fill("violin")
        shown.says("6 results")
        expect(page.locator(".ais-Hits-item").first.locator("mark")).to_have_text("Violin", timeout=PATIENCE)
        image = page.locator(".ais-Hits-item img").first
        wait_until(page, "image => image.complete && image.naturalWidth === 256", image.element_handle())

        page.get_by_label("music").check()
        shown.says("3 results")
        shown.counts(music=3, office=2, kitchen=1)  # one of them may be added
        page.get_by_label("kitchen").check()
        shown.says("4 results")
        expect(page.locator(".ais-CurrentRefinements-category")).to_have_count(2)
        lower, upper = (page.locator(f".ais-RangeInput-input--{end}") for end in ("min", "max"))
        expect(lower).to_have_attribute("placeholder", "30")
        expect(upper).to_have_attribute("placeholder", "900")
        lower.fill("100")
        page.locator(".ais-RangeInput-submit").click()
        shown.says("2 results")
        shown.counts(music=2, kitchen=0)
        shown.shows("violin", "accordion")
        page.get_by_role("button", name="Clear refinements").click()
        shown.says("6 results")
        expect(page.locator(".ais-CurrentRefinements-category")).to_have_count(0)


@pytest.mark.slow  # it installs packages
@needs_npm
@needs_chromium
def test_a_picture_searches_beside_the_widgets(served: Shop, browser: Browser, modules: Path) -> None:
    with widgets(served, browser, modules) as shown:
        page = shown.page
        shown.says("6 results")
        page.locator(".ais-Pagination").get_by_text("3", exact=True).click()
        expect(page.locator(".ais-Pagination-item--selected")).to_have_text("3", timeout=PATIENCE)
        page.get_by_label("Search by picture").set_input_files(VIOLIN)
        expect(page.locator(".ais-Hits-item").first).to_contain_text("Violin", timeout=PATIENCE)
        expect(page.locator(".ais-Pagination-item--selected")).to_have_text("1")
        page.get_by_label("office").check()
        shown.says("2 results")
        shown.counts(office=2, music=3, kitchen=1)
        page.get_by_label("Search by picture").set_input_files([])
        shown.says("2 results")
