"""Tasks of a shopper: what is done on the page, and what must be on it then. In a real browser, with the starter."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support.axe import Axe
from tests.support.browsers import launched, needs_chromium, wait_until
from tests.support.process import Process, until
from tests.support.serving import NewShop

pytestmark = needs_chromium

PATIENCE = 20_000
KEYBOARD = DEMO_PICTURES / "keyboard.webp"
VIOLIN = DEMO_PICTURES / "violin.webp"
SHOP_PAGE = "https://shop.example/keyboard"

Step = Callable[[Page], None]
Width = Literal[390, 900, 1600]


class Stall(NamedTuple):
    """A server with the demo catalogue, whose keyboard has two pictures more and a page in a shop."""

    process: Process
    media: dict[str, str]
    """The id of a media by its product's id."""


@pytest.fixture(scope="module")
def stall(new_shop: NewShop) -> Iterator[Stall]:
    with new_shop() as shop:
        process = Process(shop.data, "--demo", "on", "--database-url", shop.database_url, "--max-upload", "3MB")
        try:
            process.ready()
            with process.client() as client:
                dress(client)
                media = {
                    product: client.get(f"/v1/products/{product}/media").raise_for_status().json()["media"][0]["id"]
                    for product in ("demo-keyboard", "demo-violin", "demo-teapot")
                }
            yield Stall(process, media)
        finally:
            process.stop()


