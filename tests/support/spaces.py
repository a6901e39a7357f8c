"""Two embedding spaces of a real database, with media that have vectors in one, in both or in none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psycopg

from server.catalogue.rows import SpaceRow
from server.database.migrations import load_migrations, migrate
from server.spaces import spaces
from server.spaces.spaces import ListedSpace, SpaceDescription, State
from tests.support.databases import run_sql

D = 16
OLD, NEW = (hashlib.sha256(name).hexdigest() for name in (b"old", b"new"))


def described(space_id: str) -> SpaceDescription:
    return SpaceDescription(space_id, D, model="test", manifest={}, artifact_path=f"/models/{space_id[:4]}")


def open_old(url: str) -> SpaceRow:
    """The space OLD, which an empty database accepts as its live one."""
    return spaces.open_space(url, described(OLD))


def older_database(url: str, folder: Path, space: SpaceDescription | None = None) -> list[str]:
    """Make the database one of the first version, with a live space; the names of its migrations.

    `folder`: one that is not there yet, for that version's migrations. `space`: OLD unless given.
    """
    folder.mkdir()
    (first, *_) = load_migrations()
    (folder / f"{first.name}.sql").write_text(first.text, encoding="utf-8")
    names = migrate(url, folder)
    spaces.open_space(url, space or described(OLD))
    return names


def register_new(url: str) -> ListedSpace:
    """The space NEW, which is not live."""
    spaces.register(url, described(NEW))
    return spaces.choose(url, NEW)


def add_media(url: str, *ids: str, vectors_in: Iterable[SpaceRow] = (), status: str = "ready") -> None:
    run_sql(url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'c', 'P') ON CONFLICT DO NOTHING""")
    for one in ids:
        run_sql(
            url,
            """INSERT INTO media (id, "productId", "clientId", "s3Key", status) VALUES (%s, 'p', 'c', %s, %s)""",
            (one, one, status),
        )
    for space in vectors_in:
        fill(url, space, ids)


def fill(url: str, space: SpaceRow, ids: Iterable[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for one in ids:
            vector = np.zeros(D)
            vector[0] = 1
            parameters = {"number": space.number, "media_id": one, "embedding": str(vector.tolist())}
            connection.execute(
                f"INSERT INTO twinlens_space_{space.number} VALUES (%(number)s, %(media_id)s, '', true, %(embedding)s) "
                "ON CONFLICT DO NOTHING",
                parameters,
            )


def record_failure(url: str, space: SpaceRow, media: str) -> None:
    run_sql(url, "INSERT INTO twinlens_unreadable VALUES (%s, %s, 'it is a poem')", (space.number, media))


def states(url: str) -> dict[str, State]:
    return {one.id: one.state for one in spaces.list_spaces(url)}


def shown(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute('SELECT "mediaId" FROM image_embeddings').fetchall()}
