"""Which of PostgreSQL's programs is run, and what it is told of where the database is."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import DatabaseUnusable
from server.postgres import programs
from server.postgres.binaries import newest_binaries
from server.postgres.programs import connecting, find_program, version_of


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pg_dump of PostgreSQL 99, the only one on the PATH."""
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.1 (Debian 99.1-1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_the_package_s_own_is_taken_where_it_is_new_enough(on_path: Path) -> None:
    assert find_program("pg_dump", 15) == newest_binaries() / "pg_dump"
    assert int(version_of(find_program("pg_dump", 15)).partition(".")[0]) >= 18


def test_else_one_on_the_path(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_program("pg_dump", 98) == on_path

    def missing() -> Path:
        raise DatabaseUnusable

    monkeypatch.setattr(programs, "newest_binaries", missing)
    assert find_program("pg_dump", 15) == on_path
    assert version_of(on_path) == "99.1"


def test_where_none_is_new_enough_all_are_named(on_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"PostgreSQL 100 or newer.*is of 18.*pg_dump is of 99\.1"):
        find_program("pg_dump", 100)


def test_no_argument_holds_a_secret() -> None:
    """Others can read those in the list of processes."""
    url = "postgresql://me:s3cret@db.example:6543/shop?sslmode=require&sslpassword=als0&options=-csearch_path%3Dshop"
    arguments, environment = connecting(url)
    assert not any(secret in one for one in arguments for secret in ("s3cret", "als0"))
    wanted = {
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "me",
        "PGPASSWORD": "s3cret",
        "PGDATABASE": "shop",
        "PGSSLMODE": "require",
        "PGOPTIONS": "-csearch_path=shop",
        "PGCLIENTENCODING": "UTF8",
    }
    assert wanted.items() <= environment.items()
    assert any("keepalives_idle=10" in one for one in arguments)
