"""A catalogue with something of everything in it, and what an onlooker sees of a database and a store."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from server.backup.archive import Archive
from server.backup.backup import Made, make
from server.backup.restore import Restored, check, restore
from server.database.connections import Direct
from server.database.isolation import arrange
from server.ingest.mark import settle
from server.ingest.storage import MARK, MediaStore
from server.operations.progress import unseen
from server.spaces import spaces
from tests.support.catalogue import D, fill
from tests.support.databases import run_sql
from tests.support.house import open_house, picture
from tests.support.keys import new_key, revoked_key
from tests.support.spaces import record_failure, register_new
from tests.support.vectors import unit_vectors

PICTURES = 12
LARGE, VECTORS = "large", 300
"""A client with an index of its own, and its media, which another application has stored."""


def quiet(_: str) -> None:
    """Where a command says what it begins."""


@dataclass(frozen=True)
class Place:
    """A database and the folder of its store."""

    url: str
    folder: Path

    @property
    def store(self) -> MediaStore:
        return MediaStore.at(None, self.folder)

    @property
    def objects(self) -> dict[str, bytes]:
        """All of the store but its mark."""
        files = (path for path in self.folder.rglob("*") if path.is_file()) if self.folder.is_dir() else ()
        found = {str(path.relative_to(self.folder)): path.read_bytes() for path in files}
        found.pop(MARK, None)
        return found

    def back_up(self, path: Path, store: MediaStore | None = None, **options: Any) -> Made:
        return make(Direct(self.url), store or self.store, path, show=unseen, say=quiet, **options)

    def restore(self, path: Path, store: MediaStore | None = None, *, with_media: bool = True) -> Restored:
        """As the command does it."""
        with Archive(path) as archive:
            manifest = check(archive, unseen)
            done = restore(
                Direct(self.url),
                store or self.store,
                archive,
                manifest,
                with_media=with_media and manifest.with_media,
                show=unseen,
                say=quiet,
            )
        arrange(self.url)
        return done


def rows(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text; but for what names this very database's store and roles."""
    ours = {"twinlens_store", "twinlens_access", "twinlens_migrations", "twinlens_rates"}
    tables = run_sql(url, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    found = {
        name: [row for (row,) in run_sql(url, f'SELECT t::text FROM "{name}" t ORDER BY 1')]
        for (name,) in tables
        if name not in ours
    }
    found["access"] = run_sql(url, 'SELECT "keysOn", "urlSecret" FROM twinlens_access')
    found["migrations"] = run_sql(url, "SELECT number, name, digest FROM twinlens_migrations ORDER BY 1")
    return found


def shapes(url: str) -> dict[str, list[Any]]:
    """What the database is made of beside its rows: columns, indexes, constraints, triggers, functions, views."""
    schema = "'public'::regnamespace"
    not_of_an_extension = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
    statements = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity "
        "FROM information_schema.columns WHERE table_schema = 'public'",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated "
        f"FROM pg_constraint WHERE connamespace = {schema}",
        "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "functions": f"SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = {schema} "
        f"AND p.prokind = 'f' AND {not_of_an_extension}",
        "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
        "sequences": "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'",
        "options": f"SELECT relname, relpersistence::text, reloptions FROM pg_class WHERE relnamespace = {schema}",
    }
    return {name: sorted(map(str, run_sql(url, statement))) for name, statement in statements.items()}


def isolation(url: str) -> dict[str, list[Any]]:
    """How clients are kept apart: policies, tables that have them, rights, and the roles that serve."""
    return {
        "policies": run_sql(
            url,
            "SELECT tablename, policyname, permissive, roles::text[], cmd, qual FROM pg_policies ORDER BY 1, 2",
        ),
        "tables": run_sql(url, "SELECT relname, relrowsecurity FROM pg_class WHERE relrowsecurity ORDER BY 1"),
        "rights": run_sql(
            url,
            """
            SELECT DISTINCT c.relname::text, a.privilege_type, a.grantee::regrole::text
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE a.grantee <> c.relowner AND c.relnamespace = 'public'::regnamespace ORDER BY 1, 2, 3
            """,
        ),
        "serving": run_sql(url, 'SELECT "servingRoles" FROM twinlens_access'),
    }


def furnish(place: Place) -> None:
    """Put something of everything into a migrated database and its store."""
    asyncio.run(_furnish(place))
    url = place.url
    settle(url, place.store)
    new_key(url, "search,read,write")
    new_key(url, "search", "other")
    revoked_key(url, "admin", None)
    run_sql(url, "INSERT INTO twinlens_limits VALUES ('acme', %s)", (Jsonb({"requests": 50}),))
    run_sql(
        url,
        'INSERT INTO twinlens_audit (action, "clientId", address, status) '
        "SELECT 'PUT /v1/products/{product_id}', 'acme', '192.0.2.7', 200 FROM generate_series(1, 30)",
    )
    run_sql(url, "INSERT INTO twinlens_rates VALUES ('acme', 'requests', 1.5)")
    run_sql(url, """UPDATE products SET attributes = '{"price": 49.9}', "isActive" = false WHERE id = 'p1'""")


async def _furnish(place: Place) -> None:
    async with open_house(place.url, place.folder) as house:
        for number in range(3):
            await house.catalogue.put_product("acme", f"p{number}", name=f"Thing {number} – ‘é’ \\ \t")
        for number in range(PICTURES):
            await house.add(picture(number), f"p{number % 3}")
        (live,) = spaces.list_spaces(place.url)
        fill(place.url, live, LARGE, unit_vectors(VECTORS, D, 1))
        await house.catalogue.maintain_indexes(threshold=200)
    ((media,),) = run_sql(place.url, 'SELECT id FROM media ORDER BY "createdAt" LIMIT 1')
    record_failure(place.url, register_new(place.url), media)
    run_sql(
        place.url,
        'INSERT INTO twinlens_recall (space, "clientId", embedding, "limit", expected, found) '
        "SELECT 1, 'large', %s::halfvec, 24, 24, 23",
        (str(np.eye(D)[0].tolist()),),
    )
    keys = run_sql(
        place.url, f'UPDATE media SET "s3Key" = \'elsewhere/\' || id WHERE "clientId" = \'{LARGE}\' RETURNING "s3Key"'
    )
    (place.folder / "elsewhere").mkdir()
    for (key,) in keys:
        (place.folder / key).write_bytes(key.encode())


def digests_hold(place: Place, pictures: int) -> bool:
    """Whether every picture of ours has its bytes in the store, and they are those that its row has the digest of."""
    found = run_sql(place.url, 'SELECT "s3Key", "contentDigest" FROM media WHERE "contentDigest" IS NOT NULL')
    objects = place.objects
    return len(found) == pictures and all(hashlib.sha256(objects[key]).digest() == digest for key, digest in found)
