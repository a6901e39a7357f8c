"""A real browser."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.process import until

CHROMIUM = Path("/usr/bin/chromium")

# Quiet, and without a sandbox that root cannot have.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() and not os.environ.get("CI"),
    reason="needs Debian's chromium: apt-get install chromium",
)


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium, closed at the end with all that belongs to it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
    del browser, playwright
    with warnings.catch_warnings():
        # Playwright leaves the pipes to its driver to the garbage collector; later they would fail some other test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def wait_until(page: Page, expression: str, argument: Any = None) -> None:
    """Until this JavaScript, a function where there is an argument, says yes.

    Playwright's own `wait_for_function` asks again from within the page, by `eval`, which our page forbids.
    """
    until(lambda: page.evaluate(expression, argument))
