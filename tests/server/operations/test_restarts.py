"""What the parent counts, as its workers read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from server.operations.restarts import Restarts, RestartsCollector


def counted(folder: Path | None) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(RestartsCollector(folder))
    values = {
        child: registry.get_sample_value("twinlens_restarts_total", {"child": child})
        for child in ("worker", "postgres")
    }
    return {child: value for child, value in values.items() if value is not None}


def test_what_was_counted_before_there_was_a_folder_counts(tmp_path: Path) -> None:
    restarts = Restarts()
    restarts.note("postgres")
    restarts.into(tmp_path)
    restarts.note("postgres")
    restarts.note("worker")
    assert counted(tmp_path) == {"worker": 1, "postgres": 2}


def test_a_server_that_has_started_nothing_again_says_so(tmp_path: Path) -> None:
    assert counted(tmp_path) == counted(None) == {"worker": 0, "postgres": 0}


def test_a_count_that_cannot_be_kept_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    restarts = Restarts()
    restarts.into(tmp_path / "gone")
    restarts.note("worker")
    assert "could not be counted" in caplog.text