def dress(client: httpx.Client) -> None:
    """Two pictures more of the keyboard, seen from nearer and turned, and where the shop has it."""
    with Image.open(KEYBOARD) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    for other in (picture.rotate(10, fillcolor="white"), picture.crop((0, height // 6, width, height * 5 // 6))):
        client.post("/v1/products/demo-keyboard/media", files={"file": as_png(other)}).raise_for_status()
    client.patch("/v1/products/demo-keyboard", json={"attributes": {"url": SHOP_PAGE}}).raise_for_status()


def as_png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def noise(side: int) -> FilePayload:
    """A picture that no format makes small: its bytes are three times its pixels."""
    pixels = np.random.default_rng(7).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return {"name": "large.png", "mimeType": "image/png", "buffer": as_png(Image.fromarray(pixels))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def browsing(browser: Browser, url: str, width: int = 1600, **context: Any) -> Iterator[Page]:
    """The page; nothing has gone wrong in it that its own programs did not expect."""
    complaints: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, **context) as opened:
        page = opened.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(url)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    assert complaints == []


# --- what is done ----------------------------------------------------------------------------------------------------


def opened(**address: str) -> Step:
    """Somebody else's address. A product's id stands for its media's."""

    def step(page: Page) -> None:
        page.goto(page.url + "?" + "&".join(f"{name}={value}" for name, value in address.items()))
        settled(page)

    return step


def settled(page: Page) -> None:
    expect(page.get_by_test_id("results")).to_have_attribute("data-state", re.compile("done|failed"), timeout=PATIENCE)


def chosen(file: Path | FilePayload, by: str = "file-input") -> Step:
    def step(page: Page) -> None:
        page.get_by_test_id(by).set_input_files(file)
        settled(page)

    return step


def given(how: Literal["drop", "paste"]) -> Step:
    program = """async ([how, bytes]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([Uint8Array.from(bytes)], "given.webp", { type: "image/webp" }));
        const event = how === "drop" ? new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""

    def step(page: Page) -> None:
        page.evaluate(program, [how, list(VIOLIN.read_bytes())])
        settled(page)

    return step


def typed(text: str) -> Step:
    """With the keyboard alone."""

    def step(page: Page) -> None:
        page.keyboard.press("/")
        page.keyboard.type(text)

    return step


def pressed(*keys: str) -> Step:
    def step(page: Page) -> None:
        for key in keys:
            page.keyboard.press(key)

    return step


def asked(text: str) -> Step:
    def step(page: Page) -> None:
        typed(text)(page)
        page.keyboard.press("Enter")
        settled(page)

    return step


def beside(text: str) -> Step:
    def step(page: Page) -> None:
        page.get_by_test_id("refine-text").fill(text)
        page.get_by_test_id("refine-add").click()
        settled(page)

    return step


def clicked(testid: str, number: int = 0) -> Step:
    def step(page: Page) -> None:
        page.get_by_test_id(testid).nth(number).click()
        settled(page)

    return step


def focused(testid: str) -> Step:
    def step(page: Page) -> None:
        page.get_by_test_id(testid).focus()

    return step


def went(way: Literal["back", "reload"]) -> Step:
    def step(page: Page) -> None:
        page.go_back() if way == "back" else page.reload()

    return step


def filtered(attribute: str, value: str) -> Step:
    def step(page: Page) -> None:
        facet(page, attribute).get_by_role("button", name="All").click()
        facet(page, attribute).get_by_role("checkbox", name=re.compile(rf"^{value}\b")).check()
        settled(page)

    return step


def priced(least: str, most: str) -> Step:
    def step(page: Page) -> None:
        for name, figure in (("Price from", least), ("Price to", most)):
            facet(page, "price").get_by_label(name).fill(figure)
            page.keyboard.press("Tab")
            settled(page)

    return step


def facet(page: Page, attribute: str) -> Any:
    return page.locator(f'[data-testid=facet][data-attribute="{attribute}"]')


def dragged(corner: str, across: int, down: int) -> Step:
    def step(page: Page) -> None:
        box = page.get_by_test_id(corner).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 12, box["y"] + 12)
        page.mouse.down()
        page.mouse.move(box["x"] + 12 + across, box["y"] + 12 + down, steps=4)
        page.mouse.up()
        settled(page)

    return step


def scrolled(page: Page) -> None:
    settled(page)
    page.mouse.move(800, 500)
    page.mouse.wheel(0, 20_000)


def server_gone(page: Page) -> None:
    page.route("**/v1/search*", lambda route: route.abort("connectionrefused"))


def server_back(page: Page) -> None:
    page.unroute("**/v1/search*")


def tired_of_a_slow_upload(page: Page) -> None:
    """It is seen to go on, and cancelled."""
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    network.send("Network.emulateNetworkConditions", slow)
    page.get_by_test_id("file-input").set_input_files(noise(900))
    expect(page.get_by_test_id("sending")).to_be_visible()
    wait_until(page, "document.getElementById('sent').value > 0.05")
    page.keyboard.press("Escape")
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})


def a_slow_answer_and_then_another(page: Page) -> None:
    """What was asked first is answered last, long after its grey places would have come."""
    held: list[Route] = []
    page.route("**/v1/search*", lambda route: held.append(route))
    page.get_by_test_id("file-input").set_input_files(VIOLIN)
    wait_until(page, "document.body.dataset.state === 'searching'")
    page.unroute("**/v1/search*")
    page.get_by_test_id("file-input").set_input_files(KEYBOARD)
    settled(page)
    for route in held:
        route.continue_()
    page.wait_for_timeout(600)


# --- what must be on the page ----------------------------------------------------------------------------------------


def first(product: str, said: str | None = None) -> Step:
    def must(page: Page) -> None:
        match = page.get_by_test_id("result").first
        expect(match).to_have_attribute("data-product-id", product, timeout=PATIENCE)
        if said is not None:
            expect(match).to_contain_text(said)

    return must


def matches(count: int) -> Step:
    def must(page: Page) -> None:
        expect(page.get_by_test_id("result")).to_have_count(count, timeout=PATIENCE)
        expect(page.locator(".waiting")).to_have_count(0)

    return must


def parts(*names: str) -> Step:
    """Chips, with their weights behind the name."""

    def must(page: Page) -> None:
        expect(page.get_by_test_id("part")).to_have_count(len(names), timeout=PATIENCE)
        for number, name in enumerate(names):
            chip = page.get_by_test_id("part").nth(number)
            said = f"{chip.locator('.chip-name').inner_text()} {chip.get_by_test_id('part-weight').inner_text()}"
            assert said == name

    return must


def without_percentages(page: Page) -> None:
    expect(page.get_by_test_id("result-rank").first).to_have_text("No. 1")
    expect(page.get_by_test_id("results")).not_to_contain_text("%")


def address(**named: str | None) -> Step:
    """It has these, each matching; None: it has none of that name. `is_x` is `is.x`."""

    def fits(page: Page) -> bool:
        has = dict(parse_qsl(urlsplit(page.evaluate("location.href")).query, keep_blank_values=True))
        found = {name: has.get(name.replace("_", ".")) for name in named}
        return all(
            value is None if (pattern := named[name]) is None else value is not None and re.fullmatch(pattern, value)
            for name, value in found.items()
        )

    return lambda page: until(lambda: fits(page))


def said(text: str) -> Step:
    def must(page: Page) -> None:
        expect(page.locator("main")).to_contain_text(text, timeout=PATIENCE)

    return must


def there(testid: str) -> Step:
    def must(page: Page) -> None:
        expect(page.get_by_test_id(testid).first).to_be_visible(timeout=PATIENCE)

    return must


def not_there(testid: str) -> Step:
    def must(page: Page) -> None:
        expect(page.get_by_test_id(testid)).to_be_hidden(timeout=PATIENCE)

    return must


def has_focus(selector: str) -> Step:
    def must(page: Page) -> None:
        expect(page.locator(selector)).to_be_focused()

    return must


def in_the_box(text: str) -> Step:
    def must(page: Page) -> None:
        expect(page.get_by_test_id("text")).to_have_value(text)

    return must


def counted(attribute: str, value: str) -> Step:
    """As many matches as the filter's count says."""

    def must(page: Page) -> None:
        row = facet(page, attribute).get_by_test_id("facet-value").filter(has_text=re.compile(rf"^\s*{value}"))
        count = int(row.locator(".facet-count").inner_text())
        expect(page.get_by_test_id("result")).to_have_count(min(24, count), timeout=PATIENCE)

    return must


def less_than_a_page(page: Page) -> None:
    expect(page.get_by_test_id("show-all")).to_be_visible(timeout=PATIENCE)
    assert 0 < page.get_by_test_id("result").count() < 24
    expect(page.get_by_test_id("results")).not_to_contain_text("weak")


def leads_to_the_shop(page: Page) -> None:
    expect(page.get_by_test_id("result").first.get_by_test_id("product-link")).to_have_attribute("href", SHOP_PAGE)


def two_more_pictures(page: Page) -> None:
    expect(page.get_by_test_id("result").first.get_by_test_id("result-others").get_by_role("link")).to_have_count(2)


def once_each(page: Page) -> None:
    products = page.get_by_test_id("result").evaluate_all("all => all.map((one) => one.dataset.productId)")
    assert len(products) == len(set(products))


# --- the tasks -------------------------------------------------------------------------------------------------------

TASKS: dict[str, tuple[list[Step], list[Step]]] = {
    "find the very product by its picture": (
        [chosen(KEYBOARD)],
        [first("demo-keyboard", "100.0 %"), first("demo-keyboard", "same picture"), matches(24)],
    ),
    "drop a picture": ([given("drop")], [first("demo-violin", "100.0 %"), address(file="")]),
    "paste a picture": ([given("paste")], [first("demo-violin", "100.0 %")]),
    "take a picture with the camera": ([chosen(VIOLIN, by="camera")], [first("demo-violin", "100.0 %")]),
    "find it by words, with the keyboard alone": (
        [typed("teapot"), pressed("Enter")],
        [first("demo-teapot"), without_percentages, address(text="teapot"), not_there("min-similarity")],
    ),
    "find by words only what they mean, and then everything": (
        [asked("teapot"), less_than_a_page, clicked("show-all")],
        [matches(24), first("demo-teapot"), address(text="teapot", all="yes")],
    ),
    "find by its name what does not look like it": (
        [asked("violin")],
        [first("demo-violin", "by its name"), there("show-all")],
    ),
    "look at what is like a match": (
        [asked("teapot"), clicked("result")],
        [first("demo-teapot", "100.0 %"), address(mediaId="[0-9a-f-]+", text=None), in_the_box("")],
    ),
    "go back to the words": (
        [asked("teapot"), clicked("result"), went("back")],
        [in_the_box("teapot"), first("demo-teapot")],
    ),
    "want the picture, but in red": (
        [chosen(KEYBOARD), beside("in red")],
        [parts("keyboard.webp ×1", "in red ×3"), without_percentages, matches(24)],
    ),
    "let the words count more": (
        [opened(mediaId="demo-keyboard", text="in red"), clicked("part-heavier", 1)],
        [parts("Keyboard ×1", "in red ×4"), address(text="in red", weight="4")],
    ),
    "take the words out again": (
        [chosen(KEYBOARD), beside("in red"), clicked("part-remove", 1)],
        [first("demo-keyboard", "100.0 %"), not_there("parts"), address(text=None)],
    ),
    "want words and a picture together from the start": (
        [typed("in red"), chosen(KEYBOARD)],
        [parts("keyboard.webp ×1", "in red ×3"), without_percentages],
    ),
    "add a picture to words": (
        [asked("violin"), chosen(KEYBOARD, by="add-file")],
        [parts("violin ×3", "keyboard.webp ×1")],
    ),
    "want more like one of the matches": (
        [chosen(KEYBOARD), clicked("more-like", 3)],
        [there("parts"), without_percentages, address(file="", mediaId="[0-9a-f-]+")],
    ),
    "want less like one of the matches": (
        [opened(mediaId="demo-teapot"), clicked("less-like", 1)],
        [there("parts"), said("Not like"), address(weight="-0.5"), first("demo-teapot")],
    ),
    "send the address to somebody": (
        [opened(mediaId="demo-keyboard", text="in+red", weight="2", min="40")],
        [parts("Keyboard ×1", "in red ×2"), there("query-picture")],
    ),
    "reload": (
        [opened(mediaId="demo-keyboard"), clicked("more-like", 2), went("reload")],
        [there("parts"), without_percentages, matches(24)],
    ),
    "reload with a picture of one's own": (
        [chosen(KEYBOARD), went("reload")],
        [said("which no address can hold. Choose the picture again."), there("file-input"), matches(0)],
    ),
    "search a part of the picture, with the keyboard": (
        [
            chosen(PHOTOGRAPHS / "raccoon.jpg"),
            focused("crop"),
            pressed("Enter", "ArrowRight", "ArrowRight", "ArrowDown"),
            settled,
        ],
        [there("crop-box"), matches(24), address(file="", crop=r"0\.19,0\.17,0\.89,0\.87")],
    ),
    "search a part of the picture, with the mouse": (
        [opened(mediaId="demo-keyboard"), clicked("crop"), dragged("crop-bottom-right", -60, -40)],
        [there("crop-box"), address(mediaId="[0-9a-f-]+", crop=r"0\.15,0\.15,0\.[4-7]\d*,0\.[4-7]\d*")],
    ),
    "search the whole picture again": (
        [opened(mediaId="demo-keyboard", crop="0.2,0.2,0.8,0.8"), focused("crop-middle"), pressed("Escape"), settled],
        [not_there("crop-box"), first("demo-keyboard", "100.0 %"), address(crop=None)],
    ),
    "see only one category": (
        [opened(mediaId="demo-violin"), filtered("category", "music")],
        [counted("category", "music"), first("demo-violin", "100.0 %"), address(is_category="music")],
    ),
    "see all categories again": (
        [opened(mediaId="demo-violin", **{"is.category": "music"}), clicked("facets-clear")],
        [matches(24), address(is_category=None), not_there("facets-clear")],
    ),
    "see only what costs so much": (
        [opened(mediaId="demo-violin", facets="price"), priced("20", "60")],
        [address(from_price="20", to_price="60", facets="price"), there("result")],
    ),
    "see further matches": (
        [opened(mediaId="demo-violin"), clicked("more")],
        [matches(48), said("The first 48 matches"), once_each],
    ),
    "scroll on": ([opened(mediaId="demo-violin"), scrolled], [matches(48), once_each]),
    "see only what is nearly the same": (
        [
            chosen(VIOLIN),
            lambda page: page.get_by_test_id("min-similarity").fill("95"),
            said("1 match"),
            clicked("show-all"),
        ],
        [matches(24), address(min=None)],
    ),
    "see a product once, with its other pictures": (
        [chosen(KEYBOARD)],
        [two_more_pictures, once_each, leads_to_the_shop],
    ),
    "choose a file that is no picture": (
        [chosen({"name": "list.txt", "mimeType": "text/plain", "buffer": b"no picture at all"})],
        [said("is not a picture"), said("Choose a photo or a drawing"), not_there("retry")],
    ),
    "choose a picture that is too large": (
        [chosen(noise(1200))],
        [matches(24), said("Made smaller before it was sent: 4.3 MB is more than the server accepts.")],
    ),
    "grow tired of a slow upload": (
        [tired_of_a_slow_upload],
        [said("Cancelled."), there("retry"), not_there("sending"), matches(0)],
    ),
    "try again when the server is back": (
        [server_gone, chosen(VIOLIN), said("The server could not be reached."), server_back, clicked("retry")],
        [first("demo-violin", "100.0 %"), not_there("error")],
    ),
    "change one's mind before the answer is there": (
        [a_slow_answer_and_then_another],
        [first("demo-keyboard", "100.0 %"), matches(24)],
    ),
    "skip to the matches": (
        [opened(text="teapot"), pressed("Tab", "Enter")],
        [has_focus("#matches"), first("demo-teapot")],
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_shopper_can(stall: Stall, browser: Browser, task: str) -> None:
    done, must_be = TASKS[task]
    with browsing(browser, stall.process.url + "/") as page:
        named_media(page, stall)
        for step in done:
            step(page)
        for must in must_be:
            must(page)


def named_media(page: Page, stall: Stall) -> None:
    """Addresses of tasks name a product in place of its media, whose id only this server knows."""

    def redirect(route: Route) -> None:
        url = route.request.url
        for product, media in stall.media.items():
            url = url.replace(f"mediaId={product}", f"mediaId={media}")
        route.fulfill(status=302, headers={"Location": url})

    page.route(re.compile(r"\?.*mediaId=demo-"), redirect)


# --- what holds for all of it ----------------------------------------------------------------------------------------

STATES: dict[str, list[Step]] = {
    "the beginning": [],
    "a picture": [chosen(KEYBOARD)],
    "a picture with words": [chosen(KEYBOARD), beside("in red"), clicked("less-like", 2)],
    "a part of the picture": [chosen(KEYBOARD), clicked("crop")],
    "words": [asked("violin")],
    "a filter": [opened(mediaId="demo-violin"), filtered("category", "music")],
    "an error": [chosen({"name": "list.txt", "mimeType": "text/plain", "buffer": b"no picture at all"})],
}


@pytest.mark.slow  # it installs axe-core, and lets it look at everything six times
@pytest.mark.parametrize("state", STATES)
def test_nothing_keeps_anybody_from_using_it(stall: Stall, browser: Browser, axe: Axe, state: str) -> None:
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    with browsing(browser, stall.process.url + "/", reduced_motion="reduce") as page:
        named_media(page, stall)
        for step in STATES[state]:
            step(page)
        for width in (390, 900, 1600):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in schemes:
                page.emulate_media(color_scheme=scheme)
                assert axe.violations(page) == [], f"{width} pixels, {scheme}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_light(stall: Stall) -> None:
    """All that it is made of, without pictures, and all of it is there."""
    with stall.process.client() as client:
        texts = {"": client.get("/").raise_for_status().text}
        waiting = re.findall(r'(?:src|href)="(web/[\w.-]+)"', texts[""])
        while waiting:
            if (path := waiting.pop()) not in texts:
                texts[path] = client.get(f"/{path}").raise_for_status().text
                waiting += [f"web/{name}" for name in re.findall(r'from "\./([\w.-]+)"', texts[path])]
    modules = {path for path in texts if path.endswith(".js")}
    assert "web/app.js" in modules
    # Each begins to load at once, rather than when the module that imports it has been read.
    assert {*re.findall(r'rel="modulepreload" href="([^"]+)"', texts[""]), "web/app.js"} == modules
    assert sum(len(text.encode()) for text in texts.values()) < 120_000
