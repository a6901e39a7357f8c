"""python -m server spaces: list, switch, drop."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from server.commands import spaces as command_line
from server.errors import DatabaseUnfit, SpaceRefused
from server.settings import Settings
from tests.support.databases import contents
from tests.support.spaces import NEW, OLD, add_media, older_database, open_old, register_new


def test_a_list_does_not_migrate(bare_database_url: str, tmp_path: Path) -> None:
    older_database(bare_database_url, tmp_path / "sql")
    before = contents(bare_database_url)
    parser = argparse.ArgumentParser()
    command_line.add_arguments(parser)
    for words in ([], ["switch", OLD[:6]]):
        with pytest.raises(DatabaseUnfit, match="python -m server migrate"):
            command_line.run(Settings(), parser.parse_args(words), bare_database_url)
    assert contents(bare_database_url) == before


def test_the_command_lists_switches_and_drops_by_the_beginning_of_an_id(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = open_old(database_url), register_new(database_url)
    add_media(database_url, "a", vectors_in=[old, new])

    def command(*words: str) -> str:
        parser = argparse.ArgumentParser()
        command_line.add_arguments(parser)
        assert command_line.run(Settings(), parser.parse_args(words), database_url) == 0
        return capsys.readouterr().out

    lines = command().splitlines()
    assert [line.split()[:3] for line in lines] == [[OLD[:12], "live", "1"], [NEW[:12], "filling", "1"]]
    assert "is live now" in command("switch", NEW[:6])
    assert "is live already" in command("switch", NEW[:6])
    assert "Dropped" in command("drop", OLD[:5])
    with pytest.raises(SpaceRefused, match=f"There are: {NEW[:12]} .live."):
        command("switch", OLD[:6])
    with pytest.raises(SpaceRefused, match="at least 4 digits"):
        command("switch", NEW[:3])
