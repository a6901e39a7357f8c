"""Dumps of a place, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from server.catalogue.rows import SpaceRow
from server.database.connections import Direct
from server.dump import manifest as manifests
from server.dump.dump import Made, Wanted, make
from server.dump.load import Loaded, check, load
from server.dump.load import Wanted as WantedBack
from server.operations.progress import unseen
from tests.support.backups import Place
from tests.support.databases import run_sql


def dump(place: Place, folder: Path, **options: Any) -> Made:
    """As the command does it. Options are those of `Wanted`, and `store`, `bounds`."""
    store, bounds = options.pop("store", place.store), options.pop("bounds", None)
    return make(Direct(place.url), store, folder, Wanted(**options), show=unseen, bounds=bounds)


def load_back(place: Place, folder: Path, space: SpaceRow | None, **options: Any) -> Loaded:
    """As the command does it, into a database that has its tables."""
    wanted = WantedBack(**options)
    manifest = manifests.read(folder)
    check(folder, manifest, wanted, unseen)
    return load(Direct(place.url), place.store, folder, manifest, space, wanted, show=unseen)


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table, as pyarrow reads all of its files at once."""
    found: list[dict[str, Any]] = pq.read_table(folder / table).to_pylist()
    return found


COLUMNS = {
    "products": '"clientId", coalesce("apiId", id), name, sku, "isActive", attributes::text, "createdAt"',
    "media": 'm."clientId", coalesce(m."apiId", m.id), coalesce(p."apiId", p.id), kind, status, "s3Key", '
    '"thumbnailKey", "contentType", bytes, width, height, "contentDigest", m."createdAt"',
}


def catalogue(url: str) -> dict[str, list[Any]]:
    """What callers see of a database's catalogue, and every bit of the live space's vectors."""
    ((number,),) = run_sql(url, "SELECT number FROM twinlens_spaces WHERE live") or ((None,),)
    vectors = f"""
        SELECT m."clientId", coalesce(m."apiId", m.id), halfvec_send(v.embedding), v.blank, v.reading, v.active
        FROM twinlens_space_{number} v JOIN media m ON m.id = v."mediaId" ORDER BY 1, 2
    """
    return {
        "attributes": run_sql(url, 'SELECT "clientId", name, type FROM twinlens_attributes ORDER BY 1, 2'),
        "products": run_sql(url, f"SELECT {COLUMNS['products']} FROM products ORDER BY 1, 2"),
        "media": run_sql(
            url, f'SELECT {COLUMNS["media"]} FROM media m JOIN products p ON p.id = m."productId" ORDER BY 1, 2'
        ),
        "vectors": run_sql(url, vectors) if number is not None else [],
    }
