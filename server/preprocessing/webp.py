"""WebP: the chunks of the first picture, in a container made anew, are handed to libwebp through Pillow.

libwebp refuses a whole file for a length in its container that is wrong, or for what stands behind the first picture.
The first frame of an animation is laid in its place on a transparent screen: no browser uses the background colour.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing.formats import Format
from server.preprocessing.metadata import exif_orientation, xmp_orientation
from server.preprocessing.stored import MOST_PROFILE_BYTES, Bounds, Stored

_START = len(b"RIFF....WEBP")
_HAS_PROFILE, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP = 0x20, 0x10, 0x08, 0x04
_LONGEST_METADATA = 1 << 20
# That many are looked at; a picture stands among the first five, and its metadata, in an animation, behind its frames.
_MOST_CHUNKS = 100_000

_Size = tuple[int, int]


@dataclass(slots=True)
class _Chunks:
    """The first chunk of each kind, up to the first picture and what follows it."""

    screen: _Size | None = None
    flags: int = 0
    place: _Size = (0, 0)
    """Of a frame of an animation, on the screen."""
    animated: bool = False
    alpha: memoryview | None = None
    kind: bytes = b""
    """Of the picture: `VP8 ` or `VP8L`."""
    picture: memoryview = field(default_factory=lambda: memoryview(b""))
    profile: memoryview | None = None
    exif: memoryview | None = None
    xmp: memoryview | None = None

    def size(self) -> _Size:
        """Of the first picture, from its own header."""
        head = bytes(self.picture[:10])
        if self.kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a" and len(head) == 10:
            width, height = struct.unpack_from("<HH", head, 6)
            return width & 0x3FFF, height & 0x3FFF
        if self.kind == b"VP8L" and head[:1] == b"\x2f" and len(head) >= 5:
            bits = int.from_bytes(head[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        raise UnreadablePicture()


def measure(data: bytes, _form: Format) -> _Size:
    """Width and height of the screen, from the headers alone. Raises as `read` does."""
    chunks = _walk(data)
    return chunks.screen or chunks.size()


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """Raises PictureTooLarge before it decodes, UnreadablePicture, and whatever Pillow raises for damage."""
    chunks = _walk(data)
    size = chunks.size()
    screen = chunks.screen or size
    bounds.check(*size)
    bounds.check(*screen)
    image = _decoded(_alone(chunks, size))
    if chunks.animated and size != screen:
        whole = Image.new("RGBA", screen, (0, 0, 0, 0))
        whole.paste(image if image.mode == "RGBA" else image.convert("RGBA"), chunks.place)
        image = whole
    return Stored(image, screen, _orientation(chunks), profile=_profile(chunks))


def _decoded(data: bytes) -> Image.Image:
    # What Pillow's `load` does, with two copies of the pixels fewer: libwebp's decoder holds two, and is dropped before
    # the image is made; with alpha the image is made around the bytes that the decoder gave.
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as file:
        opened: Any = file
        mode, packing, size = opened.mode, opened.rawmode, opened.size
        found = opened._decoder.get_next()
        opened._decoder = None
    if found is None:
        raise UnreadablePicture()
    if mode == packing:
        return Image.frombuffer(mode, size, found[0], "raw", packing, 0, 1)
    return Image.frombytes(mode, size, found[0], "raw", packing)


def _walk(data: bytes) -> _Chunks:
    """Raises UnreadablePicture where no picture is found, or not all of it is there."""
    view = memoryview(data)
    end = 8 + int.from_bytes(data[4:8], "little")
    try:
        return _chunks(view[_START:end])
    except UnreadablePicture:
        if end >= len(data):
            raise
        return _chunks(view[_START:])  # the length in the head is wrong


def _chunks(view: memoryview) -> _Chunks:
    chunks = _Chunks()
    for kind, content, whole in _each(view):
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            if chunks.kind:
                continue
            if not whole and kind != b"ANMF":
                raise UnreadablePicture()
            if kind == b"ANMF":
                _keep_frame(chunks, content)
            else:
                chunks.kind, chunks.picture = kind, content
        elif not whole:
            break
        elif kind == b"VP8X" and chunks.screen is None and len(content) >= 10:
            chunks.flags = content[0]
            chunks.screen = _number(content, 4) + 1, _number(content, 7) + 1
        elif kind == b"ALPH" and chunks.alpha is None and not chunks.kind:
            chunks.alpha = content
        elif kind == b"ICCP" and chunks.profile is None:
            chunks.profile = content
        elif kind == b"EXIF" and chunks.exif is None:
            chunks.exif = content
        elif kind == b"XMP " and chunks.xmp is None:
            chunks.xmp = content
    if not chunks.kind:
        raise UnreadablePicture()
    if chunks.screen and not chunks.animated and chunks.screen != chunks.size():
        raise UnreadablePicture("The headers of this WebP are damaged: they differ in the size of the picture.")
    return chunks


def _each(view: memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind, content, and whether all of it is there."""
    at = 0
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(view):
            return
        kind, length = struct.unpack_from("<4sI", view, at)
        content = view[at + 8 : at + 8 + length]
        yield kind, content, len(content) == length
        at += 8 + length + length % 2


def _keep_frame(chunks: _Chunks, content: memoryview) -> None:
    """The first frame: its place, and the chunks of its picture."""
    if chunks.screen is None or len(content) < 16:
        raise UnreadablePicture()
    chunks.animated, chunks.alpha = True, None
    chunks.place = 2 * _number(content, 0), 2 * _number(content, 3)
    for kind, inner, whole in _each(content[16:]):
        if kind in (b"VP8 ", b"VP8L"):
            if not whole:
                break
            chunks.kind, chunks.picture = kind, inner
            width, height = chunks.size()
            if chunks.place[0] + width > chunks.screen[0] or chunks.place[1] + height > chunks.screen[1]:
                raise UnreadablePicture("The first frame of this WebP is damaged: it lies beyond its screen.")
            return
        if kind == b"ALPH" and chunks.alpha is None:
            chunks.alpha = inner
    raise UnreadablePicture()


def _number(content: memoryview, at: int) -> int:
    return int.from_bytes(content[at : at + 3], "little")


def _alone(chunks: _Chunks, size: _Size) -> bytes:
    """The first picture as a still one, with nothing beside it."""
    parts = []
    # Without its flag a still picture's alpha does not count; a frame's always does.
    if chunks.alpha is not None and (chunks.animated or chunks.flags & _HAS_ALPHA):
        sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
        parts += [_chunk(b"VP8X", bytes([_HAS_ALPHA, 0, 0, 0]) + sides), _chunk(b"ALPH", chunks.alpha)]
    parts.append(_chunk(chunks.kind, chunks.picture))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    return b"".join((kind, struct.pack("<I", len(content)), content, b"\0" * (len(content) % 2)))


def _orientation(chunks: _Chunks) -> int:
    """By EXIF, or by XMP where EXIF says nothing; both count only where a flag announces them."""
    found = None
    if chunks.exif is not None and chunks.flags & _HAS_EXIF:
        found = exif_orientation(bytes(chunks.exif[:_LONGEST_METADATA]))
    if found is None and chunks.xmp is not None and chunks.flags & _HAS_XMP:
        found = xmp_orientation(bytes(chunks.xmp[:_LONGEST_METADATA]))
    return found or 1


def _profile(chunks: _Chunks) -> bytes | None:
    if chunks.profile is None or not chunks.flags & _HAS_PROFILE or len(chunks.profile) > MOST_PROFILE_BYTES:
        return None
    return bytes(chunks.profile) or None
