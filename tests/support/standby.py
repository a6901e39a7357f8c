"""A streaming standby of an embedded PostgreSQL: made, started, stopped, promoted, and its replay held back.

Both are `EmbeddedPostgres`, so both drop root's privileges and are started again by themselves when they die. The
standby reads the primary's changes over the primary's own socket, which the same system user may use.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import conninfo

from server.postgres.binaries import reachable_binaries
from server.postgres.cluster import place_cluster, write_note
from server.postgres.process import environment
from server.postgres.server import EmbeddedPostgres
from tests.support.databases import discard, run_sql
from tests.support.postgres import ask, eventually

BRIEF_REPLAY_CONFLICTS = "max_standby_streaming_delay=100ms"
"""A setting: a statement on the standby that is in the way of the replay is cancelled after so long."""


class Standby:
    """A standby of `primary`, which must have been started; its data belong to the folder `data`.

    >>> with Standby(primary, folder) as standby:
    ...     standby.catch_up()
    ...     psycopg.connect(standby.url)
    """

    def __init__(self, primary: EmbeddedPostgres, data: Path, *, extra_settings: Sequence[str] = ()) -> None:
        """`extra_settings`: as `EmbeddedPostgres` has them."""
        self.primary = primary
        self.postgres = EmbeddedPostgres(data.resolve(), extra_settings=extra_settings)

    @property
    def url(self) -> str:
        """Where the standby answers, whether or not it runs; the database is the primary's, of the same name."""
        return self.postgres.url

    def __enter__(self) -> Standby:
        self.make()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def make(self) -> None:
        """Copy the primary while it runs, with pg_basebackup."""
        data = self.postgres.data
        data.mkdir(parents=True, exist_ok=True)
        cluster, account = place_cluster(data)
        cluster.mkdir(mode=0o700)
        if account is not None:
            os.chown(cluster, account.uid, account.gid)
        program = str(reachable_binaries(account) / "pg_basebackup")
        source = conninfo.make_conninfo(self.primary.url, dbname="replication")
        options = [f"--pgdata={cluster}", f"--dbname={source}", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run(
            [program, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            **({} if account is None else account.options()),
        )
        assert done.returncode == 0, done.stderr
        if cluster != data / "postgres":
            write_note(data, cluster)
        follow(self.postgres, self.primary)

    def start(self) -> None:
        """Start it, or start it again; returns once it answers."""
        self.postgres.start()

    def stop(self) -> None:
        """Stop it in an orderly way; its connections are closed."""
        self.postgres.close()

    def kill(self) -> None:
        """End it as a lost machine does, and leave it so."""
        kill(self.postgres)

    def promote(self) -> None:
        """Make it a primary of its own; returns once it takes writes. The old primary is left as it is."""
        assert ask(self.url, "SELECT pg_promote()")

    def pause_replay(self) -> None:
        """From here on it receives changes and does not show them; returns once that is so."""
        run_sql(self.url, "SELECT pg_wal_replay_pause()")
        eventually(lambda: bool(ask(self.url, "SELECT pg_get_wal_replay_pause_state() = 'paused'")))

    def resume_replay(self) -> None:
        """Let it show what it receives."""
        run_sql(self.url, "SELECT pg_wal_replay_resume()")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """As `pause_replay`, for as long as the block lasts."""
        self.pause_replay()
        try:
            yield
        finally:
            self.resume_replay()

    def catch_up(self) -> None:
        """Wait until it shows all that the primary has committed up to now."""
        # The position of the next insertion may lie behind the head of a page that has no record in it yet.
        position = ask(self.primary.url, "SELECT pg_current_wal_flush_lsn()::text")
        eventually(lambda: self._shows(position))

    def _shows(self, position: str) -> bool:
        with suppress(psycopg.OperationalError):  # it may just be starting
            return bool(ask(self.url, f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"))
        return False

    def discard(self) -> None:
        """Stop it and delete its data."""
        discard(self.postgres)


def follow(postgres: EmbeddedPostgres, primary: EmbeddedPostgres) -> None:
    """Have a server that is stopped start as a standby of `primary` the next time.

    Also for a primary that was stopped in an orderly way after its standby had caught up and before that was promoted.
    """
    source = conninfo.make_conninfo("", **{**conninfo.conninfo_to_dict(primary.url), "dbname": None})
    owner = postgres.cluster.stat()
    for name, text in (
        ("standby.signal", ""),
        ("postgresql.auto.conf", f"primary_conninfo = '{source.replace(chr(39), chr(39) * 2)}'\n"),
    ):
        path = postgres.cluster / name
        path.write_text(text)
        os.chown(path, owner.st_uid, owner.st_gid)


def kill(postgres: EmbeddedPostgres) -> None:
    """End a server as a lost machine does, and leave it so: it can be started again with its `start`."""
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    postgres.close()


def hosts_url(*servers: EmbeddedPostgres, **options: str) -> str:
    """One URL with several hosts, in this order, as libpq takes it; `options` such as target_session_attrs."""
    each = [conninfo.conninfo_to_dict(one.url) for one in servers]
    together = {name: ",".join(str(one[name]) for one in each) for name in ("host", "port")}
    return conninfo.make_conninfo(servers[0].url, **together, **options)
