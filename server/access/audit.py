"""The audit: who wrote what, from where, and what came of it. Entries are kept in a table, and read by the operator."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from server.database.queries import Queries

_QUERIES = Queries.read("audit.sql")

_LONGEST = 800
"""Characters of a text that a caller chose. An id that can be in the catalogue has at most 128, each of which may be a
slash, and be written as `%2F`; and there may be two."""

# PostgreSQL's text holds every character but these: a NUL, and halves of a pair.
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit; the columns of `twinlens_audit` by their meaning."""

    action: str
    at: datetime = field(default_factory=_now)
    key_id: str | None = None
    operator: str | None = None
    client_id: str | None = None
    address: str | None = None
    object: str | None = None
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    count: int = 1

    @property
    def kept(self) -> Entry:
        """As the table can hold it: a caller may have sent any character, and any number of them."""
        return replace(self, key_id=_text(self.key_id), client_id=_text(self.client_id), object=_text(self.object))

    @property
    def fields(self) -> dict[str, str | int]:
        """What programs look for in its line."""
        named = {
            "event": "audit",
            "action": self.action,
            "object": _text(self.object),
            "client": _text(self.client_id),
            "key": _text(self.key_id),
            "operator": self.operator,
            "address": self.address,
            "status": self.status,
            "code": self.code,
            "requestId": self.request_id,
            "count": self.count,
        }
        return {name: value for name, value in named.items() if value is not None}

    def __str__(self) -> str:
        """A line for the log, in which nothing that a caller chose can look like another line."""
        who = f"operator {self.operator!r}" if self.operator else f"key {self.key_id!r}" if self.key_id else "no key"
        came = f"{self.status}{f' {self.code}' if self.code else ''}" if self.status else "no answer"
        parts = [
            self.action,
            repr(_text(self.object)) if self.object else "",
            f"of client {_text(self.client_id)!r}" if self.client_id else "",
            f"by {who}",
            f"from {self.address}" if self.address else "",
        ]
        end = "" if self.operator else f": {came}"
        request = f" (request {self.request_id})" if self.request_id else ""
        several = f", {self.count:,} times" if self.count > 1 else ""
        return " ".join(part for part in parts if part) + end + several + request


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEntry(Entry):
    """An entry as the table has it."""

    id: int


def _text(text: str | None) -> str | None:
    return _NOT_TEXT.sub("�", text[:_LONGEST]) if text is not None else None


def columns(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """The parameters of the statement `add`."""
    kept = [one.kept for one in entries]
    return {name: [getattr(one, name) for one in kept] for name in Entry.__slots__}


def record(
    connection: Connection[Any],
    action: str,
    *,
    client_id: str | None = None,
    key_id: str | None = None,
    object: str | None = None,
) -> None:
    """Keep what a command of the operator's did, within the caller's transaction: neither is there without the other.

    `action`: such as `keys create`; `key_id`: the key that it was done to. Raises psycopg's errors.
    """
    entry = of_operator(action, client_id=client_id, key_id=key_id, object=object)
    connection.execute(_QUERIES["add"], columns([entry]))


def of_operator(
    action: str, *, client_id: str | None = None, key_id: str | None = None, object: str | None = None
) -> Entry:
    """The entry of a command of the operator's."""
    return Entry(action=action, operator=operator(), client_id=client_id, key_id=key_id, object=object)


def operator() -> str:
    """The user of the operating system who runs this process: a name, or a number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def read(
    connection: Connection[Any],
    *,
    client_id: str | None = None,
    key_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    action: str | None = None,
    limit: int,
) -> list[KeptEntry]:
    """The newest entries of a client, a key, a time, an action (a part of its text), the oldest of them first."""
    cursor = connection.cursor(row_factory=class_row(KeptEntry))
    asked = {"client_id": client_id, "key_id": key_id, "since": since, "until": until}
    return cursor.execute(_QUERIES["entries"], {**asked, "action": action, "limit": limit}).fetchall()
