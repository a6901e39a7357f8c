"""What the rows of a feed say together: rows of one product must agree, and a SKU belongs to one product.

What has been seen is kept as digests in a temporary file of SQLite's, which is gone with its connection: a table of
products and one of SKUs in memory would grow with the feed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from server.errors import BadParameter, FeedUnreadable
from server.ingest.feed import Row
from server.ingest.feeds.cells import shown

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE products (
    key BLOB PRIMARY KEY,
    name BLOB, name_at INTEGER,
    sku BLOB, sku_at INTEGER,
    active INTEGER, active_at INTEGER,
    facts BLOB, facts_at INTEGER
) WITHOUT ROWID;
CREATE TABLE skus (key BLOB PRIMARY KEY, product BLOB, at INTEGER) WITHOUT ROWID;
CREATE TABLE clients (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FIND = "SELECT name, name_at, sku, sku_at, active, active_at, facts, facts_at FROM products WHERE key = ?"
_KEEP = "INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_KEY_BYTES = 16
# What is said of one product is compared with few others: a mistake in 2^64 is not to be expected.
_SAID_BYTES = 8

_WHAT = ("name", "SKU", "isActive", "attributes")

_encode = msgspec.json.Encoder(order="deterministic").encode


class Agreement:
    """What the rows so far have said. Memory is bounded; the temporary file has about 100 bytes a product."""

    def __init__(self) -> None:
        self.products = 0
        """Different ones, of all clients."""
        self.clients = 0
        self._seen = sqlite3.connect("", isolation_level=None)
        self._seen.executescript(_TABLES)
        self._seen.execute("BEGIN")
        self._client = ""
        # Rows of a product mostly follow one another.
        self._key = b""
        self._said: tuple[bytes | int | None, ...] = ()

    def close(self) -> None:
        self._seen.close()

    def take(self, row: Row) -> None:
        """Raises BadParameter where the row contradicts an earlier one; what it says is not kept then."""
        key = _digest(f"{row.client_id}\0{row.product_id}", _KEY_BYTES)
        before = self._said if key == self._key else self._seen.execute(_FIND, (key,)).fetchone()
        says = (
            None if row.name is None else _digest(row.name, _SAID_BYTES),
            None if row.sku is None else _digest(row.sku, _SAID_BYTES),
            None if row.is_active is None else int(row.is_active),
            None
            if row.attributes is None
            else hashlib.blake2b(_encode(row.attributes), digest_size=_SAID_BYTES).digest(),
        )
        after = list(before or (None,) * (2 * len(says)))
        for at, said in enumerate(says):
            if said is None:
                continue
            if after[2 * at] is None:
                after[2 * at : 2 * at + 2] = said, row.number
            elif after[2 * at] != said:
                raise BadParameter(
                    f"It gives the product {shown(row.product_id)} another {_WHAT[at]} than line {after[2 * at + 1]:,}."
                    if at < len(_WHAT) - 1
                    else f"It gives the product {shown(row.product_id)} other attributes than line "
                    f"{after[2 * at + 1]:,}. Rows of a product give the same ones, or none; a column that is about "
                    "the picture is left out with --ignore."
                )
        if row.sku is not None:
            self._take_sku(row, key)
        if before is None:
            self.products += 1
        if before is None or tuple(after) != tuple(before):
            self._seen.execute(_KEEP, (key, *after))
        self._key, self._said = key, tuple(after)
        if row.client_id != self._client:
            self._client = row.client_id
            new = self._seen.execute("INSERT OR IGNORE INTO clients VALUES (?)", (row.client_id,))
            self.clients += new.rowcount

    def _take_sku(self, row: Row, product: bytes) -> None:
        key = _digest(f"{row.client_id}\0{row.sku}", _KEY_BYTES)
        before = self._seen.execute("SELECT product, at FROM skus WHERE key = ?", (key,)).fetchone()
        if before is None:
            self._seen.execute("INSERT INTO skus VALUES (?, ?, ?)", (key, product, row.number))
        elif before[0] != product:
            raise BadParameter(f"The SKU {shown(row.sku)} is that of another product, in line {before[1]:,}.")


@contextmanager
def agreement() -> Iterator[Agreement]:
    """Raises FeedUnreadable where the temporary file cannot grow, also while it is used."""
    seen: Agreement | None = None
    try:
        seen = Agreement()
        yield seen
    except sqlite3.Error as exc:
        raise FeedUnreadable(
            f"The temporary file that keeps in mind what rows have said cannot be written: {exc}. Is the disk of "
            "TMPDIR full?"
        ) from exc
    finally:
        if seen is not None:
            seen.close()


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
