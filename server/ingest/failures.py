"""Rows that could not be brought in, as a file that is a feed again: a JSON object a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from server.errors import IngestRefused
from server.ingest.feed import FAILED_BECAUSE, FAILED_LINE, FileOf, KeyOf, PictureOf, Row, UrlOf, Wrong
from server.ingest.pipeline import Failed
from server.ingest.spool import Spool


class Failures:
    """Counts what failed, keeps the first reasons, and the rest in the spool."""

    def __init__(self, spool: Spool, *, first: int = 20) -> None:
        """`first`: how many reasons are kept at hand, of lines and of rows each."""
        self.lines: list[Wrong] = []
        """The first of the lines that are no rows."""
        self.rows: list[Wrong] = []
        """The first of the rows that failed."""
        self.wrong_lines = 0
        self.failed_rows = 0
        self._spool = spool
        self._most = first

    @property
    def count(self) -> int:
        return self.wrong_lines + self.failed_rows

    def wrong(self, line: Wrong) -> None:
        """A line that is no row."""
        self.wrong_lines += 1
        self._keep(self.lines, line)
        self._spool.fail(line)

    def failed(self, failed: Failed) -> None:
        """A row that could not be brought in."""
        self.failed_rows += 1
        row = Wrong(failed.placed.row.number, failed.error.sentence)
        self._keep(self.rows, row)
        self._spool.fail(row, failed.placed.at)

    def _keep(self, kept: list[Wrong], one: Wrong) -> None:
        if len(kept) < self._most:
            kept.append(one)

    def write(self, path: Path) -> None:
        """Write a file that is a feed again, which has its name once it is whole: it may be the feed that was read.

        It has every row of each product of which a row failed, since a feed names all pictures of a product. The file
        is empty where nothing failed. Raises IngestRefused.
        """
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            try:
                with open(beside, "xb") as file:
                    for row, why in self._spool.failed():
                        file.write(_line(row, why))
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as exc:
            raise IngestRefused(f"The failures cannot be written to {path}: {exc.strerror or exc}.") from exc


def require_writable(path: Path) -> None:
    """That failures can be written to this path later. Raises IngestRefused."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise IngestRefused(f"The failures cannot be written to {path}: it must be a file in a folder that is there.")


def _line(row: Row | None, why: Wrong | None) -> bytes:
    said: dict[str, Any] = {} if why is None else {FAILED_LINE: why.number, FAILED_BECAUSE: why.reason}
    if row is not None:
        fields = {
            "clientId": row.client_id,
            "productId": row.product_id,
            "name": row.name,
            "sku": row.sku,
            "isActive": row.is_active,
            "attributes": None if row.attributes is None else dict(row.attributes),
            **_where(row.picture),
        }
        said |= {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode(said) + b"\n"


def _where(picture: PictureOf | None) -> dict[str, str]:
    match picture:
        case FileOf(path):
            return {"file": os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")}
        case UrlOf(url):
            return {"url": url}
        case KeyOf(key):
            return {"s3Key": key}
    return {}
