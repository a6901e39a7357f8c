"""The bench of neighbours: that it runs a server, sends what it says it sends, and writes down what it saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import neighbours


def test_searches_are_counted_beside_no_one_and_several_bulk_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "neighbours.json"
    arguments = ["--rounds", "1", "--seconds", "1", "--rate", "3", "--calls", "2", "--size", "4", "--json", str(out)]
    assert neighbours.main(arguments) == 0
    ways = json.loads(out.read_text())["ways"]
    assert list(ways) == ["0", "1", "2"]
    assert [way["searches"] for way in ways.values()] == [{"200": 3}] * 3
    assert not ways["0"]["bulk"]
    assert all(ways[calls]["bulk"]["200"] >= int(calls) for calls in "12")
    assert all(0 < way["p50"] <= way["p95"] for way in ways.values())
    assert "beside 2 bulk calls: 3 searches, 0 refused" in capsys.readouterr().out
