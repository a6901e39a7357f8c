"""python -m server migrate: what it would apply, and what it applies."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from server.commands import migrate
from server.database.migrations import load_migrations
from server.settings import Settings
from tests.support.databases import applied, contents
from tests.support.spaces import older_database


def run(url: str, *words: str) -> int:
    parser = argparse.ArgumentParser()
    migrate.add_arguments(parser)
    return migrate.run(Settings(), parser.parse_args(words), url)


def test_a_check_says_what_would_be_applied_and_changes_nothing(
    bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = load_migrations()
    older_database(bare_database_url, tmp_path / "sql")
    before = contents(bare_database_url)
    assert run(bare_database_url, "--check") == 1
    said = capsys.readouterr().out
    assert f"would apply {others[0].name}: What a search may be narrowed by" in said
    assert first.name not in said
    assert "a server of that version cannot be started" in said
    assert contents(bare_database_url) == before
    assert applied(bare_database_url) == [first.name]

    assert run(bare_database_url) == 0
    *printed, isolation = capsys.readouterr().out.splitlines()
    assert printed == [f"applied {one.name}" for one in others]
    assert isolation.startswith("Servers serve as the role twinlens_server")
    assert run(bare_database_url, "--check") == 0
    assert capsys.readouterr().out == "The schema is up to date.\n"


def test_a_check_of_an_empty_database_makes_nothing_there(
    bare_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(bare_database_url)
    assert run(bare_database_url, "--check") == 1
    assert len(capsys.readouterr().out.splitlines()) == len(load_migrations())
    assert contents(bare_database_url) == before
