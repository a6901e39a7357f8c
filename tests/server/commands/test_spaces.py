"""python -m server spaces: list, switch, drop."""

from __future__ import annotations

import argparse

import pytest

from server.commands import spaces as command_line
from server.errors import SpaceRefused
from server.settings import Settings
from tests.support.spaces import NEW, OLD, add_media, open_old, register_new


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
