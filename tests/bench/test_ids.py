"""The bench that asks whether times tell of another client's ids."""

from __future__ import annotations

import pytest

from bench import ids


def test_both_ways_are_timed_and_compared_with_chance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ids", "--rows", "500", "--puts", "130"])
    assert ids.main() == 0
    said = capsys.readouterr().out
    for way in ("The statement alone", "Through the catalogue"):
        assert way in said
    assert said.count("of the pairs") == 4
