"""The page in a real browser: a picture or words go in, and the matches stand beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support.browsers import launched, needs_chromium, wait_until
from tests.support.prefix_proxy import proxied
from tests.support.process import Process, Serve
from tests.support.serving import NewShop

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def browsing(browser: Browser, process: Process, address: str | None = None) -> Iterator[Page]:
    """The page as somebody sees it who has never been there; nothing is wrong on it that a console would show.

    `address`: where it is shown, if not at the server's own. It asks for nothing at any other server.
    """
    complaints: list[str] = []
    origin = urlsplit(address or process.url)[:2]

    def read(line: ConsoleMessage) -> None:
        if "Content Security" in line.text:
            complaints.append(line.text)

    def asks(url: str) -> None:
        if not url.startswith(("blob:", "data:")) and urlsplit(url)[:2] != origin:
            complaints.append(f"asks for {url}")

    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", read)
        page.on("request", lambda request: asks(request.url))
        page.goto(address or process.url)
        yield page
    assert complaints == []


@contextmanager
def served(new_shop: NewShop, *flags: str, **options: Any) -> Iterator[Process]:
    """A server with the demo catalogue; the page only asks, so that many tests can share one."""
    with new_shop() as shop:
        process = Process(shop.data, "--demo", "on", "--database-url", shop.database_url, *flags, **options)
        try:
            yield process.ready()
        finally:
            process.stop()


@pytest.fixture(scope="module")
def server(new_shop: NewShop) -> Iterator[Process]:
    with served(new_shop, "--max-upload", "3MB") as process:
        yield process


@pytest.fixture(scope="module")
def words_server(new_shop: NewShop, with_words: Path) -> Iterator[Process]:
    with served(new_shop, model=with_words) as process:
        yield process


@pytest.fixture
def page(server: Process, browser: Browser) -> Iterator[Page]:
    with browsing(browser, server) as page:
        yield page


@pytest.fixture
def reading(words_server: Process, browser: Browser) -> Iterator[Page]:
    """The page of a model that reads words."""
    with browsing(browser, words_server) as page:
        yield page


def search_state(page: Page, state: str) -> None:
    expect(page.get_by_test_id("results")).to_have_attribute("data-state", state, timeout=20_000)


def no_sideways_scrolling(page: Page) -> None:
    assert page.viewport_size is not None
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_a_picture_is_searched_and_its_matches_are_shown(page: Page, tmp_path: Path) -> None:
    chosen, matches = page.get_by_test_id("file-input"), page.get_by_test_id("result")
    no_sideways_scrolling(page)

    chosen.set_input_files(DEMO_PICTURES / "keyboard.webp")
    search_state(page, "done")
    expect(matches).to_have_count(24)
    expect(matches.first).to_have_attribute("data-product-id", "demo-keyboard")
    expect(page.get_by_test_id("result-name").first).to_have_text("Keyboard")
    expect(page.get_by_test_id("result-similarity").first).to_have_text("100.0 %")
    expect(page.get_by_test_id("result-grade").first).to_have_text("same picture")
    expect(page.get_by_test_id("query-picture")).to_be_visible()
    thumbnail = page.get_by_test_id("result-thumbnail").first
    expect(thumbnail).to_be_visible()
    wait_until(page, "image => image.complete && image.naturalWidth === 256", thumbnail.element_handle())
    no_sideways_scrolling(page)

    # A match is a way on: the pictures that are like it.
    second = matches.nth(1)
    media_id, name = second.get_attribute("data-media-id"), page.get_by_test_id("result-name").nth(1).inner_text()
    second.click()
    expect(matches.first).to_have_attribute("data-media-id", media_id, timeout=20_000)
    expect(page.get_by_test_id("query-name")).to_have_text(name)
    expect(page.get_by_test_id("result-similarity").first).to_have_text("100.0 %")

    # Errors are the server's sentences.
    text = tmp_path / "photo.jpg"
    text.write_text("no picture at all")
    chosen.set_input_files(text)
    search_state(page, "failed")
    expect(page.get_by_test_id("error")).to_contain_text("The upload is not a picture in a format we read")
    expect(page.get_by_test_id("error")).to_contain_text("Choose a photo or a drawing")
    expect(page.get_by_test_id("retry")).to_be_hidden()
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(20_000_000))
    chosen.set_input_files(large)
    expect(page.get_by_test_id("error")).to_contain_text("larger than this server accepts", timeout=20_000)
    no_sideways_scrolling(page)

    # And the next picture works; nothing above the bound is an empty list.
    page.get_by_test_id("min-similarity").fill("99.9")
    chosen.set_input_files(PHOTOGRAPHS / "raccoon.jpg")
    search_state(page, "done")
    expect(matches).to_have_count(0)
    expect(page.get_by_test_id("status")).to_contain_text("Nothing in this catalogue is at least 99.9 % similar.")

    page.set_viewport_size({"width": 1400, "height": 900})
    page.get_by_test_id("min-similarity").fill("0")
    expect(matches).to_have_count(24, timeout=20_000)
    picture, first = page.get_by_test_id("query-picture").bounding_box(), matches.first.bounding_box()
    assert picture is not None
    assert first is not None
    assert picture["x"] + picture["width"] <= first["x"], "on a wide screen the picture stands beside its matches"
    no_sideways_scrolling(page)


def test_a_picture_may_be_dropped_or_pasted(page: Page, server: Process) -> None:
    give = """async ([how, address]) => {
        const bytes = await (await fetch(address)).blob();
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "given.webp", { type: "image/webp" }));
        const event = how === "drop" ? new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    page.get_by_test_id("file-input").set_input_files(DEMO_PICTURES / "notebook.webp")
    search_state(page, "done")
    address = page.get_by_test_id("result-thumbnail").nth(2).get_attribute("src")
    names = page.get_by_test_id("result-name")
    third = names.nth(2).inner_text()
    for how in ("drop", "paste"):
        page.goto(server.url)
        page.evaluate(give, [how, address])
        search_state(page, "done")
        expect(names.first).to_have_text(third)
        expect(page.get_by_test_id("query-name")).to_have_text("given.webp")


