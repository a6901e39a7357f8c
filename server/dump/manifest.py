"""What a dump says of itself, and whether it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from server.artifact.artifact import short_id
from server.errors import DumpRefused

FORMAT = 1
"""Of what this version writes, and the newest that it reads."""

MANIFEST = "twinlens-dump.json"
"""Written last: a folder without it holds no whole dump."""

_PIECE = 1024 * 1024

Table = Literal["attributes", "products", "media", "vectors", "pictures"]


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Parquet file of a dump."""

    path: str
    """Relative to the dump's folder, with / in between."""
    table: Table
    rows: int
    bytes: int
    sha256: str
    """In hex."""
    space: str | None = None
    """The id of the space, where the rows are vectors."""


class Space(msgspec.Struct, frozen=True):
    """An embedding space that the dump has vectors of."""

    id: str
    """64 hex digits."""
    dimensions: int
    model: str
    live: bool
    """Whether searches ran in it."""
    vectors: int

    def __str__(self) -> str:
        return f"{short_id(self.id)} ({self.model})"


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a dump says of itself, as JSON."""

    format: int
    id: str
    """Drawn at random; 32 hex digits."""
    twinlens: str
    """The version that made it."""
    created_at: str
    """The moment whose catalogue it is, in UTC, as ISO 8601 has it."""
    client: str | None
    """Whose catalogue it is; None: that of all clients."""
    with_pictures: bool
    """Whether the pictures' bytes are beside the tables."""
    products: int
    media: int
    pictures: int
    """Pictures and thumbnails whose bytes are in it."""
    spaces: tuple[Space, ...]
    files: tuple[File, ...]

    def files_of(self, table: Table, space: str | None = None) -> Sequence[File]:
        """The files of a table; of vectors, those of one space."""
        return [one for one in self.files if one.table == table and one.space == space]

    def space(self, space_id: str) -> Space | None:
        """The space with this id, where the dump has vectors of it."""
        return next((one for one in self.spaces if one.id == space_id), None)


class _Format(msgspec.Struct):
    format: int


def read(folder: Path) -> Manifest:
    """The manifest of the dump in a folder. Raises DumpRefused where this version cannot load it."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise DumpRefused(
            f"{folder} holds no dump, or one that was never finished: {MANIFEST}, which is written last, is not there."
        ) from None
    except OSError as exc:
        raise DumpRefused(f"{folder / MANIFEST} cannot be read: {exc.strerror or exc}.") from exc
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise DumpRefused(
                f"The dump in {folder} is of format {found}, and this version of Twinlens knows formats up to "
                f"{FORMAT}: load it with the version that made it, or a newer one."
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as exc:
        raise DumpRefused(f"{folder / MANIFEST} is damaged: {exc}.") from exc
    for one in manifest.files:
        path = PurePosixPath(one.path)
        if path.is_absolute() or ".." in path.parts:
            raise DumpRefused(
                f"{folder / MANIFEST} is damaged: it names {one.path}, which is not in the dump's folder."
            )
    return manifest


def sha256_of(path: Path, on_piece: Callable[[int], None] = lambda _: None) -> bytes:
    """The digest of a file. `on_piece`: told of the bytes that were read. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            on_piece(len(piece))
    return digest.digest()
