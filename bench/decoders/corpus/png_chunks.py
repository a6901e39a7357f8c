"""PNG: everything that may stand beside the pixels, sound and broken, and how a file may end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import metadata
from bench.decoders.writers import png as raw


def plain(**parts: bytes) -> bytes:
    """RGB of 8 bits, with chunks in places as `raw.write` has them."""
    return raw.write(art.blocks(), 8, raw.RGB, **parts)  # type: ignore[arg-type]


# Each kind of chunk that is read by somebody, with sound contents for RGB.
_CHUNKS: dict[bytes, bytes] = {
    b"tEXt": b"Comment\0hello",
    b"zTXt": b"Comment\0\0" + zlib.compress(b"hello"),
    b"iTXt": b"Comment\0\0\0\0\0hello",
    b"iCCP": b"p\0\0" + zlib.compress(metadata.profile("sRGB")),
    b"sRGB": b"\0",
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": bytes((1, 13, 0, 1)),
    b"sBIT": b"\x08\x08\x08",
    b"bKGD": struct.pack(">3H", 9, 9, 9),
    b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
    b"tIME": struct.pack(">HBBBBB", 2020, 1, 2, 3, 4, 5),
    b"sPLT": b"p\0\x08" + bytes((1, 2, 3, 255, 0, 1)),
    b"oFFs": struct.pack(">iiB", 0, 0, 0),
    b"sCAL": b"\1" + b"1.0\0" + b"1.0",
    b"eXIf": metadata.exif(1),
    b"caBX": b"\0\0\0\x10jumb" + bytes(8),
    b"vpAg": struct.pack(">IIB", 1, 1, 0),
    b"acTL": struct.pack(">II", 1, 0),
}
_TEXTS = (b"zTXt", b"iTXt", b"iCCP")


def oddities() -> Iterator[Case]:
    shown = art.blocks()
    for kind, data in _CHUNKS.items():
        name = kind.decode()
        yield Case("PNG", "other chunks", name, plain(before=raw.chunk(kind, data)), shown)
        yield Case("PNG", "wrong CRC", name, plain(before=raw.chunk(kind, data, crc_off_by=1)), shown)
        yield Case(
            "PNG", "wrong CRC", f"{name} after the pixels", plain(after=raw.chunk(kind, data, crc_off_by=1)), shown
        )
        yield Case("PNG", "short chunk", name, plain(before=raw.chunk(kind, data[:-1])), shown)
        yield Case("PNG", "short chunk", f"empty {name}", plain(before=raw.chunk(kind)), shown)
        yield Case("PNG", "long chunk", name, plain(before=raw.chunk(kind, data + bytes(5))), shown)
        yield Case("PNG", "chunk twice", name, plain(before=raw.chunk(kind, data) * 2), shown)
    for kind in _TEXTS:
        big = {
            b"zTXt": b"Comment\0\0" + zlib.compress(bytes(2_000_000)),
            b"iTXt": b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 2_000_000),
            b"iCCP": b"p\0\0" + zlib.compress(bytes(1_500_000)),
        }[kind]
        yield Case("PNG", "large text", kind.decode(), plain(before=raw.chunk(kind, big)), shown)
    yield Case("PNG", "structure", "unknown chunk", plain(before=raw.chunk(b"xyZz", b"12345")), shown)
    yield Case("PNG", "structure", "pixels in 30 chunks", raw.write(shown, 8, raw.RGB, pieces=30), shown)
    empty = raw.chunk(b"IDAT")
    yield Case("PNG", "structure", "empty IDAT before the pixels", plain(middle=empty), shown)
    yield Case("PNG", "structure", "empty IDAT after the pixels", plain(after=empty), shown)
    yield Case(
        "PNG",
        "structure",
        "palette beside RGB",
        raw.write(shown, 8, raw.RGB, palette=((20, 20, 30), (220, 30, 40))),
        shown,
    )
    yield Case("PNG", "end", "bytes behind the end", plain() + b"trailer" * 9, shown)
    yield Case("PNG", "end", "without IEND", plain(end=b""), shown)
    yield Case("PNG", "end", "half an IEND", plain(end=raw.chunk(b"IEND")[:6]), shown)
    yield Case("PNG", "end", "IEND with a wrong CRC", plain(end=raw.chunk(b"IEND", crc_off_by=1)), shown)
    yield from _animated(shown)


def _animated(shown: Samples) -> Iterator[Case]:
    size = struct.pack(">II", art.WIDTH, art.HEIGHT)
    other = zlib.compress(b"".join(b"\0" + row.tobytes() for row in 255 - shown))

    def control(number: int) -> bytes:
        return raw.chunk(b"fcTL", struct.pack(">I", number) + size + struct.pack(">IIHHBB", 0, 0, 1, 10, 0, 0))

    start = raw.chunk(b"acTL", struct.pack(">II", 2, 0))
    second = control(1) + raw.chunk(b"fdAT", struct.pack(">I", 2) + other)
    yield Case("PNG", "animated", "first frame is the picture", plain(middle=start + control(0), after=second), shown)
    apart = raw.chunk(b"acTL", struct.pack(">II", 1, 0))
    behind = control(0) + raw.chunk(b"fdAT", struct.pack(">I", 1) + other)
    # Readers of animations show the frame, all others the picture: either is right, so only other readers can say.
    yield Case(
        "PNG", "animated", "picture is no frame", plain(middle=apart, after=behind), None, should=Should.BE_NAMED
    )
