"""What a backup says of itself, and whether this version of Twinlens can restore it."""

from __future__ import annotations

import msgspec

from server.database.migrations import load_migrations
from server.errors import BackupRefused

FORMAT = 1
"""Of what this version writes, and the newest that it reads."""


class Applied(msgspec.Struct, frozen=True):
    """A migration that the database had."""

    number: int
    name: str
    digest: str


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup says of itself, as JSON."""

    format: int
    id: str
    """Drawn at random; 32 hex digits."""
    created_at: str
    """The moment whose catalogue it is, in UTC, as ISO 8601 has it."""
    postgres: int
    """The major version of the PostgreSQL that it came from."""
    dumped_by: str
    """The version of pg_dump."""
    schema: str
    """Of the catalogue's tables."""
    vector_schema: str
    """Of pgvector."""
    migrations: tuple[Applied, ...]
    store: str | None
    """The id of the mark of the database's store."""
    with_media: bool
    """Whether the pictures are in it."""
    products: int
    media: int
    """Rows of the catalogue."""
    objects: int
    """Pictures and thumbnails that the rows promise."""
    space: str | None = None
    """The id of the live space."""
    model: str | None = None
    other_roles: tuple[str, ...] = ()
    """Roles of the operator's that had rights on the tables: those are not restored."""


def read(data: bytes) -> Manifest:
    """The manifest of a backup. Raises BackupRefused where this version cannot restore it."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise BackupRefused(
                f"The backup is of format {found}, and this version of Twinlens knows formats up to {FORMAT}: restore "
                "it with the version that made it, or a newer one."
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as exc:
        raise BackupRefused(f"The backup's description cannot be read: {exc}.") from exc
    _require_known(manifest)
    return manifest


class _Format(msgspec.Struct):
    format: int


def _require_known(manifest: Manifest) -> None:
    known = {one.number: one for one in load_migrations()}
    for one in manifest.migrations:
        if one.number not in known:
            raise BackupRefused(
                f"The backup is of a newer version of Twinlens than this one: it holds the migration {one.name}, which "
                "is unknown here. Restore it with that version."
            )
        if one.digest != known[one.number].digest:
            raise BackupRefused(
                f"The migration {known[one.number].name} is not the one that made the backup's database: one of the "
                "two versions of Twinlens is no released one."
            )
