"""How soon the page shows the first match, seen by whoever looks at it.

    $ python -m bench page
    $ python -m bench page --times 30 --json bench/out/page.json

A server of its own with the demo catalogue, and Debian's chromium on the same cores. Each picture is one that the
server has not seen, and each time the browser is one that has seen nothing: an empty cache, a page that is loaded anew.
Beside the page, the same call is made without a browser with further pictures, which says what of it the page costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import httpx
from playwright.sync_api import Browser, FilePayload, sync_playwright

from bench import machine, pictures
from bench.serving import serving

STARTER = pictures.ROOT / "models" / "starter"
CHROMIUM = Path("/usr/bin/chromium")
WORDS = ("teapot", "red apple", "umbrella", "something to write with", "a toy for children", "musical instrument")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
_PATIENCE_MS = 30_000

# Told by the page itself: when the first match is in it, and when the picture of that match has been decoded.
_FIRST_MATCH = """() => new Promise((resolve) => {
    const look = () => {
        const first = document.querySelector(".result:not(.waiting) img");
        if (!first) return requestAnimationFrame(look);
        first.decode().then(() => requestAnimationFrame(() => resolve()), resolve);
    };
    look();
})"""


@dataclass(frozen=True, slots=True)
class Times:
    """Of one way to search, in milliseconds."""

    what: str
    median: float
    worst: float
    count: int

    @classmethod
    def of(cls, what: str, seconds: Sequence[float]) -> Times:
        return cls(what, round(statistics.median(seconds) * 1000, 1), round(max(seconds) * 1000, 1), len(seconds))

    def line(self) -> str:
        return f"{self.what:46}{self.median:8.0f} ms median{self.worst:8.0f} ms at worst, of {self.count}"


def unseen(count: int) -> Iterator[FilePayload]:
    """Photographs of 640 x 480, each with bytes that no server has seen."""
    sources = pictures.photographs(count)
    for number, picture in enumerate(sources):
        yield {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": picture.data + number.to_bytes(4, "big")}


def first_load(browser: Browser, url: str) -> float:
    """Seconds until the page can be used, with an empty cache."""
    with browser.new_context() as context:
        page = context.new_page()
        started = perf_counter()
        page.goto(url, wait_until="load")
        return perf_counter() - started


def by_picture(browser: Browser, url: str, picture: FilePayload) -> float:
    """Seconds from choosing a file until its first match is seen."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        page.goto(url)
        started = perf_counter()
        page.get_by_test_id("file-input").set_input_files(picture)
        page.evaluate(_FIRST_MATCH)
        return perf_counter() - started


def by_words(browser: Browser, url: str, text: str) -> float:
    """Seconds from opening an address with words, which loads all of the page, until the first match is seen."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        started = perf_counter()
        page.goto(f"{url}/?all=yes&text={text}", wait_until="commit")
        page.evaluate(_FIRST_MATCH)
        return perf_counter() - started


def bare(url: str, picture: FilePayload) -> float:
    """Seconds of the call alone."""
    started = perf_counter()
    file = (picture["name"], picture["buffer"], picture["mimeType"])
    httpx.post(f"{url}/v1/search", files={"file": file}, data={"limit": "24"}, timeout=30).raise_for_status()
    return perf_counter() - started


def measure(url: str, times: int) -> list[Times]:
    """All of it, at a server with the demo catalogue."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        files = list(unseen(2 * times + 1))
        bare(url, files.pop())  # a server's first request opens connections that the others find
        try:
            return [
                Times.of("the page is loaded", [first_load(browser, url) for _ in range(times)]),
                Times.of(
                    "a picture chosen, first match seen", [by_picture(browser, url, one) for one in files[:times]]
                ),
                Times.of("the call alone, without a browser", [bare(url, one) for one in files[times:]]),
                Times.of("an address with words, first match seen", [by_words(browser, url, text) for text in WORDS]),
            ]
        finally:
            browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the times; 1 where the median of the first match is not there within a second."""
    parser = argparse.ArgumentParser(prog="python -m bench page", description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=12, help="how often each is done (12)")
    parser.add_argument("--model", type=Path, default=STARTER, help="the artifact (the starter)")
    parser.add_argument("--json", type=Path, help="write the times into this file as well")
    asked = parser.parse_args(arguments)
    with serving(asked.model, demo=True) as server:
        found = measure(server.url, asked.times)
    print(machine.sentence())
    for one in found:
        print(one.line())
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(
            json.dumps({"machine": machine.describe(), "times": [asdict(one) for one in found]}, indent=1)
        )
    return 0 if found[1].median <= 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
