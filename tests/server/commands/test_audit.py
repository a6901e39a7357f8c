"""python -m server audit."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from server.__main__ import main
from server.access import audit
from server.access.audit import Entry
from server.database.queries import Queries

NOW = datetime.now(UTC)


@pytest.fixture
def filled(database_url: str) -> str:
    """A database with some entries."""
    entries = [
        Entry(action="keys create", at=NOW - timedelta(days=2), operator="alice", client_id="acme", key_id="k" * 12),
        Entry(
            action="PUT /v1/products/{product_id}",
            at=NOW - timedelta(hours=1),
            key_id="k" * 12,
            client_id="acme",
            address="192.0.2.7",
            object="shoe\x1b[2J",
            status=201,
            request_id="r-1",
        ),
        Entry(action="(several)", at=NOW, status=401, code="key_missing", count=1200),
    ]
    with psycopg.connect(database_url) as connection:
        connection.execute(Queries.read("audit.sql")["add"], audit.columns(entries))
    return database_url


def printed(capsys: pytest.CaptureFixture[str], url: str, *flags: str) -> list[str]:
    assert main(["audit", "--database-url", url, *flags]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_table_has_a_line_an_entry_and_nothing_that_moves_the_cursor(
    filled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head, created, put, refused = printed(capsys, filled)
    assert head.split() == ["at", "who", "from", "client", "action", "object", "result", "request"]
    assert "alice" in created
    assert f"key {'k' * 12}" in created
    assert put.split()[2:] == [
        "key",
        "k" * 12,
        "192.0.2.7",
        "acme",
        "PUT",
        "/v1/products/{product_id}",
        "shoe?[2J",
        "201",
        "r-1",
    ]
    assert refused.endswith("401 key_missing x 1,200")


def test_lines_of_json_have_every_column(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = map(json.loads, printed(capsys, filled, "--json", "--since", "2h", "--client", "acme"))
    assert found == {
        "id": 2,
        "at": (NOW - timedelta(hours=1)).isoformat(),
        "keyId": "k" * 12,
        "operator": None,
        "clientId": "acme",
        "address": "192.0.2.7",
        "action": "PUT /v1/products/{product_id}",
        "object": "shoe\x1b[2J",
        "status": 201,
        "code": None,
        "requestId": "r-1",
        "count": 1,
    }


def test_times_are_ago_or_points_in_time(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    day = f"{NOW - timedelta(days=1):%Y-%m-%d}"
    assert len(printed(capsys, filled, "--json", "--until", day)) == 1
    assert len(printed(capsys, filled, "--json", "--since", day)) == 2
    assert len(printed(capsys, filled, "--json", "--since", "3d", "--until", "30m")) == 2
    assert printed(capsys, filled, "--action", "no such thing") == ["Nothing of that kind is in the audit."]


@pytest.mark.parametrize(
    "flags", [("--since", "yesterday"), ("--until", "2026-13-01"), ("--limit", "0"), ("--limit", "-1")]
)
def test_what_cannot_be_read_is_refused(filled: str, flags: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--database-url", filled, *flags])
