"""`<twinlens-search>` on a shop's page: from another origin, with a derived search key, under a strict policy."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Request, expect

import twinlens
from tests import STARTER
from tests.support.access import picture
from tests.support.browsers import launched, needs_chromium, wait_until
from tests.support.changed_artifacts import rewrite_manifest
from tests.support.databases import fresh_database
from tests.support.pages_elsewhere import DOCUMENTED, WEB, Shop, example, installed, needs_npm, run, shop
from tests.support.serving import serving

SCRIPT = "/web/twinlens-search.js"
SCRIPTS = (SCRIPT, "/web/twinlens-instantsearch.js")
PATIENCE = 20_000

VIOLIN: FilePayload = {"name": "violin.webp", "mimeType": "image/webp", "buffer": picture("violin")}
KEYBOARD: FilePayload = {"name": "keyboard.webp", "mimeType": "image/webp", "buffer": picture("keyboard")}
TEXT_FILE: FilePayload = {"name": "list.txt", "mimeType": "text/plain", "buffer": b"a list"}
DAMAGED: FilePayload = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"}


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origins", [(), ("*", "https://shop.example")], ids=["none", "some"])
def test_any_page_may_load_the_scripts_whichever_may_call(
    postgres_url: str, template_database: str, tmp_path: Path, origins: tuple[str, ...]
) -> None:
    with (
        fresh_database(postgres_url, template_database) as url,
        serving(url, tmp_path, cors_origins=origins) as api,
    ):
        for script, origin in itertools.product(SCRIPTS, ("https://shop.example", "https://other.example")):
            answer = api.get(script, headers={"Origin": origin})
            assert answer.headers.get_list("Access-Control-Allow-Origin") == ["*"]
            assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
            assert answer.headers["Content-Type"].startswith("text/javascript")
            assert answer.content == (WEB / script.rpartition("/")[2]).read_bytes()
            again = api.get(script, headers={"Origin": origin, "If-None-Match": answer.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers.get_list("Access-Control-Allow-Origin") == ["*"]
        ours = api.get("/web/app.js", headers={"Origin": "https://other.example"}).headers
        assert "Access-Control-Allow-Origin" not in ours
        assert ours["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_component_is_small_and_sets_nothing_in_markup() -> None:
    text = (WEB / "twinlens-search.js").read_text()
    assert len(text.encode()) < 30_000
    assert not [
        one for one in ("innerHTML", "insertAdjacentHTML", ".style.", "createObjectURL", "eval(") if one in text
    ]
    assert "import " not in text


@needs_npm
def test_the_package_holds_the_files_and_imports_them_where_there_is_no_dom(tmp_path: Path) -> None:
    (packed,) = json.loads(run("npm", "pack", "--json", str(WEB), folder=tmp_path))
    assert packed["version"] == twinlens.__version__
    module = tmp_path / "node_modules" / packed["name"]
    module.mkdir(parents=True)
    run("tar", "-xzf", packed["filename"], "-C", str(module), "--strip-components", "1", folder=tmp_path)
    declared = json.loads((WEB / "package.json").read_bytes())
    assert {path.name for path in module.iterdir()} == {*declared["files"], "package.json"}
    script = """console.log(typeof customElements, Object.keys(await import("twinlens-search")).join(),
        Object.keys(await import("twinlens-search/instantsearch")).join())"""
    printed = run("node", "--input-type=module", "-e", script, folder=tmp_path)
    assert printed.split() == ["undefined", "TEXTS,TwinlensSearch", "TwinlensError,twinlensClient"]


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    data, fields = tmp_path_factory.mktemp("embed"), ["url", "attributes.price"]
    with shop(postgres_url, template_database, data, fields=fields) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


def strict(server: str) -> str:
    """The policy of the documentation, and nothing else allowed."""
    return (
        f"default-src 'none'; script-src {server}; connect-src {server}; img-src {server}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )


@contextmanager
def shopping(browser: Browser, served: Shop, text: str, policy: str = "", **options: Any) -> Iterator[Page]:
    """The page as a customer sees it. Nothing is wrong on it that a console would show."""
    complaints: list[str] = []
    at = served.site.put("/shop.html", text, Content_Security_Policy=policy or strict(served.process.url))
    with browser.new_context(**{"viewport": {"width": 390, "height": 844}, **options}) as context:
        context.grant_permissions([])
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(at)
        wait_until(page, "!!customElements.get('twinlens-search')")
        yield page
    assert complaints == []


def element(served: Shop, attributes: str = "", inside: str = "") -> str:
    """A page with the element and these attributes."""
    given = f'endpoint="{served.process.url}" search-key="{served.key}" {attributes}'
    return f"""<!doctype html><html lang="en"><title>A shop</title>
        <script type="module" src="{served.process.url}{SCRIPT}"></script>
        <main><h1>A shop</h1><twinlens-search {given}>{inside}</twinlens-search></main>"""


@pytest.fixture
def page(served: Shop, browser: Browser) -> Iterator[Page]:
    """With the dialog open."""
    with shopping(browser, served, element(served)) as page:
        page.get_by_role("button", name="Search by picture").click()
        yield page


def choose(page: Page, *files: FilePayload) -> None:
    """By the button, as a person does."""
    for file in files:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a picture").click()
        chooser.value.set_files(file)


def say(page: Page, words: str) -> None:
    page.get_by_role("searchbox").fill(words)
    page.get_by_role("searchbox").press("Enter")


def results(page: Page) -> Locator:
    return page.get_by_role("listitem")


def products(page: Page) -> list[str | None]:
    return [one.get_attribute("data-product-id") for one in results(page).all()]


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def error(page: Page) -> Locator:
    return page.get_by_role("alert")


def finds(page: Page, product: str, count: int = 6) -> None:
    expect(results(page)).to_have_count(count, timeout=PATIENCE)
    expect(results(page).first).to_have_attribute("data-product-id", product, timeout=PATIENCE)
    expect(error(page)).to_have_text("")


def asked(request: Request) -> Any:
    return json.loads(request.post_data or "null")


@needs_chromium
def test_the_page_of_the_documentation_searches_as_it_stands(served: Shop, browser: Browser) -> None:
    text = example("html")
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
    text = text.replace(DOCUMENTED, served.process.url).replace("twinlens-search.EXAMPLE", served.key)
    assert served.process.url in text
    assert served.key in text
    with shopping(browser, served, text) as page:
        page.get_by_role("button", name="Search by picture").click()
        choose(page, VIOLIN)
        finds(page, "violin")
        expect(results(page).first).to_contain_text("100.0 %, same picture")
        expect(status(page)).to_have_text("6 matches")
        image = page.locator("twinlens-search").locator("li img").first
        wait_until(page, "image => image.complete && image.naturalWidth === 256", image.element_handle())
        preview = page.locator("twinlens-search").locator("canvas")
        expect(preview).to_be_visible()
        drawn = "one => one.getContext('2d').getImageData(56, 56, 1, 1).data[3]"
        wait_until(page, drawn, preview.element_handle())
        assert served.key not in page.url
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@needs_chromium
def test_words_have_a_rank_and_no_percentage(page: Page) -> None:
    say(page, "a violin")
    finds(page, "violin")
    said = [one.locator("[part=match]").inner_text().split(", ") for one in results(page).all()]
    assert [rank for rank, *_ in said] == [f"No. {rank}" for rank in range(1, 7)]
    assert {grade for _, *grades in said for grade in grades} <= {"similar", "weak"}
    assert "%" not in page.locator("twinlens-search").locator("dialog").inner_text()


@needs_chromium
def test_pictures_are_dropped_and_pasted(page: Page) -> None:
    host = page.locator("twinlens-search")
    send = """(target, [type, data]) => {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "a.webp", { type: "image/webp" }));
        const how = { bubbles: true, composed: true, cancelable: true };
        const made = type === "paste"
            ? new ClipboardEvent("paste", { clipboardData: carried, ...how })
            : new DragEvent(type, { dataTransfer: carried, ...how });
        target.dispatchEvent(made);
        return made.defaultPrevented;
    }"""
    violin, keyboard, drum = (_base64(picture(one)) for one in ("violin", "keyboard", "drum"))
    assert host.locator("dialog").evaluate(send, ["dragover", violin])
    assert host.locator("dialog").evaluate(send, ["drop", violin])
    finds(page, "violin")
    assert page.locator("body").evaluate(send, ["paste", keyboard])
    finds(page, "keyboard")
    page.keyboard.press("Escape")
    expect(host.locator("dialog")).not_to_be_visible()
    assert not page.locator("body").evaluate(send, ["paste", violin]), "it listens only while it is open"
    # On the button itself, which opens the dialog.
    assert host.locator("[part=button]").evaluate(send, ["drop", drum])
    finds(page, "drum")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@needs_chromium
def test_a_match_leads_on_and_back_and_words_change_what_a_picture_asks_for(page: Page, served: Shop) -> None:
    choose(page, VIOLIN)
    finds(page, "violin")
    with page.expect_request("**/v1/search") as sent:
        page.get_by_role("button", name="More like this: Teapot").click()
    assert asked(sent.value) == {"limit": 24, "mediaId": served.media["teapot"]}
    finds(page, "teapot")
    expect(status(page)).to_be_focused()  # what had it is gone
    with page.expect_request("**/v1/search") as sent:
        say(page, "in red")
    assert asked(sent.value) == {
        "limit": 24,
        "query": [{"mediaId": served.media["teapot"]}, {"text": "in red", "weight": 2}],
    }
    expect(results(page).first).to_contain_text("No. 1")
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.get_by_role("searchbox")).to_have_value("in red")
    expect(page.get_by_role("button", name="Remove the picture")).to_have_count(0)
    for first in (None, "teapot", "violin"):
        page.get_by_role("button", name="Back").click()
        expect(results(page)).to_have_count(6, timeout=PATIENCE)
        if first:
            finds(page, first)
    expect(page.get_by_role("button", name="Back")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("")


@needs_chromium
def test_attributes_and_properties_say_what_is_asked_for(served: Shop, browser: Browser) -> None:
    attributes = """limit="2" min-similarity="10" filter='{"attributes": {"category": "music"}}' theme="dark" """
    with shopping(browser, served, element(served, attributes)) as page:
        host = page.locator("twinlens-search")
        page.get_by_role("button", name="Search by picture").click()
        choose(page, VIOLIN)
        finds(page, "violin", 2)
        assert set(products(page)) <= {"violin", "accordion", "drum"}
        with page.expect_request("**/v1/search") as sent:
            page.get_by_role("button", name="Remove the picture").click()
            say(page, "a violin")
        assert asked(sent.value) == {"limit": 2, "text": "a violin", "filter": {"attributes": {"category": "music"}}}
        host.evaluate("""one => {
            one.filter = { attributes: { category: "office" } };
            one.limit = 10;
            one.minSimilarity = null;
        }""")
        assert host.evaluate("one => [one.filter.attributes.category, one.limit, one.minSimilarity, one.theme]") == [
            "office",
            "10",
            None,
            "dark",
        ]
        with page.expect_request("**/v1/search") as sent:
            host.evaluate("one => { one.search({ text: 'keys' }) }")
        assert asked(sent.value) == {"limit": 10, "text": "keys", "filter": {"attributes": {"category": "office"}}}
        expect(results(page)).to_have_count(2, timeout=PATIENCE)


@needs_chromium
def test_a_slower_answer_never_takes_the_place_of_a_newer(page: Page) -> None:
    """Also where the browser has the older answer already, and nothing could be aborted any more."""
    page.evaluate("""() => {
        const real = window.fetch;
        window.held = [];
        window.fetch = async (address, { signal, ...options }) => {
            const answer = await real(address, options);
            if (String(options.body).includes("first")) await new Promise((go) => window.held.push(go));
            return answer;
        };
    }""")
    say(page, "first a violin")
    wait_until(page, "window.held.length === 1")
    say(page, "keyboard")
    finds(page, "keyboard")
    shown = products(page)
    page.evaluate("() => window.held.forEach((go) => go())")
    page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
    assert products(page) == shown
    expect(page.get_by_role("searchbox")).to_have_value("keyboard")


@needs_chromium
def test_an_upload_is_cancelled_and_what_was_shown_stays(page: Page) -> None:
    choose(page, VIOLIN)
    finds(page, "violin")
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route))
    with page.expect_event("requestfailed", lambda request: "/v1/search" in request.url):
        choose(page, KEYBOARD)
        page.get_by_role("button", name="Cancel").click()
    expect(status(page)).to_have_text("Cancelled.")
    finds(page, "violin")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.unroute("**/v1/search")
    choose(page, KEYBOARD)
    finds(page, "keyboard")


@needs_chromium
def test_what_is_wrong_is_said_in_a_sentence_and_told_the_page(page: Page, served: Shop) -> None:
    host = page.locator("twinlens-search")
    host.evaluate("""one => {
        window.told = [];
        one.addEventListener("error", ({ detail }) => window.told.push([detail.code, detail.status, detail.message]));
        one.addEventListener("results", ({ detail }) => window.told.push(["results", detail.results.length]));
    }""")
    choose(page, TEXT_FILE)
    expect(error(page)).to_have_text("That file is not a picture.")
    choose(page, DAMAGED)
    expect(error(page)).to_contain_text("The upload is not a picture in a format we read", timeout=PATIENCE)
    choose(page, {**VIOLIN, "buffer": b"\x89PNG\r\n\x1a\n" + bytes(1_500_000)})
    expect(error(page)).to_contain_text("larger than this server accepts", timeout=PATIENCE)
    expect(status(page)).to_have_text("")

    host.evaluate("one => { one.texts = { errors: { key_invalid: 'Bitte laden Sie die Seite neu.' } } }")
    host.evaluate("one => { one.searchKey = 'wrong' }")
    say(page, "a violin")
    expect(error(page)).to_have_text("Bitte laden Sie die Seite neu.")
    expect(results(page)).to_have_count(0)
    host.evaluate("(one, key) => { one.searchKey = key }", served.key)
    page.route("**/v1/search", lambda route: route.abort())
    page.get_by_role("button", name="Try again").click()
    expect(error(page)).to_contain_text("could not be reached")
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    finds(page, "violin")
    host.evaluate("one => { one.filter = '{' }")
    say(page, "keys")
    expect(error(page)).to_contain_text("not JSON: filter")
    host.evaluate("one => { one.filter = null; one.endpoint = null }")
    page.get_by_role("button", name="Try again").click()
    expect(error(page)).to_contain_text("does not know its server")
    told = page.evaluate("window.told")
    assert [one[:2] for one in told] == [
        ["not_a_picture", 0],
        ["not_a_picture", 415],
        ["upload_too_large", 413],
        ["key_invalid", 401],
        ["unreachable", 0],
        ["results", 6],
        ["not_json", 0],
        ["no_endpoint", 0],
    ]


@needs_chromium
def test_more_matches_come_page_by_page_and_each_product_once(served: Shop, browser: Browser) -> None:
    with served.process.client() as client:
        headers, file = {"Authorization": f"Bearer {served.write}"}, {"file": picture("teapot")}
        added = client.post("/v1/products/violin/media", files=file, headers=headers).raise_for_status().json()["id"]
    try:
        with shopping(browser, served, element(served, 'limit="2" group-by="product"')) as page:
            page.get_by_role("button", name="Search by picture").click()
            choose(page, VIOLIN)
            finds(page, "violin", 2)
            more = page.get_by_role("button", name="Show more")
            more.click()
            expect(results(page)).to_have_count(4, timeout=PATIENCE)
            expect(results(page).nth(2).get_by_role("button").first).to_be_focused()
            expect(status(page)).to_have_text("4 matches")
            more.click()
            expect(results(page)).to_have_count(6, timeout=PATIENCE)
            expect(more).to_have_count(0)
            assert set(products(page)) == {"violin", "accordion", "drum", "keyboard", "notebook", "teapot"}
            say(page, "keyboard")
            expect(more).to_be_visible(timeout=PATIENCE)
            more.click()
            expect(results(page).nth(2)).to_contain_text("No. 3", timeout=PATIENCE)
    finally:
        with served.process.client() as client:
            client.delete(f"/v1/media/{added}", headers=headers).raise_for_status()


@needs_chromium
def test_a_page_hears_which_match_was_chosen(page: Page, served: Shop) -> None:
    page.locator("twinlens-search").evaluate("""() => document.body.addEventListener("select", (event) => {
        window.chosen = [event.detail.productId, event.detail.mediaId, event.cancelable];
    })""")
    choose(page, VIOLIN)
    finds(page, "violin")
    results(page).first.get_by_role("button", name="Violin").first.click()
    assert page.evaluate("window.chosen") == ["violin", served.media["violin"], True]


@needs_chromium
def test_cards_are_links_with_prices_where_the_key_shows_them(served: Shop, browser: Browser) -> None:
    address = served.site.put("/violin.html", "<!doctype html><title>Our violin</title>")
    with served.process.client() as client:
        headers = {"Authorization": f"Bearer {served.write}"}
        change = {"attributes": {"url": address}}
        client.patch("/v1/products/violin", json=change, headers=headers).raise_for_status()
    attributes = 'fields="url" price="price" currency="EUR" lang="de-AT"'
    with shopping(browser, served, element(served, attributes)) as page:
        page.get_by_role("button", name="Search by picture").click()
        choose(page, VIOLIN)
        finds(page, "violin")
        link = results(page).first.get_by_role("link", name="Violin")
        assert link.locator("[part=price]").inner_text().replace("\xa0", " ") == "€ 500,00"
        assert results(page).nth(1).get_by_role("link").count() == 0, "a product without an address is a button"
        page.evaluate(
            """() => document.addEventListener("select", (event) => event.preventDefault(), { once: true })"""
        )
        link.click()
        expect(page).to_have_title("A shop")
        link.click()
        expect(page).to_have_title("Our violin")
    with shopping(browser, served, element(served, 'fields="sku"')) as page:
        page.get_by_role("button", name="Search by picture").click()
        say(page, "a violin")
        expect(error(page)).to_contain_text("does not show sku", timeout=PATIENCE)


@needs_chromium
def test_it_is_used_with_the_keyboard_alone(served: Shop, browser: Browser) -> None:
    with shopping(browser, served, element(served)) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Search by picture")).to_be_visible()
        expect(page.get_by_role("button", name="Choose a picture")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.type("a violin")
        page.keyboard.press("Enter")
        finds(page, "violin")
        page.get_by_role("button", name="More like this: Violin").focus()
        page.keyboard.press("Enter")
        expect(results(page).first).to_contain_text("100.0 %", timeout=PATIENCE)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Search by picture")).to_be_focused()


@needs_chromium
def test_texts_slots_and_language_are_the_pages(served: Shop, browser: Browser) -> None:
    texts = {
        "button": "x",
        "title": "Suche mit Bild",
        "choose": "Bild wählen",
        "words": "Worte",
        "matches": {"one": "ein Treffer", "other": "{count} Treffer"},
        "grades": {"identical": "dasselbe Bild"},
    }
    inside = """<span slot="label">Mit Foto</span><b slot="empty">Leider nichts.</b>"""
    attributes = f"""lang="de" min-similarity="99.99" texts='{json.dumps(texts)}' """
    with shopping(browser, served, element(served, attributes, inside)) as page:
        page.get_by_role("button", name="Mit Foto").click()
        expect(page.get_by_role("dialog", name="Suche mit Bild")).to_be_visible()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Bild wählen").click()
        chooser.value.set_files(VIOLIN)
        expect(status(page)).to_have_text("ein Treffer", timeout=PATIENCE)
        expect(results(page).first).to_contain_text("100,0 %, dasselbe Bild")
        page.locator("twinlens-search").evaluate("""one => { one.filter = { attributes: { category: "none" } } }""")
        page.get_by_role("button", name="Remove the picture").click()
        say(page, "violin")
        expect(page.get_by_text("Leider nichts.")).to_be_visible(timeout=PATIENCE)


@needs_chromium
def test_it_is_dark_where_the_page_is_and_light_where_the_page_is(served: Shop, browser: Browser) -> None:
    surface = "one => getComputedStyle(one.shadowRoot.querySelector('dialog')).backgroundColor"
    dark, light = "rgb(27, 28, 31)", "rgb(255, 255, 255)"
    for theme, expected in (("", light), ('theme="auto"', dark), ('theme="dark"', dark), ('theme="light"', light)):
        with shopping(browser, served, element(served, theme), color_scheme="dark") as page:
            assert page.locator("twinlens-search").evaluate(surface) == expected, theme


@needs_chromium
def test_words_are_asked_for_by_grade_only_where_the_model_has_grades_for_them(
    served: Shop, browser: Browser, postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    asked_for = 'min-grade="similar"'
    with shopping(browser, served, element(served, asked_for)) as page:
        watch_grades(page)
        page.get_by_role("button", name="Search by picture").click()
        say(page, "a keyboard")
        expect(results(page)).to_have_count(1, timeout=PATIENCE)
        expect(results(page).first).to_contain_text("No. 1, similar")
        say(page, "keyboards")
        finds(page, "keyboard", 1)
        assert graded(page) == [False, True, True]

    model = tmp_path / "ungraded"
    shutil.copytree(STARTER, model)
    manifest = json.loads((model / "manifest.json").read_bytes())
    for variant in manifest["precisions"].values():
        variant["textGrades"] = variant["textGrading"] = None
    rewrite_manifest(model, manifest)
    with (
        shop(postgres_url, template_database, tmp_path, model) as other,
        shopping(browser, other, element(other, asked_for)) as page,
    ):
        watch_grades(page)
        page.get_by_role("button", name="Search by picture").click()
        say(page, "a violin")
        finds(page, "violin")
        say(page, "keyboard")
        finds(page, "keyboard")
        choose(page, VIOLIN)
        expect(results(page)).not_to_have_count(6, timeout=PATIENCE)
        assert graded(page) == [False, False, True]


def graded(page: Page) -> list[bool]:
    """Whether each search since `watch_grades` has named the least grade."""
    found: list[bool] = page.evaluate("window.graded")
    return found


def watch_grades(page: Page) -> None:
    page.evaluate("""() => {
        const real = window.fetch;
        window.graded = [];
        window.fetch = (address, options) => {
            const { body } = options;
            window.graded.push(body instanceof FormData ? body.has("minGrade") : "minGrade" in JSON.parse(body));
            return real(address, options);
        };
    }""")


# --- with what npm has -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("modules"))


@pytest.mark.slow  # it installs packages
@needs_npm
@needs_chromium
def test_the_examples_for_react_and_vue_work_as_they_stand(served: Shop, browser: Browser, modules: Path) -> None:
    for language in ("jsx", "vue"):
        text = example(language)
        assert len(text.splitlines()) <= 12
        (modules / f"PictureSearch.{language}").write_text(text.replace(DOCUMENTED, served.process.url))
    run("node", "build.mjs", folder=modules)
    rendered = run("node", "built/server.js", folder=modules)
    assert rendered.strip() == f'<twinlens-search endpoint="{served.process.url}" search-key="a key"></twinlens-search>'
    policy = f"default-src 'none'; script-src 'self'; connect-src {served.process.url}; img-src {served.process.url}"
    for framework in ("react", "vue"):
        served.site.put(f"/{framework}.js", (modules / "built" / f"{framework}.js").read_bytes())
        text = f"""<!doctype html><html lang="en"><title>A shop</title><body data-search-key="{served.key}">
            <main></main><script type="module" src="{framework}.js"></script>"""
        with shopping(browser, served, text, policy=policy) as page:
            page.get_by_role("button", name="Search by picture").click()
            choose(page, VIOLIN)
            finds(page, "violin")
            results(page).first.get_by_role("button", name="Violin").first.click()
            expect(page).to_have_title("violin")
            expect(page.get_by_role("dialog")).to_have_count(0 if framework == "react" else 1)


@pytest.mark.slow  # it installs packages
@needs_npm
@needs_chromium
def test_axe_finds_nothing_to_complain_of(served: Shop, browser: Browser, modules: Path) -> None:
    axe = (modules / "node_modules" / "axe-core" / "axe.min.js").read_text()
    look = """async () => (await axe.run({ runOnly: { type: "tag", values: [
        "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] } })).violations
            .map(({ id, nodes }) => [id, nodes.map((node) => node.html)])"""
    for theme in ("light", "dark"):
        with shopping(browser, served, element(served, f'theme="{theme}"')) as page:
            page.evaluate(axe)
            assert page.evaluate(look) == []
            page.get_by_role("button", name="Search by picture").click()
            assert page.evaluate(look) == []
            choose(page, VIOLIN)
            finds(page, "violin")
            assert page.evaluate(look) == []
            say(page, "in red")
            expect(results(page).first).to_contain_text("No. 1", timeout=PATIENCE)
            assert page.evaluate(look) == []
            choose(page, DAMAGED)
            expect(error(page)).to_contain_text("not a picture", timeout=PATIENCE)
            assert page.evaluate(look) == []
