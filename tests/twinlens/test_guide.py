"""Every example of docs/client.md, run in its order against a running server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import twinlens
from server.settings import Settings
from tests import ROOT
from tests.support.scripted import Reply, scripted
from tests.support.served import ABACUS, KEYBOARD, VIOLIN, Served
from twinlens import Client

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
ADDRESS = "https://search.shop.example"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the reader is: with pictures, a shop and a key."""
    for name, picture in (("shoe.jpg", KEYBOARD), ("boot.jpg", ABACUS)):
        with Image.open(picture) as image:
            image.convert("RGB").save(tmp_path / name)
    (tmp_path / "pictures").mkdir()
    shutil.copy(VIOLIN, tmp_path / "pictures" / "violin.webp")
    for place, picture in (("kettle-1/front", KEYBOARD), ("kettle-1/back", ABACUS), ("violin/violin", VIOLIN)):
        (tmp_path / "shop" / place).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(picture) as image:
            image.convert("RGB").save(tmp_path / "shop" / f"{place}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lines_of_python_run_in_their_order(
    served: Served, client: Client, client_id: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put_product("shoe-1", name="Shoe", attributes={"colour": "red", "price": 49})
    client.add_media("shoe-1", "shoe.jpg")
    monkeypatch.setenv("TWINLENS_CLIENT", client_id)
    known: dict[str, Any] = {"key": served.admin, "url": served.url}
    try:
        for number, block in enumerate(blocks("python")):
            exec(compile(block.replace(ADDRESS, served.url), f"block {number}", "exec"), known)
    finally:
        known["client"].close()
    assert known["match"].product_id == "shoe-1"
    assert [match.product_id for match in known["answer"].results] == ["shoe-1"]
    assert (known["report"].added, known["report"].failures) == (1, [])
    assert {*known["changed"]} == {"shoe-1", "shoe-7"}
    assert [one.status for one in known["answers"]] == [201, 404]
    assert client.get_media("boot-front").product_id == "shoe-1"
    assert known["hurried"].options.deadline == 5
    with scripted(Reply(body=Path("shoe.jpg").read_bytes())) as elsewhere:
        assert client.search(url=elsewhere.url).results[0].product_id == "shoe-1"


def said(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it is said to print."""
    command, lines = "", list[str]()
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, lines
            command, lines = line[2:], []
        else:
            lines.append(line)
    yield command, lines


def test_the_commands_print_what_the_guide_says(served: Served, client_id: str, folder: Path) -> None:
    (folder / ".twinlens-key").write_text(served.admin)
    (table,) = re.findall(r"\$ cat feed\.csv\n(.*?)\$", PAGE, flags=re.DOTALL)
    (folder / "feed.csv").write_text(table)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}
    environment |= {"TWINLENS_CLIENT": client_id, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {"XDG_STATE_HOME": str(folder / "state")}
    first = f'twinlens() {{ "{sys.executable}" -m twinlens "$@"; }}\nset -e\n'
    exported = ""
    commands = [one for block in blocks("console") for one in said(block)]
    assert len(commands) > 8
    for command, lines in commands:
        command = command.replace(ADDRESS, served.url)
        if command.startswith("export "):
            exported = f"{command}\n"
            continue
        done = subprocess.run(
            ["bash", "-c", first + exported + command], cwd=folder, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, (command, done.stderr)
        pattern = "".join(
            "(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".+") + "\n" for line in lines
        )
        assert re.fullmatch(pattern.replace(re.escape(ADDRESS), re.escape(served.url)), done.stdout), done.stdout


def test_the_methods_and_errors_that_it_names_are_there() -> None:
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", PAGE):
        fields = {"request_id", "retry_after", "min_similarity", "min_grade", "snake_case", "is_active"}
        assert hasattr(Client, name) or name in fields, name
    for name in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", PAGE):
        assert hasattr(twinlens, name), name


def test_a_server_leaves_the_variables_of_its_clients_alone() -> None:
    ours = dict.fromkeys(re.findall(r"`(TWINLENS_[A-Z_]+)`", PAGE), "x")
    assert len(ours) == 4
    assert Settings.read(ours) == Settings.read({})
