"""The bench of the access log: that the servers write what they are compared by, and the figures are written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import access_log


def test_a_server_with_the_access_log_is_compared_with_one_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "access-log.json"
    assert access_log.main(["--rounds", "1", "--seconds", "0.5", "--form", "json", "--json", str(out)]) == 0
    ways = json.loads(out.read_text())["ways"]
    assert list(ways) == ["off", "json"]
    assert all(len(way["microseconds"]) == len(way["rates"]) == 1 and way["rates"][0] > 0 for way in ways.values())
    assert ways["off"]["lines"] == 0
    assert ways["json"]["lines"] > 10
    assert "access log json: " in capsys.readouterr().out
