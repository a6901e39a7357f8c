"""The chapter on backups says how without Twinlens: its commands are run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.database.isolation import SERVING_ROLE
from server.database.migrations import migrate
from server.ingest.mark import settle
from server.postgres.binaries import newest_binaries
from server.postgres.server import EmbeddedPostgres
from tests import ROOT
from tests.support.backups import Place, rows, shapes
from tests.support.databases import discard, in_database, run_sql

CHAPTER = (ROOT / "docs/operations.md").read_text(encoding="utf-8").partition("### Without Twinlens")[2]
COMMANDS = [*re.findall(r"^    (\S.*)$", CHAPTER.partition("\n## ")[0], re.MULTILINE)]


@pytest.fixture
def elsewhere(furnished: Place, tmp_path: Path) -> Iterator[str]:
    """A database in a cluster that knows the operator's own role, which serves, and has never heard of us."""
    postgres = EmbeddedPostgres(tmp_path / "postgres", extra_settings=["fsync=off"])
    try:
        postgres.start()
        for (name,) in run_sql(furnished.url, 'SELECT unnest("servingRoles") FROM twinlens_access'):
            if name != SERVING_ROLE:
                run_sql(postgres.url, f"CREATE ROLE {name}")
        yield postgres.url
    finally:
        discard(postgres)


def run(commands: list[str], folder: Path, url: str) -> None:
    environment = {**os.environ, "URL": url, "PATH": f"{newest_binaries()}:{os.environ['PATH']}"}
    script = "\n".join(["set -e", *commands])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_commands_restore_a_backup(furnished: Place, backup: Path, elsewhere: str, tmp_path: Path) -> None:
    commands = COMMANDS[:4]
    assert [one.split()[0] for one in commands] == ["tar", "psql", "pg_restore", "mv"]
    folder = tmp_path / "unpacked"
    folder.mkdir()
    shutil.copy(backup, folder / "catalogue.tar")
    run(commands, folder, elsewhere)
    place = Place(elsewhere, folder / "media")
    assert rows(place.url) == rows(furnished.url)
    assert shapes(place.url) == shapes(furnished.url)
    assert place.objects == furnished.objects
    assert migrate(place.url) == []
    assert not settle(place.url, place.store).own


def test_its_commands_restore_a_dump_as_sql(furnished: Place, elsewhere: str, tmp_path: Path) -> None:
    dump, copy, *commands = COMMANDS[4:]
    assert (dump.split()[4], copy.split()[0]) == ("pg_dump", "cp")
    assert [one.split()[0] for one in commands] == ["createdb", "psql", "psql"]
    run([f'pg_dump --dbname "$URL" --file={tmp_path}/catalogue.sql'], tmp_path, furnished.url)
    url = in_database(elsewhere, "catalogue")
    run_sql(elsewhere, "CREATE DATABASE catalogue")
    run(commands[1:], tmp_path, url)
    assert rows(url) == rows(furnished.url)
