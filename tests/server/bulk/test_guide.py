"""The guide in docs/catalogue.md: every command in it is run as it stands, beside a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests import ROOT
from tests.support.process import Process, Serve

PAGE = (ROOT / "docs" / "catalogue.md").read_text("utf-8")
GUIDE = PAGE.partition("## In eleven minutes")[2].partition("\n## ")[0]
FOLDER, SEARCH, TABLE, PRICE, NIGHT, DUMP = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)


class Reader:
    """Somebody who follows the guide in a checkout, beside a server."""

    def __init__(self, server: Process, checkout: Path) -> None:
        self.server, self.checkout = server, checkout
        for name in ("server", "models", "twinlens"):
            (checkout / name).symlink_to(ROOT / name)

    def run(self, block: str) -> str:
        """The standard output of a block of commands, each of which succeeds."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TWINLENS_DATA": str(self.server.data),
        }
        commands = block.replace("127.0.0.1:8000", f"127.0.0.1:{self.server.port}")
        done = subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def answer(self, block: str) -> Any:
        """What the last command of a block, a call, is answered."""
        return json.loads(self.run(block).splitlines()[-1])


def test_every_command_of_the_guide_does_what_it_says(serve: Serve, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    reader = Reader(serve().ready(), checkout)
    reader.run(FOLDER)
    found = reader.answer(SEARCH)["results"]
    assert (found[0]["productId"], found[0]["similarity"]) == ("teapot", 100.0)
    assert {one["productId"] for one in found} == {"teapot", "keyboard"}
    assert [one["productId"] for one in reader.answer(TABLE)["results"]] == ["globe"]
    assert (reader.answer(PRICE)["sku"], reader.answer(PRICE)["attributes"]["price"]) == ("KB-1", 45)
    products = {one["id"]: one for one in reader.answer(NIGHT)["products"]}
    assert set(products) == {"teapot", "keyboard", "hourglass"}
    assert products["keyboard"]["attributes"] == {"price": 49, "category": "office"}
    assert products["teapot"]["name"] == "Teapot"
    with httpx.Client(base_url=reader.server.url) as client:
        for name in products:
            listed = client.get(f"/v1/products/{name}/media", params={"clientId": "acme"}).json()["media"]
            assert len(listed) == 1, "the table's picture is the folder's"
    assert (checkout / "shop" / "failures.jsonl").read_text() == ""
    reader.run(DUMP)
    assert json.loads((checkout / "shop" / "dump" / "twinlens-dump.json").read_text())


def test_the_line_of_the_crontab_is_the_command_that_was_run() -> None:
    (line,) = re.findall(r"^    15 2 \* \* \* .*?(-m server ingest .*)$", GUIDE, re.MULTILINE)
    assert line.replace("--prune ", "--prune --prune-at-most 50% ") in NIGHT
