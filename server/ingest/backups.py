"""Whether a backup runs: as long as one does, bytes that no row names any more stay where they are.

A backup takes a moment of the database first, and fetches the pictures that its rows promise afterwards. It says that
it runs before it takes that moment. So whoever has removed a row, and committed that, asks then: where no backup
runs yet, none that begins later sees the row.
"""

from __future__ import annotations

from psycopg.rows import scalar_row

from server.database.failures import translated
from server.database.locks import LOCK_BACKUP, LOCKS
from server.database.pool import Pool
from server.database.queries import Queries

_QUERIES = Queries.read("store.sql")


async def backup_runs(pool: Pool) -> bool:
    """Whether a backup of the pool's database runs at this moment. Raises CatalogueUnavailable and its kinds."""
    with translated():
        async with pool.connection() as connection:
            cursor = connection.cursor(row_factory=scalar_row)
            query = await cursor.execute(_QUERIES["backup_runs"], {"locks": LOCKS, "lock": LOCK_BACKUP})
            return bool(await query.fetchone())