def test_words_are_searched_and_their_matches_are_shown(reading: Page) -> None:
    page = reading
    words = page.get_by_role("searchbox", name="What are you looking for, in words")
    matches, names = page.get_by_test_id("result"), page.get_by_test_id("result-name")
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "Find a product by words or by its picture", use_inner_text=True
    )
    no_sideways_scrolling(page)

    # With the keyboard alone.
    page.keyboard.press("/")
    expect(words).to_be_focused()
    expect(words).to_have_value("")
    page.keyboard.type(" Violin ")
    page.keyboard.press("Enter")
    search_state(page, "done")
    expect(matches).to_have_count(24)
    expect(names.first).to_have_text("Violin")
    # A cosine of words with a picture is no likeness, so that no percentage is shown: only the order.
    expect(page.get_by_test_id("result-rank").first).to_have_text("No. 1")
    expect(matches.first).not_to_contain_text("%")
    expect(matches.first).not_to_contain_text("Exact match")
    expect(page.get_by_test_id("min-similarity")).to_be_hidden()
    expect(page).to_have_title("Violin – Twinlens")
    expect(page.get_by_test_id("query-picture")).to_be_hidden()
    assert page.url.endswith("/?text=Violin")
    no_sideways_scrolling(page)

    # A match is a way on to a picture, and the way back leads to the words.
    matches.nth(1).click()
    expect(page.get_by_test_id("query-picture")).to_be_visible(timeout=20_000)
    expect(words).to_have_value("")
    page.go_back()
    expect(words).to_have_value("Violin")
    expect(names.first).to_have_text("Violin", timeout=20_000)

    # Words after a picture after words.
    page.get_by_test_id("file-input").set_input_files(DEMO_PICTURES / "keyboard.webp")
    expect(names.first).to_have_text("Keyboard", timeout=20_000)
    expect(words).to_have_value("")
    words.fill("teapot")
    page.get_by_test_id("text-search").click()
    expect(names.first).to_have_text("Teapot", timeout=20_000)
    expect(page.get_by_test_id("query-picture")).to_be_hidden()

    # An address with words can be sent to somebody, and survives a reload.
    words.fill("teapot violin")
    words.press("Enter")
    expect(page).to_have_title("teapot violin – Twinlens")
    search_state(page, "done")
    page.reload()
    expect(words).to_have_value("teapot violin")
    expect(matches).to_have_count(24, timeout=20_000)

    # What the server has to say is said here.
    words.fill("x" * 10_001)
    words.press("Enter")
    expect(page.get_by_test_id("error")).to_contain_text("at most 10,000", timeout=20_000)
    no_sideways_scrolling(page)
    page.set_viewport_size({"width": 1400, "height": 900})
    no_sideways_scrolling(page)


