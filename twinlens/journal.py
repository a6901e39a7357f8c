"""What was done already, in a small file: so that work that was interrupted goes on where it was.

It is lines of text: the first says what the work is, each other one is a mark of something done. Lines are appended as
things are done. What a crash cuts off is a mark at most, and what has no mark is done again, which changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Self

_FIRST = "twinlens journal 1 "


class Journal:
    """A journal in memory, and in a file where there is one. Several threads may use it at once."""

    def __init__(self, path: str | os.PathLike[str] | None, of: str) -> None:
        """`of`: what the work is.

        Raises ValueError where the file is the journal of other work, or none at all; OSError.
        """
        self._path = None if path is None else Path(path)
        self._done: set[bytes] = set()
        self._lock = threading.Lock()
        self._file = None
        if self._path is None:
            return
        first = _FIRST + hashlib.sha256(of.encode()).hexdigest()
        if known := self._path.exists() and self._path.stat().st_size > 0:
            self._read(self._path, first)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A line that was cut off by a crash ends here, so that the next one stands alone.
        self._file = self._path.open("a", encoding="ascii")
        self._file.write("\n" if known else f"{first}\n")
        self._file.flush()

    def _read(self, path: Path, first: str) -> None:
        with path.open(encoding="ascii", errors="replace") as lines:
            if (line := next(lines)).rstrip("\n") != first:
                if line.startswith(_FIRST):
                    raise ValueError(f"{path} is the journal of other work: of another server, client or source.")
                raise ValueError(f"{path} is a file of something else, not a journal of Twinlens.")
            for line in lines:
                if len(line.strip()) == 32:
                    try:
                        self._done.add(bytes.fromhex(line))
                    except ValueError:
                        continue  # not written by us, or damaged: done again

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, mark: bytes) -> bool:
        with self._lock:
            return mark in self._done

    def add(self, mark: bytes) -> None:
        """Raises OSError where the file cannot be written."""
        with self._lock:
            self._done.add(mark)
            if self._file is not None:
                self._file.write(f"{mark.hex()}\n")
                self._file.flush()

    def remove(self) -> None:
        """All is done: the next time it begins from the start."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def mark_of(*parts: str | bytes) -> bytes:
    """16 bytes that stand for these."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()[:16]
