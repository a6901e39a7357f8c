"""axe-core, which finds in a page what keeps people from using it: too little contrast, names that are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

_PACKAGE = "axe-core@4.14.1"
_QUIETLY = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
_RUN = """async (within) => {
    // What is fading in has little contrast for a moment, and that is not what is looked for.
    const passing = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
    await Promise.allSettled(passing.map((one) => one.finished));
    // Whoever speaks to a page says what is written on a button; this rule is off unless it is asked for.
    const rules = { "label-content-name-mismatch": { enabled: true } };
    return (await axe.run(within ?? document, { resultTypes: ["violations"], rules })).violations;
}"""


class Axe:
    """The program, to be run within a page of a browser."""

    def __init__(self, program: str) -> None:
        self._program = program

    def violations(self, page: Page, within: str | None = None) -> list[str]:
        """What is wrong with the page as it is shown now, one line for each element; `within`: a selector of a part.

        All rules of axe-core hold, good practice among them. The program gets in by the browser's debugger, so the
        page's own policy stays as it is.
        """
        if not page.evaluate("typeof axe === 'object'"):
            page.evaluate(self._program)
        found: list[dict[str, Any]] = page.evaluate(_RUN, within)
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {element['html']} {element['failureSummary']}"
            for one in found
            for element in one["nodes"]
        ]


def installed(folder: Path) -> Axe:
    """The program as npm brings it into this folder. Skips the test where there is no npm, but not in CI."""
    if not shutil.which("npm") and not os.environ.get("CI"):
        pytest.skip("needs npm: apt-get install npm")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "install", "--prefix", folder, *_QUIETLY, _PACKAGE], cwd=folder, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Axe((folder / "node_modules" / "axe-core" / "axe.min.js").read_text())
