"""Row-level security beneath the predicates: the role that serves, and how a database comes to have it.

Every statement names its client. Should one ever forget to, row-level security holds: a server's connections run as a
role that owns nothing, and of every table with clients' rows that role sees the rows of the client that its transaction
names, and no row where none is named. Nothing changes for other roles.

Which role it is depends on the database: the one of DATABASE_URL, where the settings have the owner's URL besides; else
one that is made here, and that connections take on once they have logged in; and none where none may be made. Then
clients are kept apart by the predicates alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row, scalar_row

from server.database.connections import connect
from server.database.locks import with_brief_locks
from server.database.migrations import require_same_database
from server.database.preconditions import quoted
from server.database.queries import Queries
from server.errors import BadSetting

_log = logging.getLogger(__name__)

SERVING_ROLE = "twinlens_server"
"""The role that is made where no other one is given. The databases of a cluster share it."""

_GRANTS_SAY_HOW = 160_000  # as server_version_num: from here on a grant says whether a role may be taken on
_QUERIES = Queries.read("rows.sql")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Isolation:
    """How clients are kept apart in a database."""

    role: str | None
    """The role that serves, under row-level security; None: the predicates alone keep clients apart."""
    login: str
    """Who logs in with the URL that serves."""
    reason: str = ""
    """Why there is no role: a sentence without its full stop."""
    statements: tuple[str, ...] = ()
    """What an administrator of the database would run to change that, before servers are started again."""

    @property
    def sentence(self) -> str:
        """What an operator may want to know."""
        if self.role is None:
            return f"Clients are kept apart by the predicates of the statements alone: {self.reason}."
        how = "" if self.role == self.login else f", which {self.login} takes on"
        return f"Servers serve as the role {self.role}{how}: it sees the rows of one client at a time."


@dataclass(frozen=True)
class _Login:
    name: str
    version: int
    superuser: bool
    bypasses: bool
    may_make: bool
    owner: bool


@dataclass(frozen=True)
class _Role:
    passes: bool
    may: bool


def find(url: str) -> Isolation:
    """How a server that serves with this URL keeps clients apart. Changes nothing. Raises DatabaseUnusable."""
    with connect(url) as connection:
        login = _login(connection)
        with connection.cursor(row_factory=scalar_row) as cursor:
            try:
                serving = cursor.execute(_QUERIES["serving"], {"role": SERVING_ROLE}).fetchall()
            except psycopg.errors.InsufficientPrivilege:
                return Isolation(None, login.name, f"{login.name} has no rights on the catalogue yet")
            for name in serving:
                role = _role(connection, name)
                if role is None or role.passes or not role.may:
                    continue
                if lacking := cursor.execute(_QUERIES["open_tables"]).fetchall():
                    return Isolation(None, login.name, f"the table {lacking[0]} lacks its policies, or rights on it")
                return Isolation(name, login.name)
        return _without(login, _role(connection, SERVING_ROLE))


def arrange(url: str, serving_url: str | None = None) -> Isolation:
    """Have the database keep clients apart by row-level security, where that may be; any number of times.

    `url`: the owner's; the database is migrated. `serving_url`: what the server serves with, where it is another one.
    Raises BadSetting when the role of that one would not be held by any policy, DatabaseUnusable, SpaceRefused where
    other transactions keep the tables for a minute.
    """
    if serving_url is not None:
        require_same_database(url, serving_url, "TWINLENS_OWNER_DATABASE_URL")
        with connect(serving_url) as connection:
            role = _require_held(_login(connection))
    else:
        if not make_role(url):
            return find(url)
        role = SERVING_ROLE
    with connect(url) as connection:
        try:
            if role not in _values(connection, "serving") or _values(connection, "open_tables"):
                with_brief_locks(connection, lambda one: _serve_as(one, role))
        except psycopg.errors.InsufficientPrivilege as exc:
            message = exc.diag.message_primary or "a right is missing"
            return Isolation(
                None, _login(connection).name, f"the role {role} could not be given its rights ({message})"
            )
    return find(serving_url or url)


def make_role(url: str) -> bool:
    """Make the role, where there is none, and let who logs in take it on; whether it can be used now."""
    with connect(url) as connection:
        for _ in range(_ATTEMPTS):  # another start, of another database of the cluster, may do the same just now
            try:
                login, role = _login(connection), _role(connection, SERVING_ROLE)
                if role is not None and role.may:
                    return not role.passes
                if role is None and not login.may_make:
                    return False
                name = sql.Identifier(SERVING_ROLE)
                with connection.transaction():
                    if role is None:
                        connection.execute(_QUERIES.composed("make_role", role=name))
                    if not login.superuser:
                        grant = "grant_role" if login.version >= _GRANTS_SAY_HOW else "grant_role_plainly"
                        connection.execute(_QUERIES.composed(grant, role=name))
            except psycopg.errors.InsufficientPrivilege:
                return False
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation, psycopg.errors.InternalError_):
                continue
        return False


def log(isolation: Isolation) -> None:
    """One line for the log of a start."""
    if isolation.role is None:
        _log.warning("%s python -m server doctor says what would change that.", isolation.sentence)
    else:
        _log.info("%s", isolation.sentence)


def _require_held(login: _Login) -> str:
    """The name of a role that policies hold. Raises BadSetting."""
    what = (
        "a superuser"
        if login.superuser
        else "a role that bypasses row-level security"
        if login.bypasses
        else "the owner of the catalogue's tables, or may become it"
        if login.owner
        else None
    )
    if what is not None:
        raise BadSetting(
            f"TWINLENS_OWNER_DATABASE_URL is given, so TWINLENS_DATABASE_URL must be of a role that row-level security "
            f"holds, and {login.name} is {what}. Give it one that owns nothing: CREATE ROLE twinlens_app LOGIN; or "
            "leave TWINLENS_OWNER_DATABASE_URL out."
        )
    return login.name


def _without(login: _Login, role: _Role | None) -> Isolation:
    """Why nothing but the predicates keeps clients apart, and what would change that."""
    statements = []
    if role is None:
        reason = f"there is no role {SERVING_ROLE}"
        statements.append(f"CREATE ROLE {SERVING_ROLE} NOLOGIN;")
    elif role.passes:
        return Isolation(None, login.name, f"the role {SERVING_ROLE} owns tables, or bypasses row-level security")
    else:
        reason = f"{login.name} may not take on the role {SERVING_ROLE}"
    if role is None and login.may_make:
        return Isolation(None, login.name, reason)
    if role is None or not role.may:
        how = " WITH INHERIT FALSE, SET TRUE" if login.version >= _GRANTS_SAY_HOW else ""
        statements.append(f"GRANT {SERVING_ROLE} TO {quoted(login.name)}{how};")
    else:
        reason = f"the role {SERVING_ROLE} has no rights yet"
    return Isolation(None, login.name, reason, tuple(statements))


def _serve_as(connection: Connection[TupleRow], role: str) -> None:
    connection.execute(_QUERIES["serve_as"], {"role": role})


def _login(connection: Connection[TupleRow]) -> _Login:
    with connection.cursor(row_factory=class_row(_Login)) as cursor:
        (found,) = cursor.execute(_QUERIES["login"]).fetchall()
    return found


def _role(connection: Connection[TupleRow], name: str) -> _Role | None:
    with connection.cursor(row_factory=class_row(_Role)) as cursor:
        return cursor.execute(_QUERIES["role"], {"role": name}).fetchone()


def _values(connection: Connection[TupleRow], name: str) -> list[str]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_QUERIES[name], {"role": SERVING_ROLE}).fetchall()
