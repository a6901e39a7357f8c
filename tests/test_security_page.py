"""docs/security.md says what is so: its table of routes, and the commands that set up a shop."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from server.http.rules import RULES, Rule
from tests import ROOT
from tests.support.process import Serve

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
PICTURE = ROOT / "server" / "ingest" / "demo_catalogue" / "pictures" / "keyboard.webp"
ORIGIN = "https://shop.example"


def said(rule: Rule) -> tuple[str, ...]:
    """A rule as the cells of the page's table."""
    if rule.open:
        return "none", "", "", "none", "no"
    yes = {True: "yes", False: "no"}
    client = "the key's" if rule.client else "none"
    return ", ".join(rule.scopes), yes[rule.derived], yes[rule.signed], client, yes[rule.audited]


def test_its_table_of_routes_is_that_of_the_server() -> None:
    rows = {}
    for line in PAGE.splitlines():
        if found := re.match(r"\| `([A-Z]+) (/[^`]*)` \|(.*)\|$", line):
            rows[found[1], found[2]] = tuple(cell.strip() for cell in found[3].split("|"))
    assert rows == {route: said(rule) for route, rule in RULES.items()}


def test_the_tests_that_it_names_are_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+|test_\w+\.py)`", PAGE))
    assert named
    known = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*")}
    assert not {one for one in named if not any(path == one or path.endswith(f"/{one}") for path in known)}


def commands() -> list[str]:
    block = re.search(r"in five commands.*?```\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def test_five_commands_set_up_a_shop(serve: Serve, tmp_path: Path) -> None:
    setup, create, start, write, derive = commands()
    assert setup == "make setup"  # has made the environment that this runs in
    environment = {**os.environ, "TWINLENS_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    python = f'"{sys.executable}"'

    def shell(command: str, **variables: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace(".venv/bin/python", python)],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout

    key = shell(f'{create}; echo "$KEY"').strip()
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", start))
    assert given.pop("HOST") == "0.0.0.0"
    flags = [word for name, value in given.items() for word in (f"--{name.lower().replace('_', '-')}", value)]
    server = serve("--host", "0.0.0.0", *flags).ready()
    (tmp_path / "kettle.jpg").write_bytes(PICTURE.read_bytes())
    answers = shell(write.replace("http://127.0.0.1:8000", server.url), KEY=key)
    assert json.loads(answers.replace("}{", "},{").join("[]"))[1]["productId"] == "kettle-1"
    search_key = shell(derive, KEY=key).strip()

    with httpx.Client(base_url=server.url, headers={"Origin": ORIGIN}) as page:
        answer = page.post("/v1/search", headers={"X-API-Key": search_key}, files={"file": PICTURE.read_bytes()})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        (match,) = answer.json()["results"]
        assert (match["productId"], match["similarity"]) == ("kettle-1", 100.0)
        assert page.get(match["thumbnailUrl"]).headers["Content-Type"] == "image/webp"
        assert page.post("/v1/search", files={"file": PICTURE.read_bytes()}).status_code == 401
        forbidden = page.delete("/v1/products/kettle-1", headers={"X-API-Key": search_key})
        assert forbidden.status_code == 403
