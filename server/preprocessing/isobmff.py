"""The boxes of an ISO base media file (ISO/IEC 14496-12), which HEIF is made of: read and written, nothing decoded.

Each reader says how much it takes at most, since a file of millions of tiny boxes would keep us for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.errors import UnreadablePicture, UnsupportedPicture


@dataclass(frozen=True, slots=True)
class Box:
    """Where in the file the content of a box lies, behind its size and type."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int, end: int, *, most: int, whole: bool = True) -> Iterator[Box]:
    """The boxes that lie side by side from `start` to `end`, at most `most` of them.

    `whole`: raise UnreadablePicture for one that does not end there; else what is damaged or cut short ends the list,
    as does what phones put behind the last box of a file. Raises UnsupportedPicture for too many.
    """
    for _ in range(most):
        if start == end:
            return
        header, size = 8, int.from_bytes(data[start : start + 4])
        if size == 1:
            header, size = 16, int.from_bytes(data[start + 8 : start + 16])
        if size == 0:
            size = end - start
        if start + 8 > end or size < header or (whole and start + size > end):
            if whole:
                raise UnreadablePicture()
            return
        yield Box(data[start + 4 : start + 8], start + header, min(start + size, end))
        start = min(start + size, end)
    if start != end:
        raise UnsupportedPicture("This HEIF has more boxes than any camera or program writes; save it as JPEG or PNG.")


class Fields:
    """The fields of a box, one after the other; UnreadablePicture where the box ends before them."""

    def __init__(self, data: bytes, box: Box) -> None:
        self._data, self.at, self.end = data, box.start, box.end

    def number(self, size: int) -> int:
        """Of `size` bytes, the first the most significant; 0 for none."""
        return int.from_bytes(self.raw(size))

    def raw(self, size: int) -> bytes:
        if self.at + size > self.end:
            raise UnreadablePicture()
        self.at += size
        return self._data[self.at - size : self.at]

    def version(self) -> tuple[int, int]:
        """A full box's version and flags."""
        return self.number(1), self.number(3)

    def text(self) -> bytes:
        """Up to the next zero."""
        stop = self._data.find(b"\0", self.at, self.end)
        if stop < 0:
            raise UnreadablePicture()
        found = self._data[self.at : stop]
        self.at = stop + 1
        return found

    def rest(self) -> Box:
        """What has not been read yet."""
        return Box(b"", self.at, self.end)


def written(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + kind + body


def written_full(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return written(kind, bytes([version]), flags.to_bytes(3), *content)
