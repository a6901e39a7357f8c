"""Rows that could not be brought in, as a file that is a feed again: a JSON object a line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from server.errors import IngestRefused
from server.ingest.feed import FileOf, KeyOf, PictureOf, UrlOf, Wrong
from server.ingest.pipeline import Failed

LINE, REASON = "failedLine", "failedBecause"
"""What each object has beside the fields of the row: they are no attributes."""


class Failures:
    """Counts failures, keeps the first of them, and writes all of them to a file where there is one."""

    def __init__(self, file: BinaryIO | None, path: Path | None, *, first: int = 20) -> None:
        """`first`: how many are kept."""
        self.count = 0
        self.first: list[Wrong] = []
        self._most = first
        self._file = file
        self._path = path

    def wrong(self, line: Wrong) -> None:
        """A line that is no row."""
        self._take(line, {})

    def failed(self, failed: Failed) -> None:
        """A row that could not be brought in."""
        row = failed.placed.row
        fields = {
            "clientId": row.client_id,
            "productId": row.product_id,
            "name": row.name,
            "sku": row.sku,
            "isActive": row.is_active,
            "attributes": None if row.attributes is None else dict(row.attributes),
            **_where(row.picture),
        }
        self._take(Wrong(failed.number, failed.error.sentence), fields)

    def _take(self, line: Wrong, fields: dict[str, Any]) -> None:
        self.count += 1
        if len(self.first) < self._most:
            self.first.append(line)
        if self._file is None:
            return
        said = {name: value for name, value in fields.items() if value is not None}
        try:
            self._file.write(msgspec.json.encode({LINE: line.number, REASON: line.reason, **said}) + b"\n")
            self._file.flush()
        except OSError as exc:
            raise _unwritable(self._path, exc) from exc


@contextmanager
def failures(path: Path | None) -> Iterator[Failures]:
    """Failures that go to this file, which has its name once all of them are in it; also where there was none.

    So it can be the very feed that is read meanwhile. Raises IngestRefused where it cannot be written.
    """
    if path is None:
        yield Failures(None, None)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with open(beside, "xb") as file:
                yield Failures(file, path)
            beside.replace(path)
        except OSError as exc:
            raise _unwritable(path, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _unwritable(path: Path | None, error: OSError) -> IngestRefused:
    return IngestRefused(f"The failures cannot be written to {path}: {error.strerror or error}.")


def _where(picture: PictureOf | None) -> dict[str, str]:
    match picture:
        case FileOf(path):
            return {"file": str(path.absolute())}
        case UrlOf(url):
            return {"url": url}
        case KeyOf(key):
            return {"s3Key": key}
    return {}
