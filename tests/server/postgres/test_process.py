"""The environment of PostgreSQL, and pid files that lie in its way."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from server.errors import StartRefused
from tests.support.postgres import Embedded, answers, ask, eventually


def test_settings_in_the_environment_do_not_reach_it(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGPORT": "7777",
        "PGDATA": "/nothing",
        "PGUSER": "x",
        "LC_ALL": "xx_YY",
        "PGDATABASE": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with embedded(tmp_path) as postgres:
        assert ask(postgres.url, "SHOW port") == "5432"


@pytest.mark.skipif("TWINLENS_TEST_DATABASE_URL" in os.environ, reason="the run has a PostgreSQL of its own")
def test_extra_settings_replace_ours(postgres_url: str) -> None:
    assert ask(postgres_url, "SHOW fsync") == "off"


def test_a_stale_pid_file_that_names_another_process_harms_neither(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path)
    with postgres:
        owner = postgres.cluster.stat()
    options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    innocent = subprocess.Popen(["sleep", "600"], **options)  # type: ignore[call-overload]
    try:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (postgres.cluster / name).write_text(f"{innocent.pid}\n{postgres.cluster}\n1\n5432\n{postgres.cluster}\n\n")
            os.chown(postgres.cluster / name, owner.st_uid, owner.st_gid)
        with postgres:
            assert answers(postgres.url)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.parametrize("cut_off", ["", "\n", "half"])
def test_a_pid_file_that_was_never_finished_does_not_keep_it_from_starting(
    tmp_path: Path, embedded: Embedded, cut_off: str
) -> None:
    postgres = embedded(tmp_path)
    with postgres:
        owner = postgres.cluster.stat()
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (postgres.cluster / name).write_text(cut_off)
        os.chown(postgres.cluster / name, owner.st_uid, owner.st_gid)
    with postgres:
        assert answers(postgres.url)


def test_a_postgres_that_someone_else_runs_on_the_folder_is_left_alone(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path)
    with postgres:
        owner = postgres.cluster.stat()
    options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    other = subprocess.Popen(  # type: ignore[call-overload]
        [postgres._binaries / "postgres", "-D", postgres.cluster, "-k", postgres.cluster, "-c", "listen_addresses="],
        cwd="/",
        stderr=subprocess.DEVNULL,
        **options,
    )
    try:
        eventually(lambda: answers(postgres.url))
        with pytest.raises(StartRefused, match=f"process {other.pid}"):
            postgres.start()
        assert answers(postgres.url)
    finally:
        other.send_signal(signal.SIGINT)
        other.wait()
    with postgres:
        assert answers(postgres.url)
