"""The embedded PostgreSQL: started, killed, orphaned and started again, for real."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.errors import DatabaseUnusable, StartRefused
from server.postgres.process import acquire_lock
from server.postgres.server import EmbeddedPostgres
from server.postgres.stuck import refuses_for_ever
from server.spaces.spaces import SpaceDescription, open_space
from tests.support.postgres import PATIENCE, Embedded, answers, ask, eventually, lives, parent_process, read_pid

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


# --- death -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_killed_postmaster_comes_back_and_the_catalogue_answers_again(
    tmp_path: Path, embedded: Embedded
) -> None:
    with embedded(tmp_path) as postgres:
        migrate(postgres.url)
        space = open_space(postgres.url, SpaceDescription("a" * 64, 4, "test", {}, "models/test"))
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


def test_one_that_lives_and_accepts_no_connection_any_more_is_started_again(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.postgres.server._LOOKS", (2, 0.1))
    restarts: list[None] = []
    with embedded(tmp_path) as postgres:
        postgres.on_restart = lambda: restarts.append(None)
        first = postgres.pid
        assert first is not None
        with psycopg.connect(postgres.url):
            assert not refuses_for_ever(postgres.url, first)
            os.kill(first, signal.SIGTERM)  # it waits for its clients to leave, and accepts none meanwhile
            eventually(lambda: postgres.pid not in (None, first) and answers(postgres.url))
        assert len(restarts) == 1


def test_a_parent_that_is_killed_stops_postgres_and_the_next_start_succeeds(tmp_path: Path, embedded: Embedded) -> None:
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


def test_a_postgres_that_was_left_behind_and_does_not_finish_is_ended(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "server.postgres.server.HANDOVER_STEPS", ((0, 0.2), (signal.SIGQUIT, 0.2), (signal.SIGKILL, 30.0))
    )
    process = parent_process(tmp_path, "time.sleep(600)")
    pid = read_pid(process)
    postgres = embedded(tmp_path)
    ask(postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
    os.kill(pid, signal.SIGSTOP)  # it can do nothing about its end
    process.kill()
    process.communicate()
    with postgres:
        assert not lives(pid)
        assert ask(postgres.url, "SELECT n FROM kept") == 42


def test_a_parent_that_just_ends_stops_postgres(tmp_path: Path, embedded: Embedded) -> None:
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
    with postgres:  # so that what it made is removed
        pass


# --- a server beside a command that runs PostgreSQL ------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["ends", "is killed"])
def test_a_server_uses_the_postgres_of_a_command_and_inherits_it(
    tmp_path: Path, embedded: Embedded, ending: str
) -> None:
    command = parent_process(tmp_path, "sys.stdin.read()")
    first = read_pid(command)
    restarts: list[None] = []
    embedded(tmp_path)  # so that what the command made is removed
    server = EmbeddedPostgres(tmp_path, inherit=True)
    server.on_restart = lambda: restarts.append(None)
    with server:
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS n")
        assert lives(first)
        assert server.pid is None  # not its own to stop
        with pytest.raises(StartRefused, match="Another Twinlens is running"):
            EmbeddedPostgres(tmp_path, inherit=True).start()
        if ending == "is killed":
            command.kill()
        command.communicate("")
        eventually(lambda: server.pid is not None and answers(server.url))
        assert ask(server.url, "SELECT n FROM kept") == 42
        assert not lives(first)
        assert len(restarts) == 1
        own = server.pid
        assert own is not None
        os.kill(own, signal.SIGKILL)  # and it is watched from now on
        eventually(lambda: server.pid not in (None, own) and answers(server.url))
    assert not answers(server.url)


def test_a_server_that_stops_leaves_the_postgres_of_a_command_alone(tmp_path: Path, embedded: Embedded) -> None:
    command = parent_process(tmp_path, "sys.stdin.read()")
    first = read_pid(command)
    embedded(tmp_path)
    with EmbeddedPostgres(tmp_path, inherit=True) as server:
        assert answers(server.url)
    assert lives(first)
    assert answers(server.url)
    with EmbeddedPostgres(tmp_path, inherit=True) as server:  # the next start finds it again
        assert answers(server.url)
    command.communicate("")
    eventually(lambda: not lives(first))


def test_a_server_that_starts_while_a_command_begins_waits_for_it(tmp_path: Path, embedded: Embedded) -> None:
    lock = acquire_lock(tmp_path / "postgres.lock", wait=0.0)  # a command that has not made its database yet
    assert lock is not None
    embedded(tmp_path)
    server = EmbeddedPostgres(tmp_path, inherit=True)
    starting = threading.Thread(target=server.start)
    starting.start()
    starting.join(0.5)
    assert starting.is_alive()
    os.close(lock)  # it has failed
    starting.join(PATIENCE)
    with server:
        assert server.pid is not None
        assert answers(server.url)


# --- what may lie in the way -----------------------------------------------------------------------------------------


def test_a_second_server_on_a_folder_is_refused(tmp_path: Path, embedded: Embedded) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with embedded(tmp_path / "data") as postgres:
        for path in (tmp_path / "data", tmp_path / "link"):
            with pytest.raises(StartRefused, match="Another Twinlens is running"):
                EmbeddedPostgres(path).start()
        assert answers(postgres.url)


def test_an_incomplete_cluster_is_made_again(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_start_that_fails_says_what_the_log_says(tmp_path: Path, embedded: Embedded) -> None:
    postgres = embedded(tmp_path)
    with postgres:
        pass
    settings = postgres.cluster / "postgresql.conf"
    sound = settings.read_text()
    settings.write_text("no setting\n")
    with pytest.raises(DatabaseUnusable, match=r"(?s)did not start.*unrecognized configuration"):
        postgres.start()
    settings.write_text(sound)
    with postgres:
        assert answers(postgres.url)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatabaseUnusable, match="cannot use the folder"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()
