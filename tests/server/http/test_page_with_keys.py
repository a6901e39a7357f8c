"""The page where keys are on: it asks for one, keeps it in its tab, and tells it nobody but the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FilePayload, Page, expect

from tests.support.access import fill, picture
from tests.support.browsers import launched, needs_chromium, wait_until
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.prefix_proxy import proxied
from tests.support.process import Process
from twinlens import derive_search_key

pytestmark = needs_chromium

PATIENCE = 30_000
VIOLIN: FilePayload = {"name": "violin.webp", "mimeType": "image/webp", "buffer": picture("violin")}


class Keyed(NamedTuple):
    process: Process
    key: str
    media: dict[str, str]


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with fresh_database(postgres_url, template_database) as url:
        key, write = new_key(url, "search").key, new_key(url, "read,write").key
        process = Process(tmp_path_factory.mktemp("keyed"), "--database-url", url)
        try:
            process.ready()
            with process.client() as client:
                media = fill(client, write)
            yield Keyed(process, key, media)
        finally:
            process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def browsing(browser: Browser, address: str, key: str) -> Iterator[Page]:
    """A page on which nothing is wrong, and from which the key goes nowhere but into headers."""
    complaints: list[str] = []

    def read(line: ConsoleMessage) -> None:
        if "Content Security" in line.text or key in line.text:
            complaints.append(line.text)

    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", read)
        context.on("request", lambda request: complaints.append(request.url) if key in request.url else None)
        page.goto(address)
        yield page
        assert key not in page.url
        assert key not in page.content()
        assert _kept(context, page, key) == ([], []), "in localStorage, or in a cookie"
    assert complaints == []


def _kept(context: BrowserContext, page: Page, key: str) -> tuple[list[str], list[object]]:
    stored: list[str] = page.evaluate("Object.values(localStorage)")
    return [one for one in stored if key in one], list(context.cookies())


def give(page: Page, key: str) -> None:
    """By the keyboard alone: the field has the focus."""
    expect(page.get_by_label("This catalogue needs a key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def matches_first(page: Page, product: str) -> None:
    expect(page.get_by_test_id("result").first).to_have_attribute("data-product-id", product, timeout=PATIENCE)


def test_a_key_is_asked_for_kept_for_the_tab_and_forgotten(keyed: Keyed, browser: Browser) -> None:
    with browsing(browser, keyed.process.url, keyed.key) as page:
        panel, error, forget = (page.get_by_test_id(name) for name in ("key-panel", "key-error", "forget-key"))
        expect(panel).to_be_visible()
        expect(page.get_by_test_id("key")).to_have_attribute("type", "password")
        expect(page.get_by_test_id("file-input")).to_be_hidden()
        expect(forget).to_be_hidden()

        # What is no key, and what is none of this server's: its sentence, and the field again.
        give(page, "not the key")
        expect(error).to_contain_text("That is no key")
        page.get_by_test_id("key").fill(keyed.key[:-1] + ("A" if keyed.key[-1] != "A" else "B"))
        page.keyboard.press("Enter")
        expect(error).to_contain_text("The key is unknown, revoked or expired.", timeout=PATIENCE)
        expect(panel).to_be_visible()
        page.get_by_test_id("key").fill("")

        give(page, keyed.key)
        expect(panel).to_be_hidden(timeout=PATIENCE)
        expect(forget).to_be_visible()
        page.get_by_test_id("file-input").set_input_files(VIOLIN)
        matches_first(page, "violin")
        thumbnail = page.get_by_test_id("result-thumbnail").first
        wait_until(page, "image => image.complete && image.naturalWidth === 256", thumbnail.element_handle())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        # A match is a way on, with the picture that is searched with; and a reload needs no key.
        page.get_by_test_id("result").nth(1).click()
        expect(page.get_by_test_id("query-picture")).to_be_visible(timeout=PATIENCE)
        wait_until(page, "document.getElementById('query-picture').naturalWidth === 256")
        page.reload()
        expect(page.get_by_test_id("result")).to_have_count(6, timeout=PATIENCE)
        wait_until(page, "document.getElementById('query-picture').naturalWidth === 256")
        expect(panel).to_be_hidden()

        # Forgotten, nothing of the catalogue is left on the page.
        forget.click()
        expect(panel).to_be_visible()
        expect(forget).to_be_hidden()
        expect(page.get_by_test_id("result")).to_have_count(0)
        assert page.evaluate("sessionStorage.length") == 0
        page.reload()
        expect(panel).to_be_visible()


def test_another_tab_knows_nothing_of_it_and_an_address_waits_for_the_key(keyed: Keyed, browser: Browser) -> None:
    address = f"{keyed.process.url}/?mediaId={keyed.media['teapot']}"
    with browsing(browser, address, keyed.key) as page:
        give(page, keyed.key)
        matches_first(page, "teapot")
        other = page.context.new_page()
        other.goto(address)
        expect(other.get_by_test_id("key-panel")).to_be_visible()
        expect(other.get_by_test_id("result")).to_have_count(0)
        other.close()


def test_a_key_that_ends_while_the_page_is_open_is_asked_for_again_and_the_search_goes_on(
    keyed: Keyed, browser: Browser
) -> None:
    with browsing(browser, keyed.process.url, keyed.key) as page:
        give(page, keyed.key)
        expect(page.get_by_test_id("key-panel")).to_be_hidden(timeout=PATIENCE)
        revoked = {"status": 401, "json": {"error": "The key is revoked.", "code": "key_invalid", "requestId": "1"}}
        page.route("**/v1/search*", lambda route: route.fulfill(**revoked))
        page.get_by_test_id("file-input").set_input_files(VIOLIN)
        expect(page.get_by_test_id("key-error")).to_have_text("The key is revoked.", timeout=PATIENCE)
        page.unroute("**/v1/search*")
        give(page, keyed.key)
        matches_first(page, "violin")


def test_a_search_key_narrows_the_page_too(keyed: Keyed, browser: Browser) -> None:
    key = derive_search_key(keyed.key, filter={"attributes": {"category": "music"}}, limit=2)
    with browsing(browser, keyed.process.url, key) as page:
        give(page, key)
        page.get_by_test_id("file-input").set_input_files(VIOLIN)
        matches_first(page, "violin")
        expect(page.get_by_test_id("result")).to_have_count(2)
        wait_until(page, "[...document.querySelectorAll('.result img')].every((one) => one.naturalWidth === 256)")


def test_below_a_prefix_the_key_is_asked_for_as_well(keyed: Keyed, browser: Browser) -> None:
    with (
        proxied(keyed.process.url, "/search", named=False) as proxy,
        browsing(browser, f"{proxy.url}/search/", keyed.key) as page,
    ):
        give(page, keyed.key)
        page.get_by_test_id("file-input").set_input_files(VIOLIN)
        matches_first(page, "violin")
        thumbnail = page.get_by_test_id("result-thumbnail").first
        wait_until(page, "image => image.complete && image.naturalWidth === 256", thumbnail.element_handle())
        assert proxy.strays == []
