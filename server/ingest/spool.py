"""A feed that was read: its rows by client and product, on the disk, so that a feed of any size needs little memory.

The file has no name and no other process sees it: whatever ends this process, nothing is left of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from server.errors import IngestRefused
from server.ingest.feed import FileOf, KeyOf, PictureOf, Row, UrlOf

_CACHE_KIB = 32_768
_ROWS_AT_ONCE = 1_000

_MOST_ROWS_OF_A_PRODUCT = 1_000
"""So many rows of a product are looked at together for what they say of it."""


@dataclass(slots=True)
class Product:
    """What the rows of a product say of it, all together. What is None is not said."""

    client_id: str
    id: str
    name: str | None = None
    sku: str | None = None
    is_active: bool | None = None
    attributes: Mapping[str, Any] | None = None

    def add(self, row: Row) -> None:
        """Take from a row what none before it has said."""
        self.name = row.name if self.name is None else self.name
        self.sku = row.sku if self.sku is None else self.sku
        self.is_active = row.is_active if self.is_active is None else self.is_active
        self.attributes = row.attributes if self.attributes is None else self.attributes


@dataclass(frozen=True, slots=True)
class Placed:
    """A row with its product, and the place of its picture: the how-manyth of the product; 0 without a picture."""

    row: Row
    product: Product
    place: int


class Spool:
    """Rows go in in the order of the feed, and come out by client and product. Close it to free the disk.

    Every method may raise IngestRefused, when the disk is full.
    """

    def __init__(self) -> None:
        with _translated():
            # Without a name it is a file of SQLite's own, deleted as soon as it is opened. Threads use it in turn.
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.execute(
                "CREATE TABLE rows (client TEXT, product TEXT, number INTEGER, picture INTEGER, row BLOB)"
            )
            self._database.execute("BEGIN")
        self._waiting: list[tuple[str, str, int, bool, bytes]] = []
        self.count = 0
        """How many rows were added."""

    def close(self) -> None:
        self._database.close()

    def add(self, row: Row) -> None:
        """Add the next row."""
        self._waiting.append((row.client_id, row.product_id, row.number, row.picture is not None, _packed(row)))
        self.count += 1
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """All rows were added: put them in order."""
        self._flush()
        with _translated():
            self._database.execute("COMMIT")
            self._database.execute("CREATE INDEX by_product ON rows (client, product, number, picture)")

    def _flush(self) -> None:
        with _translated():
            self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()

    def placed(self) -> Iterator[Placed]:
        """Every row, those of a product one after the other in the order of the feed, client by client."""
        with _translated():
            for (_, _), rows in groupby(self._rows(), key=attrgetter("client_id", "product_id")):
                place, product = 0, None
                for many in _pieces(rows):
                    if product is None:
                        product = Product(many[0].client_id, many[0].product_id)
                        for row in many:
                            product.add(row)
                    for row in many:
                        place += row.picture is not None
                        yield Placed(row, product, place if row.picture is not None else 0)

    def _rows(self) -> Iterator[Row]:
        cursor = self._database.execute("SELECT row FROM rows ORDER BY client, product, number")
        while page := cursor.fetchmany(_ROWS_AT_ONCE):
            for (packed,) in page:
                yield _unpacked(packed)

    def clients(self, most: int) -> list[str]:
        """The clients of the rows, at most so many."""
        with _translated():
            found = self._database.execute("SELECT DISTINCT client FROM rows ORDER BY client LIMIT ?", (most,))
            return [client for (client,) in found]

    def pictures(self, client_id: str, product_id: str) -> int | None:
        """How many pictures of this product the feed has; None where it does not have the product."""
        with _translated():
            counted = "SELECT sum(picture) FROM rows WHERE client = ? AND product = ?"
            (pictures,) = self._database.execute(counted, (client_id, product_id)).fetchone()
        return None if pictures is None else int(pictures)


def _pieces(rows: Iterator[Row]) -> Iterator[list[Row]]:
    piece: list[Row] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _MOST_ROWS_OF_A_PRODUCT:
            yield piece
            piece = []
    if piece:
        yield piece


_Packed = tuple[int, str, str, str | None, str | None, bool | None, dict[str, Any] | None, tuple[str, bytes] | None]
_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Packed)


def _packed(row: Row) -> bytes:
    picture: tuple[str, bytes] | None = None
    match row.picture:
        case FileOf(path):
            picture = ("file", os.fsencode(path))
        case UrlOf(url):
            picture = ("url", url.encode())
        case KeyOf(key):
            picture = ("key", key.encode())
    attributes = None if row.attributes is None else dict(row.attributes)
    facts = (row.name, row.sku, row.is_active, attributes)
    return _encoder.encode((row.number, row.client_id, row.product_id, *facts, picture))


def _unpacked(packed: bytes) -> Row:
    number, client_id, product_id, name, sku, is_active, attributes, picture = _decoder.decode(packed)
    where = None if picture is None else _picture(*picture)
    return Row(number, client_id, product_id, name, sku, is_active, attributes, where)


def _picture(kind: str, where: bytes) -> PictureOf:
    if kind == "file":
        return FileOf(Path(os.fsdecode(where)))
    return UrlOf(where.decode()) if kind == "url" else KeyOf(where.decode())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise IngestRefused(
            f"The rows of the feed could not be kept on the disk while they are worked on ({exc}); nothing was written "
            "to the catalogue by that. They take about as much room as the feed, in the folder of TMPDIR or /var/tmp."
        ) from exc
