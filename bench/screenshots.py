"""The pictures of the page in docs/: three widths, light and dark, with the demo catalogue.

$ python -m bench screenshots
$ python -m bench screenshots --into /tmp/pictures

At 390 pixels a picture with words beside it, at 900 words alone, at 1,600 a picture with filters.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from bench import pictures
from bench.page import CHROMIUM, FLAGS, STARTER
from bench.serving import serving

KEYBOARD = pictures.DEMO / "pictures" / "keyboard.webp"
SCHEMES: Sequence[Literal["light", "dark"]] = ("light", "dark")
_COLOURS = 256  # of a file: half of the bytes of all colours, and nobody sees it


def with_words(page: Page) -> None:
    """A picture, and words beside it."""
    page.get_by_test_id("file-input").set_input_files(KEYBOARD)
    settled(page)
    page.get_by_test_id("refine-text").fill("in red")
    page.get_by_test_id("refine-add").click()


def words(page: Page) -> None:
    """Words alone."""
    page.get_by_test_id("text").fill("teapot")
    page.get_by_test_id("text-search").click()


def picture(page: Page) -> None:
    """A picture alone."""
    page.get_by_test_id("file-input").set_input_files(KEYBOARD)


STATES: dict[tuple[int, int], Callable[[Page], None]] = {
    (390, 844): with_words,
    (900, 900): words,
    (1600, 1000): picture,
}


def settled(page: Page) -> None:
    """Until the matches are there, with their pictures and the counts of the filters."""
    expect(page.get_by_test_id("results")).to_have_attribute("data-state", "done", timeout=20_000)
    page.wait_for_load_state("networkidle")


def small(png: bytes) -> Image.Image:
    """The same with few colours."""
    with Image.open(io.BytesIO(png)) as opened:
        return opened.convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page-WIDTH-SCHEME.png for each width and scheme."""
    parser = argparse.ArgumentParser(prog="python -m bench screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=pictures.ROOT / "docs", help="the folder (docs)")
    asked = parser.parse_args(arguments)
    with serving(STARTER, demo=True) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        for (width, height), do in STATES.items():
            for scheme in SCHEMES:
                size: dict[str, int] = {"width": width, "height": height}
                with browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce") as context:  # type: ignore[arg-type]
                    page = context.new_page()
                    page.goto(server.url)
                    do(page)
                    settled(page)
                    path = asked.into / f"page-{width}-{scheme}.png"
                    small(page.screenshot()).save(path, optimize=True)
                    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
