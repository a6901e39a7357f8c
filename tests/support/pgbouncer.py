"""Debian's pgbouncer in front of a PostgreSQL of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from tests.support.process import until

PROGRAM = Path("/usr/sbin/pgbouncer")

needs_pgbouncer = pytest.mark.skipif(not PROGRAM.exists(), reason="apt install pgbouncer")

_PORT = 6432
_LOG = 20_000  # characters of its log that are shown when a test fails


@contextmanager
def pooled(url: str, mode: str, *, size: int = 2, folder: Path | None = None, **settings: Any) -> Iterator[str]:
    """The URL of the same database behind a pgbouncer of its own, which listens on a socket in a folder of its own.

    `mode`: `session` or `transaction`; `size`: how many connections to PostgreSQL it opens at most; `settings`: more
    lines of its configuration; `folder`: where another one was before, whose URL this one then has.
    """
    target = conninfo.conninfo_to_dict(url)
    account = _account(Path(str(target["host"])))
    folder = folder or Path(mkdtemp(prefix="pgbouncer-", dir="/tmp"))
    folder.mkdir(mode=0o700, exist_ok=True)
    there = {"host": target["host"], "port": target.get("port", "5432"), "dbname": target["dbname"]}
    if account:
        shutil.chown(folder, account["user"], account["group"])
    words = {
        "pool_mode": mode,
        "default_pool_size": size,
        "auth_type": "any",
        "listen_port": _PORT,
        "unix_socket_dir": folder,
        "unix_socket_mode": "0777",
        "max_client_conn": 200,
        "query_wait_timeout": 0,  # who waits for ever is found by the test's own limit, with where each thread is
        **settings,
    }
    user = target.get("user", "postgres")
    lines = ["[databases]", f"behind = {' '.join(f'{key}={value}' for key, value in there.items())} user={user}"]
    lines += ["[pgbouncer]", *(f"{key} = {value}" for key, value in words.items())]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [str(PROGRAM), str(folder / "pgbouncer.ini")], stdout=log, stderr=subprocess.STDOUT, **account
    )
    try:
        pooler = conninfo.make_conninfo(host=str(folder), port=_PORT, user=user, dbname="behind")
        until(lambda: process.poll() is not None or _answers(pooler))
        assert process.poll() is None, (folder / "log").read_text()
        yield pooler
    except BaseException:
        print((folder / "log").read_text()[-_LOG:])
        raise
    finally:
        process.terminate()
        process.wait(timeout=10)
        log.close()
        shutil.rmtree(folder)


def _account(socket: Path) -> dict[str, Any]:
    """Options of `subprocess` for a user who may be pgbouncer, which root may not, and who reaches this socket."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    if socket.is_dir() and socket.stat().st_uid != 0:
        uid, gid = socket.stat().st_uid, socket.stat().st_gid
    return {"user": uid, "group": gid, "extra_groups": []}


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
