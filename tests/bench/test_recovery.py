"""The measuring of breaks: that it breaks what it says, sees what callers see, and finds what was lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.recovery import command
from bench.recovery.command import line_of, row_of
from bench.recovery.traffic import Asked


def test_a_break_is_measured_and_nothing_acknowledged_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recovery.json"
    code = command.main(["--only", "connections,kill-postgres", "--pace", "4", "--json", str(file)])
    printed = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert [row["kind"] for row in report["breaks"]] == [
        "all connections ended by the database",
        "PostgreSQL killed (-9)",
    ]
    assert all(row["kind"] in printed for row in report["breaks"])
    assert report["acknowledged"] > 0
    assert (report["lost"], report["unanswered"], report["wrong answers"]) == (0, 0, 0)
    for row in report["breaks"]:
        assert row["answered"] > 0
        assert row["failed"] is not None or row["first_search"] >= 0
    assert code == int(any(row["failed"] for row in report["breaks"]))


def test_a_row_counts_from_when_an_answer_was_possible_again() -> None:
    asked = [
        Asked("search", 0.0, 0.5, "200"),
        Asked("search", 1.0, 1.2, "503 overloaded"),
        Asked("write", 1.0, 4.5, "ConnectionRefusedError"),
        Asked("search", 1.5, 3.25, "200"),
        Asked("search", 4.0, 4.1, "200"),
        Asked("write", 4.0, 5.0, "201"),
    ]
    row = row_of("a break", asked, 3.0)
    assert (row.answered, row.refused) == (4, 1)
    assert row.reasons == {"503 overloaded": 1, "ConnectionRefusedError": 1}
    assert (row.longest, row.first_search, row.first_write, row.last_refusal) == (3.5, 0.25, 2.0, 1.5)
    assert "250 ms" in line_of(row)
    assert "1 x ConnectionRefusedError" in line_of(row)


def test_a_break_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        command.main(["--only", "earthquake"])
    assert refusal.value.code == 2
    assert "earthquake" in capsys.readouterr().err
