"""A real browser."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

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
