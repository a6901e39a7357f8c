"""A feed that was read: its rows by client and product, on the disk, so that a feed of any size needs little memory.

The file has no name and no other process sees it: whatever ends this process, nothing is left of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from server.errors import IngestRefused
from server.ingest.feed import FileOf, KeyOf, PictureOf, Row, UrlOf, Wrong

_CACHE_KIB = 32_768
_ROWS_AT_ONCE = 1_000

_MOST_ROWS_OF_A_PRODUCT = 1_000
"""So many rows of a product are looked at together for what they say of it."""


_FAILED = """
    SELECT f.line, f.reason, r.row
    FROM rows r LEFT JOIN failed f ON f.at = r.at
    WHERE (r.client, r.product) IN (SELECT o.client, o.product FROM failed g JOIN rows o ON o.at = g.at)
    ORDER BY r.at
"""


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

    at: int
    """The row's place in the feed, from 1; several rows may begin in one line."""
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
            self._database.execute("CREATE TABLE rows (at INTEGER PRIMARY KEY, client, product, picture, row)")
            self._database.execute("CREATE TABLE failed (at INTEGER, line INTEGER, reason TEXT)")
            self._database.execute("BEGIN")
        # Rows are read in one thread, while another one says what failed.
        self._turn = threading.Lock()
        self._waiting: list[tuple[int, str, str, bool, bytes]] = []
        self.count = 0
        """How many rows were added."""

    def close(self) -> None:
        self._database.close()

    def add(self, row: Row) -> None:
        """Add the next row."""
        self.count += 1
        self._waiting.append((self.count, row.client_id, row.product_id, row.picture is not None, _packed(row)))
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """All rows were added: put them in order."""
        self._flush()
        with _translated():
            self._database.execute("COMMIT")
            self._database.execute("CREATE INDEX by_product ON rows (client, product, at, picture)")

    def _flush(self) -> None:
        with _translated():
            self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()

    def placed(self) -> Iterator[Placed]:
        """Every row, those of a product one after the other in the order of the feed, client by client."""
        with _translated():
            for (client_id, product_id), rows in groupby(
                self._rows(), key=lambda one: (one[1].client_id, one[1].product_id)
            ):
                place, product = 0, None
                for many in _pieces(rows):
                    if product is None:
                        product = Product(client_id, product_id)
                        for _, row in many:
                            product.add(row)
                    for at, row in many:
                        place += row.picture is not None
                        yield Placed(at, row, product, place if row.picture is not None else 0)

    def _rows(self) -> Iterator[tuple[int, Row]]:
        with self._turn:
            cursor = self._database.execute("SELECT at, row FROM rows ORDER BY client, product, at")
        while page := self._page(cursor):
            for at, packed in page:
                yield at, _unpacked(packed)

    def _page(self, cursor: sqlite3.Cursor) -> list[tuple[int, bytes]]:
        with self._turn:
            return cursor.fetchmany(_ROWS_AT_ONCE)

    def fail(self, wrong: Wrong, at: int | None = None) -> None:
        """Keep why a line is wrong, or why the row at this place in the feed failed."""
        with self._turn, _translated():
            self._database.execute("INSERT INTO failed VALUES (?, ?, ?)", (at, wrong.number, wrong.reason))

    def failed(self) -> Iterator[tuple[Row | None, Wrong | None]]:
        """The wrong lines, without a row; and every row of the products that have a row that failed, with the reason
        where it is the one."""
        with _translated():
            for line, reason in self._database.execute(
                "SELECT line, reason FROM failed WHERE at IS NULL ORDER BY line"
            ):
                yield None, Wrong(line, reason)
            rows = self._database.execute(_FAILED)
            for line, reason, packed in rows:
                yield _unpacked(packed), None if reason is None else Wrong(line, reason)

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


def _pieces(rows: Iterator[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    piece: list[tuple[int, Row]] = []
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