def test_nothing_is_searched_while_the_box_is_empty_and_a_slash_may_be_typed(reading: Page) -> None:
    page, words = reading, reading.get_by_test_id("text")
    for text in ("", "   "):
        words.fill(text)
        words.press("Enter")
        expect(page.get_by_test_id("results")).to_have_attribute("data-state", "idle")
        expect(words).to_be_focused()
    words.fill("")
    page.keyboard.type("tea/pot")
    expect(words).to_have_value("tea/pot")


def test_pasted_text_goes_into_the_box_and_waits_there(reading: Page) -> None:
    give = """text => {
        const carried = new DataTransfer();
        carried.setData("text/plain", text);
        const event = new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    reading.evaluate(give, " bicycle\n")
    expect(reading.get_by_test_id("text")).to_have_value("bicycle")
    expect(reading.get_by_test_id("text")).to_be_focused()
    expect(reading.get_by_test_id("results")).to_have_attribute("data-state", "idle")


def test_a_model_that_knows_no_words_has_a_page_without_a_box_for_them(
    serve: Serve, database_url: str, image_only: Path, browser: Browser
) -> None:
    with browsing(browser, serve("--database-url", database_url, model=image_only).ready()) as page:
        expect(page.get_by_test_id("text")).to_be_hidden()
        expect(page.get_by_role("heading", level=1)).to_have_text("Find a product by its picture", use_inner_text=True)
        expect(page.get_by_test_id("file-input")).to_be_attached()
        no_sideways_scrolling(page)
        page.goto(f"{page.url}?text=violin")
        expect(page.get_by_test_id("error")).to_contain_text("has no text tower", timeout=20_000)


# --- below a prefix ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "named", "address"),
    [
        pytest.param("/search", False, "/search/", id="no prefix named"),
        pytest.param("/shop/de-AT/search", True, "/shop/de-AT/search", id="no slash at the end"),
    ],
)
def test_below_a_prefix_a_picture_finds_its_matches_with_their_thumbnails(
    server: Process, browser: Browser, prefix: str, named: bool, address: str
) -> None:
    with proxied(server.url, prefix, named=named) as proxy, browsing(browser, server, proxy.url + address) as page:
        expect(page.locator(".brand img")).to_have_js_property("naturalWidth", 150)
        page.get_by_test_id("file-input").set_input_files(DEMO_PICTURES / "keyboard.webp")
        search_state(page, "done")
        expect(page.get_by_test_id("result")).to_have_count(24)
        thumbnail = page.get_by_test_id("result-thumbnail").first
        wait_until(page, "image => image.complete && image.naturalWidth === 256", thumbnail.element_handle())

        # A match is a page of its own, also in a new tab and after a reload.
        link = page.get_by_test_id("result").nth(1).get_by_role("link").evaluate("link => link.href")
        assert link.startswith(f"{proxy.url}{prefix}/?mediaId=")
        page.goto(link)
        search_state(page, "done")
        expect(page.get_by_test_id("result-similarity").first).to_have_text("100.0 %")
        page.reload()
        search_state(page, "done")

        page.get_by_role("link", name="Twinlens").click()
        search_state(page, "idle")
        assert page.url == f"{proxy.url}{prefix}/"
        described = page.get_by_role("link", name="API").evaluate("link => link.href")
        assert described == f"{proxy.url}{prefix}/schema/swagger"
        assert proxy.strays == []


@pytest.mark.parametrize(("prefix", "slash"), [("", ""), ("/search", "/")])
def test_the_page_of_the_api_tries_a_call_with_nothing_from_elsewhere(
    server: Process, browser: Browser, prefix: str, slash: str
) -> None:
    with (
        proxied(server.url, prefix, named=False) as proxy,
        browsing(browser, server, f"{proxy.url}{prefix}/schema/swagger{slash}") as page,
    ):
        call = page.locator("#operations-products-getProduct")
        call.get_by_role("button").first.click(timeout=60_000)
        call.get_by_role("button", name="Try it out").click()
        call.get_by_role("row", name="productId").get_by_role("textbox").fill("demo-keyboard")
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table")).to_contain_text('"name": "Keyboard"', timeout=60_000)
        expect(call.locator(".request-url").first).to_contain_text(f"{proxy.url}{prefix}/v1/products/demo-keyboard")
        assert proxy.strays == []
