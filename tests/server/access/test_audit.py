"""Entries of the audit, kept and read, on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from server.access import audit, stored_keys
from server.access.audit import Entry
from server.access.stored_keys import Wanted
from server.database.queries import Queries
from tests.support.databases import as_role, role, run_sql

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
PUT = Entry(
    action="PUT /v1/products/{product_id}",
    at=NOW,
    key_id="abcdefghijkl",
    client_id="acme",
    address="2001:db8::1",
    object="shoe-1",
    status=201,
    request_id="r-1",
)
ADD = Queries.read("audit.sql")["add"]


def keep(url: str, *entries: Entry) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(ADD, audit.columns(entries))


def read(url: str, **asked: object) -> list[audit.KeptEntry]:
    with psycopg.connect(url) as connection:
        return audit.read(connection, **{"limit": 100, **asked})  # type: ignore[arg-type]


def test_an_entry_comes_back_as_it_was_kept(database_url: str) -> None:
    keep(database_url, PUT)
    (found,) = read(database_url)
    assert {name: getattr(found, name) for name in Entry.__slots__} == {
        name: getattr(PUT, name) for name in Entry.__slots__
    }


def test_the_newest_are_given_the_oldest_of_them_first_and_only_those_that_are_asked_for(database_url: str) -> None:
    hours = [replace(PUT, at=NOW + timedelta(hours=n), request_id=f"r-{n}") for n in range(4)]
    other = replace(hours[3], client_id="other", key_id="k" * 12, action="DELETE /v1/media/{media_id}", request_id="o")
    keep(database_url, *hours, other)

    def found(**asked: object) -> list[str | None]:
        return [one.request_id for one in read(database_url, **asked)]

    assert found() == ["r-0", "r-1", "r-2", "r-3", "o"]
    assert found(limit=2) == ["r-3", "o"]
    assert found(client_id="acme", since=NOW + timedelta(hours=2)) == ["r-2", "r-3"]
    assert found(until=NOW + timedelta(hours=1)) == ["r-0"]
    assert found(key_id="k" * 12) == found(action="delete") == found(client_id="other") == ["o"]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "x" * 10_000, "'; DROP TABLE twinlens_audit; --", "\n\r\x1b[2J"])
def test_whatever_a_caller_sends_can_be_kept_and_makes_one_line_of_the_log(database_url: str, text: str) -> None:
    entry = replace(PUT, object=text, client_id=text)
    keep(database_url, entry)
    (found,) = read(database_url)
    assert found.object is not None
    assert len(found.object) <= 800
    assert str(entry).isprintable()


def test_a_line_says_who_what_and_what_came_of_it() -> None:
    assert str(PUT) == (
        "PUT /v1/products/{product_id} 'shoe-1' of client 'acme' by key 'abcdefghijkl' from 2001:db8::1: 201 "
        "(request r-1)"
    )
    refused = Entry(action="DELETE /v1/media/{media_id}", status=401, code="key_missing", count=1200)
    assert str(refused) == "DELETE /v1/media/{media_id} by no key: 401 key_missing, 1,200 times"
    command = Entry(action="keys revoke", operator="alice", client_id="acme", object="abcdefghijkl")
    assert str(command) == "keys revoke 'abcdefghijkl' of client 'acme' by operator 'alice'"


def test_a_command_is_recorded_with_the_users_name_in_the_transaction_of_its_change(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        audit.record(connection, "keys create", client_id="acme", key_id="abcdefghijkl", object="abcdefghijkl")
        connection.rollback()
    assert read(database_url) == []
    with psycopg.connect(database_url) as connection:
        audit.record(connection, "keys create", client_id="acme", key_id="abcdefghijkl", object="abcdefghijkl")
    (found,) = read(database_url)
    assert (found.action, found.operator, found.key_id, found.status) == (
        "keys create",
        audit.operator(),
        "abcdefghijkl",
        None,
    )
    assert found.operator


def test_every_change_of_keys_is_in_the_audit(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        first = stored_keys.create(connection, Wanted("acme", ("search",))).stored.id
        second = stored_keys.rotate(connection, first, timedelta(days=1))[0].stored.id
        stored_keys.revoke(connection, second)
        stored_keys.turn(connection, on=False)
        stored_keys.turn(connection, on=True)
    assert [(one.action, one.object, one.client_id) for one in read(database_url)] == [
        ("keys create", first, "acme"),
        ("keys rotate", first, "acme"),
        ("keys create", second, "acme"),
        ("keys revoke", second, "acme"),
        ("keys off", None, None),
        ("keys on", None, None),
    ]


def test_who_may_only_add_can_neither_read_nor_change_nor_remove(database_url: str) -> None:
    with role(database_url) as name:
        run_sql(database_url, f"GRANT INSERT ON twinlens_audit TO {name}")
        theirs = as_role(database_url, name)
        keep(theirs, PUT)
        for refused in (
            "SELECT FROM twinlens_audit",
            "UPDATE twinlens_audit SET code = ''",
            "DELETE FROM twinlens_audit",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run_sql(theirs, refused)
        assert len(read(database_url)) == 1
