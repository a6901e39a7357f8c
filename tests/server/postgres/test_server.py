"""The embedded PostgreSQL: started, killed, orphaned and started again, for real."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.database.connections import open_pool
from server.database.migrations import migrate
from server.errors import DatabaseUnusable, StartRefused
from server.postgres import server as module
from server.postgres.server import EmbeddedPostgres
from server.spaces.spaces import open_space
from tests import ROOT as REPOSITORY

PATIENCE = 60.0  # seconds until something that never comes is called missing

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what happens under root")

Embedded = Callable[[Path], EmbeddedPostgres]


@pytest.fixture
def embedded() -> Iterator[Embedded]:
    """Makes servers, and takes away all that they leave."""
    made: list[EmbeddedPostgres] = []

    def make(data: Path) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data))
        return made[-1]

    yield make
    for postgres in made:
        postgres.close()
    for postgres in made:
        shutil.rmtree(postgres.cluster, ignore_errors=True)
        postgres.cluster.with_name(postgres.cluster.name + ".running").unlink(missing_ok=True)


def ask(url: str, statement: str = "SELECT 1") -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def answers(url: str) -> bool:
    try:
        return bool(ask(url))
    except psycopg.OperationalError:
        return False


def lives(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_process(data: Path, then: str, **options: Any) -> subprocess.Popen[str]:
    """Another process that starts the server of `data`, prints the postmaster's pid, and goes on with `then`."""
    program = f"""
        import os, signal, sys, time
        from pathlib import Path
        from server.postgres.server import EmbeddedPostgres
        postgres = EmbeddedPostgres(Path({str(data)!r}))
        postgres.start()
        print(postgres.pid, flush=True)
        {then}
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def read_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_constructing_touches_nothing(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    assert "host=" in postgres.url
    postgres.close()
    assert list(tmp_path.iterdir()) == []


def test_it_starts_keeps_its_data_and_stops(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path / "data")
    with postgres:
        assert postgres.pid is not None
        pid = postgres.pid
        assert ask(postgres.url, "SHOW server_encoding") == "UTF8"
        assert ask(postgres.url, "SELECT datcollate FROM pg_database LIMIT 1") == "C"
        assert ask(postgres.url, "SHOW listen_addresses") == ""
        assert ask(postgres.url, "SHOW fsync") == "on"
        ask(postgres.url, "CREATE TABLE kept (n) AS VALUES (42)")
        assert EmbeddedPostgres(tmp_path / "data").url == postgres.url  # any process can say where it answers
        assert stat.S_IMODE(postgres.cluster.stat().st_mode) == 0o700
        assert os.getsid(pid) != os.getsid(0)  # a Ctrl-C at the terminal is not for PostgreSQL
    assert not lives(pid)
    assert not answers(postgres.url)
    postgres.close()
    with postgres:
        assert ask(postgres.url, "SELECT n FROM kept") == 42


def test_it_stops_although_clients_are_connected(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path)
    postgres.start()
    pid = postgres.pid
    with psycopg.connect(postgres.url, autocommit=True):
        postgres.close()
        assert pid is not None
        assert not lives(pid)


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


def test_a_path_too_long_for_a_socket_moves_the_socket_to_a_private_folder(tmp_path: Path, embedded: Embedded) -> None:
    if os.geteuid() == 0:
        pytest.skip("under root the path is short here")
    check_long_path(embedded(tmp_path / ("x" * 100)))


def check_long_path(postgres: EmbeddedPostgres) -> None:
    with postgres:
        assert answers(postgres.url)
        folder = Path(ask(postgres.url, "SHOW unix_socket_directories"))
        assert folder != postgres.cluster
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with postgres:
        assert answers(postgres.url)
    folder.chmod(0o755)
    with pytest.raises(DatabaseUnusable, match="in the way"):
        postgres.start()
    shutil.rmtree(folder)


# --- death -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_killed_postmaster_comes_back_and_the_catalogue_answers_again(
    tmp_path: Path, embedded: Embedded
) -> None:
    with embedded(tmp_path) as postgres:
        migrate(postgres.url)
        space = open_space(
            postgres.url, space_id="a" * 64, dimensions=4, model="test", manifest={}, artifact_path="models/test"
        )
        async with open_pool(postgres.url, min_size=2, max_size=4, timeout=PATIENCE) as pool:
            catalogue = Catalogue(pool, space)
            await catalogue.put_product("acme", "p", name="Mouse")
            first = postgres.pid
            assert first is not None
            for _ in range(2):
                pid = postgres.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                eventually(lambda before=pid: postgres.pid not in (None, before))  # type: ignore[misc]
                assert (await catalogue.get_product("acme", "p")).name == "Mouse"
            assert postgres.pid != first


def test_a_parent_that_is_killed_takes_postgres_along_and_the_next_start_is_fine(
    tmp_path: Path, embedded: Embedded
) -> None:
    process = parent_process(tmp_path, "time.sleep(600)")
    pid = read_pid(process)
    postgres = embedded(tmp_path)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        process.kill()
        process.communicate()
        postgres.start()  # at once, while the old one may still be at it
    assert not lives(pid)
    assert ask(postgres.url, "SELECT n FROM kept") == 42


def test_a_parent_that_just_leaves_takes_postgres_along(tmp_path: Path, embedded: Embedded) -> None:
    process = parent_process(tmp_path, "sys.exit(0)")
    pid = read_pid(process)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    eventually(lambda: not lives(pid))
    with embedded(tmp_path) as postgres:
        assert answers(postgres.url)


def test_a_forked_worker_does_not_stop_what_its_parent_runs(tmp_path: Path, embedded: Embedded) -> None:
    then = (
        "child = os.fork(); child or (postgres.close(), os._exit(0)); "
        "os.waitpid(child, 0); print(1, flush=True); sys.stdin.read()"
    )
    process = parent_process(tmp_path, then)
    pid = read_pid(process)
    assert read_pid(process) == 1
    postgres = embedded(tmp_path)
    assert answers(postgres.url)
    assert lives(pid)
    process.communicate("")
    eventually(lambda: not lives(pid))
    with postgres:  # so that what it made is taken away
        pass


# --- what may lie in the way -----------------------------------------------------------------------------------------


def test_two_servers_on_one_folder_are_one_too_many(tmp_path: Path, embedded: Embedded) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with embedded(tmp_path / "data") as postgres:
        for path in (tmp_path / "data", tmp_path / "link"):
            with pytest.raises(StartRefused, match="Another Twinlens is running"):
                EmbeddedPostgres(path).start()
        assert answers(postgres.url)


def test_a_half_made_cluster_is_made_anew(tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = embedded(tmp_path)
    real = subprocess.run

    def killed(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        real(arguments, **options)
        unfinished = Path(next(argument for argument in arguments if argument.startswith("--pgdata="))[9:])
        (unfinished / "PG_VERSION").write_text("")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            postgres.start()
    assert not (postgres.cluster / "PG_VERSION").exists()
    unfinished = postgres.cluster.with_name(postgres.cluster.name + ".new")
    assert unfinished.exists()
    with postgres:
        assert answers(postgres.url)
    shutil.rmtree(unfinished, ignore_errors=True)


def test_a_stale_pid_file_that_names_an_innocent_harms_neither(tmp_path: Path, embedded: Embedded) -> None:
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


def test_a_start_that_fails_says_what_the_log_says(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path)
    with postgres:
        pass
    (postgres.cluster / "PG_VERSION").write_text("9.0\n")
    with pytest.raises(DatabaseUnusable, match=r"(?s)did not start.*incompatible"):
        postgres.start()
    (postgres.cluster / "PG_VERSION").write_text("18\n")
    with postgres:
        assert answers(postgres.url)


def test_a_folder_of_something_else_is_not_overwritten(public_path: Path, embedded: Embedded) -> None:
    (public_path / "postgres").mkdir()
    (public_path / "postgres/precious").write_text("x")
    if os.geteuid() == 0:
        shutil.chown(public_path / "postgres", "nobody")
    with pytest.raises(DatabaseUnusable, match="not a PostgreSQL database"):
        embedded(public_path).start()
    assert (public_path / "postgres/precious").read_text() == "x"


def test_a_folder_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatabaseUnusable, match="cannot use the folder"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


# --- root ------------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(module, "ROOT_HOME", public_path)
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
        monkeypatch.setattr(module, "HANDOVER_LIMIT", 0.0)
        with pytest.raises(StartRefused, match="still uses"):
            EmbeddedPostgres(private / "copied").start()

    with embedded(data) as anew:  # a folder that was deleted and made again begins with nothing
        assert anew.cluster != postgres.cluster
    shutil.rmtree(anew.cluster)
    with pytest.raises(DatabaseUnusable, match="is not there"):
        EmbeddedPostgres(data).start()


@as_root
def test_under_root_binaries_out_of_reach_are_copied(
    tmp_path: Path, public_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec(module.PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    site = tmp_path / "site"
    shutil.copytree(package / "pginstall18", site / module.PACKAGE / "pginstall18")
    libraries = package.with_name(module.PACKAGE + ".libs")
    shutil.copytree(libraries, site / libraries.name)
    (site / module.PACKAGE / "pginstall18/bin/postgres").chmod(0o700)  # as a strict umask leaves it
    found = SimpleNamespace(submodule_search_locations=[str(site / module.PACKAGE)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(module, "ROOT_HOME", public_path / "home")
    with embedded(public_path / "data") as postgres:
        assert public_path / "home" in postgres._binaries.parents
        ask(postgres.url, "CREATE EXTENSION vector")
        copies = list((public_path / "home").iterdir())
        assert len(copies) == 1
        made_at = copies[0].stat().st_ctime_ns
    assert stat.S_IMODE((site / module.PACKAGE / "pginstall18/bin/postgres").stat().st_mode) == 0o700
    with postgres:
        assert [copy.stat().st_ctime_ns for copy in (public_path / "home").iterdir()] == [made_at]


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
def test_under_root_a_path_too_long_for_a_socket_works_too(public_path: Path, embedded: Embedded) -> None:
    check_long_path(embedded(public_path / ("x" * 100)))


@as_root
def test_an_ordinary_user_is_told_of_a_cluster_that_root_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgres.location").write_text("/var/lib/twinlens/x\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DatabaseUnusable, match="made by root"):
        EmbeddedPostgres(tmp_path).start()
