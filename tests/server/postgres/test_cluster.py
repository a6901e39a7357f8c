"""Where the cluster lies, and whom it belongs to."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from server.errors import DatabaseUnusable, StartRefused
from server.postgres import cluster
from server.postgres.server import EmbeddedPostgres
from tests.support.postgres import Embedded, as_root, ask, lives, parent_process


def test_a_folder_of_something_else_is_not_overwritten(public_path: Path, embedded: Embedded) -> None:
    (public_path / "postgres").mkdir()
    (public_path / "postgres/precious").write_text("x")
    if os.geteuid() == 0:
        shutil.chown(public_path / "postgres", "nobody")
    with pytest.raises(DatabaseUnusable, match="not a PostgreSQL database"):
        embedded(public_path).start()
    assert (public_path / "postgres/precious").read_text() == "x"


@as_root
def test_under_root_a_folder_that_all_can_reach_holds_its_own_cluster(public_path: Path, embedded: Embedded) -> None:
    with embedded(public_path / "data") as postgres:
        assert postgres.cluster == public_path / "data/postgres"
        assert postgres.pid is not None
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == postgres.cluster.stat().st_uid != 0
    assert stat.S_IMODE(public_path.stat().st_mode) == 0o755
    assert (public_path / "data").stat().st_uid == 0


@as_root
def test_under_root_a_private_folder_has_its_cluster_elsewhere_and_says_where(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch, public_path: Path
) -> None:
    monkeypatch.setattr(cluster, "ROOT_HOME", public_path)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    data = private / "data"
    with embedded(data) as postgres:
        assert postgres.cluster.parent == public_path
        assert (data / "postgres.location").read_text().splitlines()[0] == str(postgres.cluster)
        ask(postgres.url, "CREATE TABLE kept (n) AS VALUES (42)")
        assert EmbeddedPostgres(data).url == postgres.url
    assert stat.S_IMODE(private.stat().st_mode) == 0o700

    data.rename(private / "moved")  # the database moves with its folder
    with embedded(private / "moved") as moved:
        assert ask(moved.url, "SELECT n FROM kept") == 42
        shutil.copytree(private / "moved", private / "copied", ignore=shutil.ignore_patterns("*.lock"))
        with pytest.raises(StartRefused, match="with another data folder"):
            EmbeddedPostgres(private / "copied").start()
        assert ask(moved.url, "SELECT n FROM kept") == 42  # it was left alone

    with embedded(data) as second:  # a folder that was deleted and made again begins with nothing
        assert second.cluster != postgres.cluster
    shutil.rmtree(second.cluster)
    with pytest.raises(DatabaseUnusable, match="is not there"):
        EmbeddedPostgres(data).start()


@as_root
def test_under_root_the_cluster_of_an_ordinary_user_is_run_as_that_user(public_path: Path, embedded: Embedded) -> None:
    nobody = pwd.getpwnam("nobody")
    data = public_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        process = parent_process(data, "sys.stdin.read()", stderr=subprocess.PIPE, **user)
    except PermissionError:
        pytest.skip("an ordinary user cannot run this Python")
    assert process.stdout is not None
    assert process.stdin is not None
    line = process.stdout.readline()
    if not line:
        pytest.skip(f"an ordinary user cannot run this Python: {process.communicate()[1][-500:]}")
    assert lives(int(line))
    process.communicate("")
    with embedded(data) as postgres:
        assert postgres.cluster == data / "postgres"
        assert postgres.pid is not None
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == nobody.pw_uid
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


@as_root
def test_an_ordinary_user_is_refused_a_cluster_that_root_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgres.location").write_text("/var/lib/twinlens/x\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DatabaseUnusable, match="made by root"):
        EmbeddedPostgres(tmp_path).start()
