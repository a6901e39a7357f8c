"""The orientation in EXIF and XMP, whole and damaged."""

from __future__ import annotations

import random
from typing import Literal

import pytest
from PIL import Image

from server.preprocessing.metadata import exif_orientation, xmp_orientation


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x010F] = "A camera"
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif(orientation: int) -> None:
    block = exif(orientation)
    assert block.startswith(b"Exif\0\0")
    assert exif_orientation(block) == orientation
    assert exif_orientation(block[6:]) == orientation


# BYTE, SHORT, LONG, and those with a sign.
@pytest.mark.parametrize(("kind", "size"), [(1, 1), (3, 2), (4, 4), (8, 2), (9, 4)])
@pytest.mark.parametrize("order", ["little", "big"])
def test_orientation_as_any_whole_number(kind: int, size: int, order: Literal["little", "big"]) -> None:
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    # What is left of the four bytes of a value means nothing.
    value = number(6, size).ljust(4, b"\xaa")
    entry = number(0x0112, 2) + number(kind, 2) + number(1, 4) + value
    mark = b"II" if order == "little" else b"MM"
    assert exif_orientation(mark + number(42, 2) + number(8, 4) + number(1, 2) + entry + bytes(4)) == 6


@pytest.mark.parametrize("kind", [0, 2, 5, 6, 7, 10, 11, 12, 13])
def test_orientation_that_is_no_whole_number_is_none(kind: int) -> None:
    block = b"II*\0\x08\0\0\0\x01\0\x12\x01" + kind.to_bytes(2, "little") + b"\x01\0\0\0\x06\0\0\0"
    assert exif_orientation(block) is None


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_out_of_range_is_none(orientation: int) -> None:
    assert exif_orientation(exif(orientation)) is None


def test_damaged_exif_says_nothing_or_an_orientation() -> None:
    block, chance = exif(6), random.Random(1)
    for length in range(len(block)):
        assert exif_orientation(block[:length]) in (None, 6)
    for _ in range(5000):
        damaged = bytearray(block)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        assert exif_orientation(bytes(damaged)) in (None, *range(1, 9))


@pytest.mark.parametrize(
    "xmp",
    [
        b'<rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/>',
        b"<rdf:Description tiff:Orientation='6'/>",
        b"<tiff:Orientation>6</tiff:Orientation>",
        b"<tiff:Orientation>\n  6\n</tiff:Orientation>",
    ],
)
def test_orientation_of_xmp(xmp: bytes) -> None:
    assert xmp_orientation(b"<?xpacket?><x:xmpmeta><rdf:RDF>" + xmp + b"</rdf:RDF></x:xmpmeta>") == 6


@pytest.mark.parametrize("xmp", [b"", b"<x/>", b'tiff:Orientation="9"', b'xOrientation="6"', b"tiff:Orientation"])
def test_xmp_that_says_nothing(xmp: bytes) -> None:
    assert xmp_orientation(xmp) is None


TIFF = b'"http://ns.adobe.com/tiff/1.0/"'


@pytest.mark.parametrize(
    ("xmp", "orientation"),
    [
        (b'<d foo:Orientation="6"/>', None),
        (b"<foo:Orientation>6</foo:Orientation>", None),
        (b'<d Orientation="6"/>', None),
        (b'<d xtiff:Orientation="6"/>', None),
        (b'<d foo:Orientation="6" tiff:Orientation="8"/>', 8),
        (b"<d xmlns:tiff=" + TIFF + b' foo:Orientation="6"/>', None),
        (b'<d xmlns:foo="http://example.com/" foo:Orientation="6" tiff:Orientation="3"/>', 3),
        # The prefix is free.
        (b"<d xmlns:foo=" + TIFF + b' foo:Orientation="6"/>', 6),
        (b"<d\n\txmlns:foo = " + TIFF.replace(b'"', b"'") + b"\n\tfoo:Orientation = '6'/>", 6),
        (b"<d xmlns:foo=" + TIFF + b"><foo:Orientation>6</foo:Orientation></d>", 6),
        (b"<d xmlns:foo=" + TIFF + b' tiff:Orientation="3" foo:Orientation="6"/>', 6),
        (b'<d xmlns:tiff="http://example.com/" tiff:Orientation="6"/>', None),
    ],
)
def test_only_the_orientation_of_tiffs_namespace_counts(xmp: bytes, orientation: int | None) -> None:
    assert xmp_orientation(b"<x:xmpmeta>" + xmp + b"</x:xmpmeta>") == orientation


def test_a_packet_full_of_names_and_spaces_ends() -> None:
    for part in (b':Orientation="6" ', b" xmlns:a" + b"=" + TIFF, b" xmlns:", b"x", b" ", b":Orientation ", b"<a"):
        assert xmp_orientation((part * (2 << 20))[: 2 << 20]) is None
    many = b"".join(b" xmlns:p%d=%s" % (number, TIFF) for number in range(10_000))
    assert xmp_orientation(many + b' q:Orientation="6"' * 10_000 + b' p77:Orientation="6"') == 6
