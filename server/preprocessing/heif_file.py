"""What a HEIF file holds (ISO/IEC 23008-12): its items, their properties and references, and which is the picture.

Everything is counted before it is read: libheif has bounds of its own, but reads all items of a file, and copies the
metadata of each, before it can be asked for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.isobmff import Box, Fields, boxes

# A panorama of 200 million pixels has about 800 tiles, and as many of its depth and gain maps together.
_MOST_ITEMS = 4096
_MOST_ENTRIES = 65536  # associations of properties; references; parts of items
_MOST_BOXES = 100  # side by side, at the top of a file and in its metadata

Property = tuple[bytes, bytes]
"""The type and the content of a property."""


@dataclass(slots=True)
class Item:
    kind: bytes = b""
    protected: bool = False
    properties: list[Property] = field(default_factory=list)
    first: dict[bytes, bytes] = field(default_factory=dict)
    """By type, the first property of it."""
    needed: set[bytes] = field(default_factory=set)
    """Types of the properties without which the item must not be shown."""
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    """Where its bytes lie: in what (0 the file, 1 `idat`, others elsewhere), from where, and how many (0: all)."""

    def get(self, kind: bytes) -> bytes | None:
        """The first property of that type."""
        return self.first.get(kind)

    def add(self, kind: bytes, content: bytes, *, needed: bool) -> None:
        self.properties.append((kind, content))
        self.first.setdefault(kind, content)
        if needed:
            self.needed.add(kind)


@dataclass(slots=True)
class References:
    """Looked up from both sides: a grid of thousands of tiles asks for those of each."""

    ends: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)
    """By type and the item that refers: those that it refers to, in order."""
    starts: dict[tuple[bytes, int], dict[int, None]] = field(default_factory=dict)
    """By type and the item that is referred to: those that refer to it, in order."""


@dataclass(slots=True)
class HeifFile:
    data: bytes
    primary: int
    items: Mapping[int, Item]
    references: References
    idat: Box | None

    def item(self, number: int) -> Item:
        found = self.items.get(number)
        if found is None:
            raise UnreadablePicture()
        return found

    def refers(self, kind: bytes, number: int) -> list[int]:
        return self.references.ends.get((kind, number), [])

    def referring(self, kind: bytes, number: int) -> list[int]:
        """Each once, in the order of the file."""
        return list(self.references.starts.get((kind, number), ()))

    def content(self, item: Item) -> bytes:
        """An item's bytes. Raises UnreadablePicture where the file ends before them."""
        found: list[bytes] = []
        total = 0
        for where, start, size in item.parts:
            begin, end = 0, len(self.data)
            if where == 1 and self.idat is not None:
                begin, end = self.idat.start, self.idat.end
            elif where:
                raise UnsupportedPicture("This HEIF has its picture in another file, or in another item.")
            size = size or end - begin - start
            total += size
            # Parts that overlap would make a small file a large one.
            if size <= 0 or begin + start + size > end or total > len(self.data):
                raise UnreadablePicture()
            found.append(self.data[begin + start : begin + start + size])
        if not found:
            raise UnreadablePicture()
        return b"".join(found)


def parse(data: bytes) -> HeifFile:
    """Raises UnreadablePicture, or UnsupportedPicture for a file without a still picture or of too many parts."""
    top = list(boxes(data, 0, len(data), most=_MOST_BOXES, whole=False))
    meta = next((box for box in top if box.kind == b"meta"), None)
    if meta is None:
        _tell_without_still({box.kind for box in top})
        raise UnreadablePicture()
    if meta.end - meta.start < 4:
        raise UnreadablePicture()
    inside = {box.kind: box for box in boxes(data, meta.start + 4, meta.end, most=_MOST_BOXES)}
    if b"pitm" not in inside:
        _tell_without_still({box.kind for box in top})
    if missing := {b"pitm", b"iinf", b"iloc", b"iprp"} - inside.keys():
        raise UnreadablePicture(f"The HEIF is damaged: it has no {min(missing).decode()} box.")
    fields = Fields(data, inside[b"pitm"])
    version, _ = fields.version()
    items = _items(data, inside[b"iinf"])
    _read_places(Fields(data, inside[b"iloc"]), items)
    _read_properties(data, inside[b"iprp"], items)
    references = _references(data, inside[b"iref"]) if b"iref" in inside else References()
    return HeifFile(data, fields.number(4 if version else 2), items, references, inside.get(b"idat"))


