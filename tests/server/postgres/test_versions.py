"""A cluster is run by the major version of PostgreSQL that made it, or not at all; and the way to the next one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.database.migrations import migrate
from server.errors import DatabaseUnusable
from server.postgres import binaries
from server.postgres.binaries import major_of
from server.postgres.cluster import place_cluster
from server.postgres.process import environment
from tests import ROOT
from tests.support.databases import run_sql
from tests.support.postgres import Embedded, ask
from tests.support.spaces import add_media, open_old

OLDER, NEWER = "16", "18"
"""The majors that the package brings."""


def make_older_cluster(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a version of Twinlens left whose package had the older PostgreSQL only."""
    data.mkdir()
    cluster, account = place_cluster(data)
    with monkeypatch.context() as patch:
        patch.setattr(binaries, "major_of", lambda _: OLDER)
        programs = binaries.reachable_binaries(account, cluster)
    cluster.mkdir(mode=0o700, parents=True)
    if account is not None:
        os.chown(cluster, account.uid, account.gid)
    subprocess.run(
        [programs / "initdb", f"--pgdata={cluster}", "--username=postgres", "--encoding=UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        cwd="/",
        env=environment(),
        **({} if account is None else account.options()),
    )


def test_a_cluster_of_an_older_version_is_run_by_that_version(
    public_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = public_path / "data"
    make_older_cluster(data, monkeypatch)
    with embedded(data) as postgres:
        assert str(ask(postgres.url, "SHOW server_version")).startswith(f"{OLDER}.")
        migrate(postgres.url)
        assert ask(postgres.url, "SELECT count(*) FROM image_embeddings") == 0
    assert major_of(postgres.cluster) == OLDER


@pytest.mark.parametrize("other", ["17", "19"])
def test_a_cluster_of_a_version_that_is_not_there_is_refused_and_not_touched(
    other: str, public_path: Path, embedded: Embedded
) -> None:
    postgres = embedded(public_path / "data")
    with postgres:
        ask(postgres.url, "CREATE TABLE kept (n) AS VALUES (42)")
    version = postgres.cluster / "PG_VERSION"
    version.write_text(f"{other}\n")
    before = state_of(postgres.cluster)
    with pytest.raises(DatabaseUnusable, match=rf"made by PostgreSQL {other}.*brings {OLDER} and {NEWER}.*Upgrading"):
        postgres.start()
    assert state_of(postgres.cluster) == before
    version.write_text(f"{NEWER}\n")
    with postgres:
        assert ask(postgres.url, "SELECT n FROM kept") == 42


def state_of(cluster: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(cluster.rglob("*"))}


def test_the_chapter_on_upgrading_brings_a_catalogue_to_the_next_version(
    public_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = public_path / ".twinlens"
    make_older_cluster(data, monkeypatch)
    query = 'SELECT v.*, m."s3Key" FROM image_embeddings v JOIN media m ON m.id = v."mediaId" ORDER BY 1'
    with embedded(data) as postgres:
        migrate(postgres.url)
        add_media(postgres.url, "a", "b", vectors_in=[open_old(postgres.url)])
        rows = run_sql(postgres.url, query)
        assert len(rows) == 2
    chapter = (ROOT / "docs/operations.md").read_text(encoding="utf-8").partition("### The next PostgreSQL")[2]
    commands = re.findall(r"^    (\S.*)$", chapter.partition("\n## ")[0], re.MULTILINE)
    assert commands.pop() == "python -m server", "the last one serves"
    path = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT} TWINLENS_DATA=.twinlens"
    script = "\n".join(["set -e", path, *commands])
    done = subprocess.run(["bash", "-c", script], cwd=public_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with embedded(data) as postgres:
        assert str(ask(postgres.url, "SHOW server_version")).startswith(f"{NEWER}.")
        assert migrate(postgres.url) == []
        assert run_sql(postgres.url, query) == rows
