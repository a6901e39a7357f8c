"""python -m server postgres: PostgreSQL's own programs on the embedded database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.support.postgres import Embedded


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *words], cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_a_program_runs_on_the_embedded_database_beside_its_server_or_without(
    public_path: Path, embedded: Embedded
) -> None:
    data = public_path / "data"
    ask = ("--data", str(data), "postgres", "psql", "--no-align", "--tuples-only", "--command")
    with embedded(data):
        assert run(*ask, "CREATE TABLE kept AS SELECT 42 AS n").returncode == 0
    alone = run(*ask, "SELECT current_database(), n FROM kept")
    assert (alone.returncode, alone.stdout) == (0, "twinlens|42\n")
    assert run(*ask, "SELECT nothing").returncode == 1
    unknown = run("--data", str(data), "postgres", "oracle")
    assert unknown.returncode == 2
    assert "There is no program oracle" in unknown.stderr
    assert "pg_dump" in unknown.stderr


def test_another_database_has_programs_of_its_own() -> None:
    refused = run("--database-url", "postgresql://127.0.0.1:1/none", "postgres", "psql")
    assert refused.returncode == 2
    assert "PostgreSQL of your own" in refused.stderr
