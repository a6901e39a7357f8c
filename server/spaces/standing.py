"""How the queue of pending pictures stands, for people: how many wait, what was set aside and why, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from server.access.audit import record
from server.database import migrations
from server.database.connections import connect
from server.database.queries import Queries


@dataclass(frozen=True)
class Standing:
    """How many pictures wait for their first try, are being tried, wait for another try, and were set aside."""

    waiting: int
    tried: int
    put_off: int
    set_aside: int


@dataclass(frozen=True)
class Reason:
    """Why pictures were put off, or set aside: the code, one of the sentences, how many, and the API's id of one."""

    code: str
    set_aside: bool
    media: int
    reason: str
    example: str


def standing(url: str) -> Standing:
    """How the queue stands. Raises DatabaseUnusable."""
    migrations.require_migrated(url)
    with connect(url) as connection, connection.cursor(row_factory=class_row(Standing)) as cursor:
        return cursor.execute(Queries.read("pending.sql")["standing"]).fetchone() or Standing(0, 0, 0, 0)


def reasons(url: str) -> list[Reason]:
    """Why pictures were set aside, or put off; the most frequent reasons first. Raises DatabaseUnusable."""
    migrations.require_migrated(url)
    with connect(url) as connection, connection.cursor(row_factory=class_row(Reason)) as cursor:
        return cursor.execute(Queries.read("pending.sql")["reasons"]).fetchall()


def put_back(url: str) -> int:
    """Make pictures pending again that workers have set aside; how many. Raises DatabaseUnusable."""
    migrations.require_migrated(url, writing=True)
    with connect(url) as connection, connection.transaction():
        count = connection.execute(Queries.read("pending.sql")["put_back"]).rowcount
        if count:
            record(connection, "worker retry-failed")
        return count
