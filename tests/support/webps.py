"""WebP containers, built of the chunks that Pillow's encoder writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from PIL import Image

from tests.support.pictures import in_format

ICC, ALPHA, EXIF, XMP, ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    """`size`: what the header says, in place of the truth."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def bitstream(image: Image.Image, **options: object) -> bytes:
    """ALPH and VP8, or VP8L, of a still picture."""
    parts = chunks(in_format(image, "WEBP", **options))
    return b"".join(chunk(kind, content) for kind, content in parts if kind in (b"ALPH", b"VP8 ", b"VP8L"))


def extended(size: tuple[int, int], flags: int) -> bytes:
    width, height = ((side - 1).to_bytes(3, "little") for side in size)
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + width + height)


def animation(background: bytes = b"\0\0\0\0") -> bytes:
    return chunk(b"ANIM", background + b"\0\0")


def frame(size: tuple[int, int], at: tuple[int, int], stream: bytes, *, flags: int = 0) -> bytes:
    """`at`: even numbers."""
    numbers = (at[0] // 2, at[1] // 2, size[0] - 1, size[1] - 1, 100)
    return chunk(b"ANMF", b"".join(number.to_bytes(3, "little") for number in numbers) + bytes([flags]) + stream)


def written(parts: Iterable[bytes]) -> bytes:
    return riff(*parts)
