"""Log lines: one event is one line, and what is secret is in none of them, tracebacks included."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from server.operations.logs import OncePerMinute
from tests import ROOT
from tests.support.databases import in_database
from tests.support.process import KEYBOARD, Serve, until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(name: str, text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, text, args, None)


def test_the_same_line_of_those_who_try_again_comes_once_a_minute() -> None:
    clock = Clock()
    once = OncePerMinute(clock)
    again = ("server.spaces.maintenance", "Another look follows: %s", "away")
    assert once.filter(record(*again))
    assert not once.filter(record(*again))
    assert once.filter(record("server.spaces.maintenance", "Another look follows: %s", "another cause"))
    clock.now += 61
    assert once.filter(record(*again))


def test_lines_about_requests_are_never_left_out() -> None:
    once = OncePerMinute(Clock())
    for _ in range(3):
        assert once.filter(record("server.http.problems", "the same"))


def test_lines_that_say_only_what_has_changed_are_never_left_out() -> None:
    once = OncePerMinute(Clock())
    for name in ("server.database.connector", "server.database.replica"):
        for _ in range(2):
            assert once.filter(record(name, "It is away."))
            assert once.filter(record(name, "It is back."))


def spoken(log: list[str]) -> list[str]:
    """The lines of what went wrong after the start, without their times."""
    start = next(number for number, line in enumerate(log) if "Ready after" in line)
    lines = [re.fullmatch(r"[0-9T:.-]+Z ((INFO|WARNING|ERROR) .*)\n", line) for line in log[start + 1 :]]
    assert all(lines)
    return [line[1] for line in lines if line and line[2] != "INFO"]


def test_uploads_that_the_store_fails_are_a_line_each_at_most(serve: Serve, database_url: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server = serve("--database-url", database_url, "--media-url", str(store)).ready()
    with server.client() as client:
        client.put("/v1/products/p", json={"name": "A keyboard"}).raise_for_status()
        shutil.rmtree(store, ignore_errors=True)
        store.write_text("a file where the store was")
        for number in range(4):
            answer = client.post("/v1/products/p/media", files={"file": KEYBOARD + bytes([number])})
            assert answer.json()["code"] == "storage_unavailable"
    assert server.stop() == 0
    lines = spoken(server.log)
    # A line for the store that is away, and one for each upload that came before the server had noticed.
    assert 1 <= len(lines) <= 5


def test_an_outage_of_the_database_is_a_few_lines_and_no_traceback(serve: Serve, database_url: str) -> None:
    server = serve("--database-url", database_url, "--deadline", "2").ready()
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with (
        psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection,
        server.client() as client,
    ):
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for _ in range(3):
            assert client.get("/v1/products/p").status_code == 503
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        until(lambda: client.get("/health/ready").status_code == 200)
    assert server.stop() == 0
    lines = spoken(server.log)
    assert not [line for line in lines if "Traceback" in line or line.startswith("File")]
    assert len([line for line in lines if "The database is away" in line]) == 1
    assert len([line for line in lines if "The database is back" in line]) == 1


def test_every_event_with_a_name_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "observability.md").read_text().partition("| `event` | level")[2].partition("\n\n")[0]
    documented = {name for row in page.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    code = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    assert set(re.findall(r'"event": "(\w+)"', code)) <= documented
    assert not {name for name in documented if f'"{name}"' not in code}


# --- secrets --------------------------------------------------------------------------------------------------------

SETUP = """
import logging
from server.operations.logs import log_to_stderr
from server.settings import Settings
log_to_stderr(Settings(database_url="postgresql://shop:h%40shhush@db/shop").redact)
"""


@pytest.mark.parametrize(
    "code",
    [
        "logging.getLogger('psycopg.pool').error(\"error connecting in 'catalogue': %s\", 'no h@shhush here')",
        "logging.getLogger('_granian').error('startup failed: h%40shhush')",
        "try:\n    raise ValueError('h@shhush')\nexcept ValueError:\n    logging.exception('It failed.')",
        "raise ValueError('h@shhush')",
        "import threading; threading.Thread(target=lambda: int('h@shhush')).start()",
    ],
)
def test_a_secret_is_in_no_line_whichever_way_it_takes(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{SETUP}\n{code}"], cwd=ROOT, capture_output=True, text=True)
    assert "***" in done.stderr
    assert "hush" not in done.stderr