def _tell_without_still(top: set[bytes]) -> None:
    if b"moov" in top:
        raise UnsupportedPicture(
            "This HEIF is a film without a still picture: send one of its pictures as JPEG or PNG."
        )
    if b"mini" in top:
        raise UnsupportedPicture("This is a HEIF of the short form (mini), which is not read here; save it as JPEG.")


def _bounded(count: int, most: int = _MOST_ITEMS) -> int:
    if count > most:
        raise UnsupportedPicture("This HEIF has more parts than any camera or program writes; save it as JPEG or PNG.")
    return count


def _items(data: bytes, box: Box) -> dict[int, Item]:
    fields = Fields(data, box)
    version, _ = fields.version()
    count = _bounded(fields.number(4 if version else 2))
    items: dict[int, Item] = {}
    for entry in boxes(data, fields.at, fields.end, most=_MOST_ITEMS):
        if entry.kind != b"infe":
            continue
        entered = Fields(data, entry)
        version, _ = entered.version()
        if version < 2:  # without a type: nothing of HEIF
            continue
        number = entered.number(2 if version == 2 else 4)
        protected = entered.number(2) > 0
        items.setdefault(number, Item(entered.raw(4), protected))
    if len(items) > count:
        raise UnreadablePicture()
    return items


def _read_places(fields: Fields, items: Mapping[int, Item]) -> None:
    version, _ = fields.version()
    if version > 2:
        raise UnreadablePicture()
    sizes = fields.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    if not {offset_size, length_size, base_size, index_size} <= {0, 4, 8}:
        raise UnreadablePicture()
    count = _bounded(fields.number(4 if version == 2 else 2))
    total = 0
    for _ in range(count):
        number = fields.number(4 if version == 2 else 2)
        where = fields.number(2) & 15 if version else 0
        where = where if fields.number(2) == 0 else -1  # another file
        base = fields.number(base_size)
        parts = fields.number(2)
        total = _bounded(total + parts, _MOST_ENTRIES)
        found = []
        for _ in range(parts):
            fields.number(index_size)
            found.append((where, base + fields.number(offset_size), fields.number(length_size)))
        if number in items:
            items[number].parts = found


def _read_properties(data: bytes, box: Box, items: Mapping[int, Item]) -> None:
    inside = list(boxes(data, box.start, box.end, most=_MOST_BOXES))
    held = next((one for one in inside if one.kind == b"ipco"), None)
    if held is None:
        raise UnreadablePicture()
    properties = list(boxes(data, held.start, held.end, most=_MOST_ITEMS))
    contents: dict[int, bytes] = {}  # copied once, since a thousand items may share one of megabytes
    total = 0
    for associations in inside:
        if associations.kind != b"ipma":
            continue
        fields = Fields(data, associations)
        version, flags = fields.version()
        for _ in range(_bounded(fields.number(4))):
            number = fields.number(4 if version else 2)
            count = fields.number(1)
            total = _bounded(total + 1 + count, _MOST_ENTRIES)
            for _ in range(count):
                value = fields.number(2 if flags & 1 else 1)
                index, essential = value & (0x7FFF if flags & 1 else 0x7F), value >> (15 if flags & 1 else 7)
                if index == 0 or number not in items:
                    continue
                if index > len(properties):
                    raise UnreadablePicture()
                kept = properties[index - 1]
                if index not in contents:
                    contents[index] = data[kept.start : kept.end]
                items[number].add(kept.kind, contents[index], needed=bool(essential))


def _references(data: bytes, box: Box) -> References:
    fields = Fields(data, box)
    version, _ = fields.version()
    width, total, found = 4 if version else 2, 0, References()
    for one in boxes(data, fields.at, fields.end, most=_MOST_ITEMS):
        entered = Fields(data, one)
        start, count = entered.number(width), entered.number(2)
        total = _bounded(total + count, _MOST_ENTRIES)
        ends = [entered.number(width) for _ in range(count)]
        found.ends.setdefault((one.kind, start), []).extend(ends)
        for end in ends:
            found.starts.setdefault((one.kind, end), {})[start] = None
    return found
