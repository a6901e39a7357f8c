"""The keys of a database: make one, list them, replace one, revoke one, and turn the need for keys on and off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from server.access.audit import record
from server.access.clients import check_id
from server.access.keys import StoredKey, digest_of, new_key, search_secret_of
from server.access.scopes import Scope
from server.database.queries import Queries
from server.errors import BadParameter

_QUERIES = Queries.read("access.sql").including("key_columns")

_LONGEST_NAME = 200
_MAY_SEARCH = frozenset({"search", "admin"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to be made. Raises BadParameter where there can be none like it."""

    client_id: str | None
    """None: of an admin key, which is every client's."""
    scopes: tuple[Scope, ...]
    name: str | None = None
    expires_at: datetime | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        admin = "admin" in self.scopes
        if admin and self.client_id is not None:
            raise BadParameter("A key with the scope admin is every client's: leave the client out, or the scope.")
        if not admin and self.client_id is None:
            raise BadParameter("Name the client whose key it is. Only a key with the scope admin is every client's.")
        if self.client_id is not None:
            check_id("The client", self.client_id)
        if self.name is not None and not (0 < len(self.name) <= _LONGEST_NAME and self.name.isprintable()):
            raise BadParameter(f"A key's name has 1 to {_LONGEST_NAME} characters, all of them printable.")
        if self.expires_at is not None and self.expires_at <= datetime.now(UTC):
            raise BadParameter("The key would be expired when it is made.")


@dataclass(frozen=True, slots=True)
class Made:
    """A new key: the only time that the key itself is known."""

    key: str = field(repr=False)
    stored: StoredKey


def create(connection: Connection[Any], wanted: Wanted) -> Made:
    """Make a key. From then on callers need one."""
    with connection.transaction():
        made = _add(connection, wanted)
        connection.execute(_QUERIES["turn"], {"on": True})
        _record(connection, "keys create", made.stored)
    return made


def all_keys(connection: Connection[Any], client_id: str | None = None) -> list[StoredKey]:
    """All keys, or those of a client, the newest last."""
    with connection.cursor(row_factory=class_row(StoredKey)) as cursor:
        return cursor.execute(_QUERIES["keys"], {"client_id": client_id}).fetchall()


def rotate(connection: Connection[Any], id_: str, grace: timedelta) -> tuple[Made, StoredKey]:
    """A new key like this one, and the old one as it is then: it expires after the grace period, or earlier.

    The new one expires when the old one would have. Whether callers need a key stays as it is. Raises BadParameter
    where there is no such key, or it cannot be used any more.
    """
    now = datetime.now(UTC)
    with connection.transaction():
        old = _one(connection, "key", id=id_)
        if not old.good_at(now):
            raise BadParameter(
                f"The key {id_} is {'revoked' if old.revoked_at else 'expired'} already: make a new one."
            )
        wanted = Wanted(old.client_id, old.scopes, old.name, old.expires_at, old.limits)
        made = _add(connection, wanted, replaces=old.id)
        _record(connection, "keys rotate", old)
        _record(connection, "keys create", made.stored)
        return made, _one(connection, "end_key", id=id_, at=now + grace)


def revoke(connection: Connection[Any], id_: str) -> StoredKey:
    """Have a key be refused from now on. Raises BadParameter where there is none of this id."""
    with connection.transaction():
        key = _one(connection, "revoke_key", id=id_)
        _record(connection, "keys revoke", key)
    return key


def turn(connection: Connection[Any], *, on: bool) -> None:
    """Have callers need a key, or need none. Raises BadParameter where nobody has a key that could be used."""
    if on and not usable(connection):
        raise BadParameter(
            "There is no key that could be used, so every caller would be refused. Make one, which turns keys on too: "
            "python -m server keys create --client CLIENT --scope search,read,write"
        )
    with connection.transaction():
        connection.execute(_QUERIES["turn"], {"on": on})
        record(connection, "keys on" if on else "keys off")


def _record(connection: Connection[Any], action: str, key: StoredKey) -> None:
    record(connection, action, client_id=key.client_id, key_id=key.id, object=key.id)


def usable(connection: Connection[Any]) -> list[StoredKey]:
    """The keys that are neither revoked nor expired."""
    with connection.cursor(row_factory=class_row(StoredKey)) as cursor:
        return cursor.execute(_QUERIES["usable_keys"]).fetchall()


def are_on(connection: Connection[Any]) -> bool:
    """Whether callers need a key; they do not in a database that knows nothing of keys yet."""
    if connection.execute(_QUERIES["there"]).fetchone() != (True,):
        return False
    with connection.cursor(row_factory=dict_row) as cursor:
        state = cursor.execute(_QUERIES["state"]).fetchone()
    return state is not None and bool(state["keys_on"])


def _add(connection: Connection[Any], wanted: Wanted, replaces: str | None = None) -> Made:
    id_, key = new_key()
    stored = _one(
        connection,
        "add_key",
        id=id_,
        name=wanted.name,
        client_id=wanted.client_id,
        scopes=list(wanted.scopes),
        digest=digest_of(key),
        search_secret=search_secret_of(key) if _MAY_SEARCH & set(wanted.scopes) else None,
        limits=Jsonb(dict(wanted.limits)),
        expires_at=wanted.expires_at,
        replaces=replaces,
    )
    return Made(key, stored)


def _one(connection: Connection[Any], statement: str, /, **parameters: Any) -> StoredKey:
    """The key that a statement gives. Raises BadParameter where it gives none."""
    with connection.cursor(row_factory=class_row(StoredKey)) as cursor:
        found = cursor.execute(_QUERIES[statement], parameters).fetchone()
    if found is None:
        raise BadParameter(f"There is no key {parameters['id'][:40]!r}: python -m server keys list shows them.")
    return found
