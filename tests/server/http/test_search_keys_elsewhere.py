"""The lines of TypeScript in the documentation derive the same search keys as `twinlens.derive_search_key`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.access.keys import new_key
from tests import ROOT
from twinlens import derive_search_key

TYPESCRIPT = Path(__file__).parent / "typescript"

EXPIRES = 4070908800
BOUNDS: list[dict[str, Any]] = [
    {},
    {"limit": 24},
    {
        "client": "acme",
        "filter": {"productIds": ["ä", "b"], "attributes": {"category": ["shoes"], "price": {"lt": 49.9}, "new": True}},
        "limit": 10,
        "origins": ["https://shop.example"],
        "expires": EXPIRES,
        "rate": 2.5,
        "fields": ["sku", "attributes.größe"],
    },
]

PRINT = """
import { deriveSearchKey } from "./built/search-key.js";
const [key, bounds] = process.argv.slice(2);
console.log(JSON.stringify(JSON.parse(bounds).map((one) => deriveSearchKey(key, one))));
"""


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documentation_shows_these_lines_and_no_more_than_twenty() -> None:
    lines = (TYPESCRIPT / "search-key.ts").read_text()
    assert f"```typescript\n{lines}```" in (ROOT / "docs" / "api.md").read_text()
    assert len(lines.splitlines()) <= 20


@pytest.mark.slow  # it installs a compiler
@pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")) and not os.environ.get("CI"), reason="needs node and npm"
)
def test_both_languages_derive_the_same(tmp_path: Path) -> None:
    folder = shutil.copytree(TYPESCRIPT, tmp_path / "typescript")
    quietly = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    run("npm", "install", *quietly, folder=folder)
    options = ("--strict", "--target", "ES2022", "--module", "NodeNext", "--types", "node", "--outDir", "built")
    run("node_modules/.bin/tsc", *options, "search-key.ts", folder=folder)
    (folder / "print.js").write_text(PRINT)

    _, key = new_key()
    theirs = json.loads(run("node", "print.js", key, json.dumps(BOUNDS), folder=folder))
    expires = datetime.fromtimestamp(EXPIRES, UTC)
    ours = [derive_search_key(key, **{**one, **({"expires": expires} if one.get("expires") else {})}) for one in BOUNDS]
    assert theirs == ours
