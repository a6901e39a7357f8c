"""What the tests of the embedded PostgreSQL share: questions to a server, and another process that starts one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.postgres.server import EmbeddedPostgres
from tests import ROOT

PATIENCE = 60.0  # seconds until something that never comes is called missing

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what happens under root")

Embedded = Callable[[Path], EmbeddedPostgres]


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
    """Whether a process runs; a dead one that its parent has not collected does not."""
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
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def read_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())
