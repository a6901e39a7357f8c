"""Databases for tests: one PostgreSQL for all, fresh databases in it, and statements run on them by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from server.postgres.cluster import place_cluster, write_note
from server.postgres.server import LOCKS, EmbeddedPostgres

_ATTEMPTS = 4


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of the PostgreSQL of TWINLENS_TEST_DATABASE_URL, or of an embedded one in `folder`."""
    given = os.environ.get("TWINLENS_TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Nothing in it outlives the run, so nothing waits for the disk; that data survive is proved on others.
    embedded = EmbeddedPostgres(folder, extra_settings=["fsync=off", "full_page_writes=off"])
    try:
        yield embedded.start()
    finally:
        discard(embedded)


def discard(postgres: EmbeddedPostgres) -> None:
    """Stop an embedded PostgreSQL and delete its data, which under root may lie outside the test's folder."""
    postgres.close()
    shutil.rmtree(postgres.cluster, ignore_errors=True)
    for lock in LOCKS:
        postgres.cluster.with_name(postgres.cluster.name + lock).unlink(missing_ok=True)


class ReadyCluster:
    """A cluster that was made in `data`, and stopped. To copy it takes a tenth of what it takes to make another."""

    def __init__(self, data: Path) -> None:
        self._made = EmbeddedPostgres(data)
        self._made.start()
        self._made.close()

    def copy_to(self, data: Path) -> None:
        """Make the folder `data`, with the cluster where a server would have made it."""
        data.mkdir(parents=True)
        cluster, _ = place_cluster(data.resolve())
        subprocess.run(["cp", "-a", self._made.cluster, cluster], check=True)
        if cluster.parent != data.resolve():
            write_note(data, cluster)

    def discard(self) -> None:
        discard(self._made)


def in_database(url: str, name: str) -> str:
    """The same server, another of its databases."""
    return conninfo.make_conninfo(url, dbname=name)


def database_of(url: str) -> str:
    """The name of the database."""
    return str(conninfo.conninfo_to_dict(url)["dbname"])


def _copied(connection: psycopg.Connection[Any], create: sql.Composed) -> None:
    """Run CREATE DATABASE. A session that has left the template may still be ending, for seconds on a busy machine."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            connection.execute(create)
            return
    connection.execute(create)


@contextmanager
def fresh_database(url: str, template: str = "template1") -> Iterator[str]:
    """The URL of a new database on this server, a copy of the template; dropped at the end."""
    name = f"twinlens_test_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(url, autocommit=True) as connection:
        _copied(connection, create)
    try:
        yield in_database(url, name)
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run_sql(url: str, statement: str, parameters: Any = None) -> list[Any]:
    """The rows of a statement, sent by hand as an operator or the legacy application would send it."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def cut_connections(url: str) -> None:
    """End all other sessions of the database, as an administrator or a restart of PostgreSQL does."""
    run_sql(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@contextmanager
def role(url: str) -> Iterator[str]:
    """The name of a role that may log in and nothing else; dropped at the end, with its rights in this database."""
    name = f"twinlens_role_{uuid.uuid4().hex[:8]}"
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        yield name
    finally:
        run_sql(url, f"DROP OWNED BY {name}")
        run_sql(url, f"DROP ROLE {name}")


def as_role(url: str, name: str) -> str:
    """The same database, for a role of `role`."""
    return conninfo.make_conninfo(url, user=name, password="x")


def contents(url: str) -> set[tuple[str, str]]:
    """All that is in a database, by kind and name: what a refusal must leave as it is."""
    found = run_sql(
        url,
        """
        SELECT 'relation', oid::regclass::text FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'extension', extname FROM pg_extension
        UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
        """,
    )
    return {(_text(kind), _text(name)) for kind, name in found}


def applied(url: str) -> list[str]:
    """The names of the migrations that a database has."""
    return [name for (name,) in run_sql(url, "SELECT name FROM twinlens_migrations ORDER BY number")]


def _text(value: str | bytes) -> str:
    """A database encoded in SQL_ASCII gives bytes."""
    return value.decode() if isinstance(value, bytes) else value
