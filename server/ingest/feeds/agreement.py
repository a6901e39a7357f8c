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
PRAGMA cache_size = -32768;
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
_ADD = "INSERT OR IGNORE INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KEEP = "REPLACE INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_KEY_BYTES = 16
# What is said of one product is compared with few others: a mistake in 2^64 is not to be expected.
_SAID_BYTES = 8

_WHAT = ("another name", "another SKU", "another isActive", "other attributes")
_SKU = 2  # where a row of `products` without its key has the SKU

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
        self._product = b""
        self._said: tuple[bytes | int | None, ...] = ()

    def close(self) -> None:
        self._seen.close()

    def take(self, row: Row) -> None:
        """Raises BadParameter where the row contradicts an earlier one; what it says is not kept then."""
        product = _digest(f"{row.client_id}\0{row.product_id}", _KEY_BYTES)
        says = _said_by(row)
        if product == self._product:
            before = self._said
        else:
            first = tuple(one for said in says for one in (said, None if said is None else row.number))
            # Most products are new: they take one statement.
            if self._seen.execute(_ADD, (product, *first)).rowcount:
                self._take_new(row, product, first)
                return
            before = self._seen.execute(_FIND, (product,)).fetchone()
        after = list(before)
        for at, said in enumerate(says):
            if said is None:
                continue
            if after[2 * at] is None:
                after[2 * at : 2 * at + 2] = said, row.number
            elif after[2 * at] != said:
                raise BadParameter(_contradicts(row, at, after[2 * at + 1]))
        if row.sku is not None and before[_SKU] is None:
            self._take_sku(row, product)
        self._product, self._said = product, tuple(after)
        if self._said != before:
            self._seen.execute(_KEEP, (product, *after))

    def _take_new(self, row: Row, product: bytes, said: tuple[bytes | int | None, ...]) -> None:
        try:
            if row.sku is not None:
                self._take_sku(row, product)
        except BadParameter:
            self._seen.execute("DELETE FROM products WHERE key = ?", (product,))
            raise
        self._product, self._said = product, said
        self.products += 1
        if row.client_id != self._client:
            self._client = row.client_id
            self.clients += self._seen.execute("INSERT OR IGNORE INTO clients VALUES (?)", (row.client_id,)).rowcount

    def _take_sku(self, row: Row, product: bytes) -> None:
        key = _digest(f"{row.client_id}\0{row.sku}", _KEY_BYTES)
        if self._seen.execute("INSERT OR IGNORE INTO skus VALUES (?, ?, ?)", (key, product, row.number)).rowcount:
            return
        owner, number = self._seen.execute("SELECT product, at FROM skus WHERE key = ?", (key,)).fetchone()
        if owner != product:
            raise BadParameter(f"The SKU {shown(row.sku)} is that of another product, in line {number}.")


def _said_by(row: Row) -> tuple[bytes | int | None, ...]:
    """What a row says of its product, in the order of `_WHAT`; None: nothing."""
    return (
        None if row.name is None else _digest(row.name, _SAID_BYTES),
        None if row.sku is None else _digest(row.sku, _SAID_BYTES),
        None if row.is_active is None else int(row.is_active),
        None if row.attributes is None else _digest_of(_encode(row.attributes), _SAID_BYTES),
    )


def _contradicts(row: Row, at: int, line: object) -> str:
    what = _WHAT[at]
    sentence = f"It gives the product {shown(row.product_id)} {what} than line {line}."
    if at < len(_WHAT) - 1:
        return sentence
    return (
        f"{sentence} Rows of a product give the same ones, or none; a column that is about the picture is left out "
        "with --ignore."
    )


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
    return _digest_of(text.encode(), size)


def _digest_of(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
