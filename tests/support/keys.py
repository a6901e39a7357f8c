"""Keys in a test's database, made as the command makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from server.access import stored_keys
from server.access.scopes import scopes_of
from server.access.stored_keys import Made, Wanted
from tests.support.databases import run_sql

ACME, OTHER = "acme", "other"


def new_key(url: str, scopes: str, client_id: str | None = ACME, expires_at: datetime | None = None) -> Made:
    """A key of the database at `url`, which turns keys on there."""
    with psycopg.connect(url, autocommit=True) as connection:
        return stored_keys.create(connection, Wanted(client_id, scopes_of(scopes), expires_at=expires_at))


def expired_key(url: str, scopes: str, client_id: str | None = ACME) -> Made:
    """A key that was good until a moment ago."""
    made = new_key(url, scopes, client_id, datetime.now(UTC) + timedelta(days=1))
    run_sql(
        url, """UPDATE twinlens_keys SET "expiresAt" = now() - interval '1 second' WHERE id = %s""", (made.stored.id,)
    )
    return made


def revoked_key(url: str, scopes: str, client_id: str | None = ACME) -> Made:
    made = new_key(url, scopes, client_id)
    revoke(url, made)
    return made


def revoke(url: str, made: Made) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        stored_keys.revoke(connection, made.stored.id)
