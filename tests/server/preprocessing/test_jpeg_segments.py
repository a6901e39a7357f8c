"""A sound JPEG is read whatever stands in its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server import errors
from server.preprocessing import jpeg, media
from server.preprocessing.formats import JPEG
from server.preprocessing.stored import Bounds
from tests.support.jpegs import noise, pillow, segment, with_segments
from tests.support.pictures import in_format

BOUNDS = Bounds(10**6)
PHOTO = Image.fromarray(np.asarray(noise(10, 6).resize((61, 43), Image.Resampling.BICUBIC)))

XMP = b"http://ns.adobe.com/xap/1.0/\0"
KNOWN = {
    0xE0: (b"JFIF\0\x01\x02\x01\0\x48\0\x48\x01\x01\1\2\3", b"JFXX\0\x13\x01\x01\1\2\3"),
    0xE1: (b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x0f\0\x02\0\0\0\x04abc\0", XMP + b"<x:xmpmeta/>"),
    0xE2: (
        b"ICC_PROFILE\0\x01\x01profile",
        b"MPF\0MM\0*\0\0\0\x08\0\x01\xb0\x01\0\x04\0\0\0\x01\0\0\0\x02",
        b"FPXR\0\0\0\1",
    ),
    0xED: (b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0\x48\0\0\0\1\0\1\0\x48\0\0\0\1\0\1",),
    0xEE: (b"Adobe\0\x64\0\0\0\0",),  # one byte less than a decoder takes into account
}


def odd_segments() -> Iterator[bytes]:
    """Each kind of metadata at each shorter length, altered, with a wrong length of its own, and of random bytes."""
    random = np.random.default_rng(3)
    for marker in (*range(0xE0, 0xF0), 0xFE):
        yield segment(marker, b"")
        yield segment(marker, random.bytes(60))
        yield segment(marker, b"\xff\xd8\xff\xda\x00\x02\xff\xd9")
        for length in (0, 1):  # less than the two bytes that count
            yield bytes((0xFF, marker)) + length.to_bytes(2)
        for payload in KNOWN.get(marker, ()):
            for length in range(len(payload) + 1):
                yield segment(marker, payload[:length])
            for _ in range(15):
                altered = bytearray(payload)
                for place in random.integers(4, len(payload), 3):
                    altered[place] = random.integers(0, 256)
                yield segment(marker, bytes(altered))
                if marker != 0xEE:  # longer, an Adobe segment says how colours are coded
                    yield segment(marker, payload + random.bytes(int(random.integers(1, 40))))


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})],
)
def test_odd_metadata_changes_no_pixel(mode: str, options: dict[str, Any]) -> None:
    clean = in_format(PHOTO.convert(mode), "JPEG", quality=85, **options)
    expected = np.asarray(pillow(clean))
    number = 0
    for number, odd in enumerate(odd_segments()):
        before = (b"", b"\xff\xdb", b"\xff\xda")[number % 3]
        result = media.decode(with_segments(clean, odd, before=before), max_pixels=10**6)
        np.testing.assert_array_equal(np.asarray(result.image), expected, err_msg=odd.hex())
    assert number > 400


def test_metadata_between_the_scans_is_left_out_too() -> None:
    clean = in_format(PHOTO, "JPEG", progressive=True)
    last = clean.rindex(b"\xff\xc4")
    odd = clean[:last] + segment(0xEE, b"Adobe\0") + segment(0xE2, b"MPF\0") + segment(0xFE, b"") + clean[last:]
    result = media.decode(odd, max_pixels=10**6)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(pillow(clean)))


def test_fill_bytes_and_junk_between_segments_are_skipped() -> None:
    clean = in_format(PHOTO, "JPEG")
    for junk in (b"\xff\xff\xff", b"\0\0", b"junk", b"\xff\0", b"\xff\x01", b"\xff\xd0"):
        odd = with_segments(clean, junk, before=b"\xff\xdb")
        np.testing.assert_array_equal(
            np.asarray(media.decode(odd, max_pixels=10**6).image), np.asarray(pillow(clean)), err_msg=junk.hex()
        )


def test_the_markers_that_say_how_colours_are_coded_still_count() -> None:
    as_rgb = in_format(PHOTO, "JPEG", keep_rgb=True, quality=95)
    assert b"Adobe" in as_rgb
    np.testing.assert_array_equal(np.asarray(media.decode(as_rgb, max_pixels=10**6).image), np.asarray(pillow(as_rgb)))
    ycck = with_segments(in_format(PHOTO.convert("CMYK"), "JPEG"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02"))
    np.testing.assert_array_equal(np.asarray(media.decode(ycck, max_pixels=10**6).image), np.asarray(pillow(ycck)))


def test_thousands_of_segments_are_walked() -> None:
    clean = in_format(PHOTO, "JPEG")
    odd = with_segments(clean, *[segment(0xE2, b"ICC_PROFILE\0\x01\x02x")] * 20_000, *[b"\xff\xfe\0\2"] * 20_000)
    np.testing.assert_array_equal(np.asarray(media.decode(odd, max_pixels=10**6).image), np.asarray(pillow(clean)))


@pytest.mark.parametrize("cut", range(2, 400, 7))
def test_a_jpeg_without_a_whole_header_is_cut_short(cut: int) -> None:
    data = in_format(PHOTO, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    assert cut < data.index(b"\xff\xda")
    for call in (media.decode, media.measure):
        with pytest.raises(errors.MediaRejected):
            call(data[:cut], max_pixels=10**6)


@pytest.mark.parametrize("behind", [b"\xff\xd9", b"\xff\xd8" + in_format(PHOTO, "JPEG")[2:]])
def test_an_end_or_a_second_picture_inside_the_header_is_damage(behind: bytes) -> None:
    data = with_segments(in_format(PHOTO, "JPEG"), behind, before=b"\xff\xc0")
    with pytest.raises(errors.UnreadablePicture):
        media.decode(data, max_pixels=10**6)


# --- which way up ----------------------------------------------------------------------------------------------------


def exif(orientation: int) -> bytes:
    return segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes((orientation, 0, 0, 0)))


def xmp(orientation: int) -> bytes:
    return segment(0xE1, XMP + f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode())


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ((), 1),
        ((exif(6),), 6),
        ((xmp(8),), 8),
        ((xmp(8), exif(6)), 6),
        ((exif(1), xmp(8)), 1),
        ((exif(9), xmp(8)), 8),
        ((segment(0xE1, b"Exif\0\0damaged"), xmp(3)), 3),
        ((segment(0xE1, b"Exif\0\0damaged"), exif(6), xmp(3)), 6),
        ((exif(6), exif(3)), 6),
        ((segment(0xE1, b""), segment(0xE1, XMP), xmp(3)), 3),
        ((segment(0xE2, exif(6)[4:]),), 1),
    ],
)
def test_exif_says_which_way_up_and_xmp_where_exif_is_silent(segments: tuple[bytes, ...], orientation: int) -> None:
    data = with_segments(in_format(PHOTO, "JPEG"), *segments)
    assert jpeg.read(data, JPEG, BOUNDS).orientation == orientation


# --- the profile -----------------------------------------------------------------------------------------------------


def chunk(number: int, count: int, data: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + data)


@pytest.mark.parametrize(
    ("chunks", "profile"),
    [
        ((), None),
        ((chunk(1, 1, b"one"),), b"one"),
        ((chunk(2, 3, b"b"), chunk(1, 3, b"a"), chunk(3, 3, b"c")), b"abc"),
        ((chunk(1, 2, b"a"),), None),
        ((chunk(2, 2, b"b"),), None),
        ((chunk(1, 2, b"a"), chunk(1, 2, b"a")), None),
        ((chunk(1, 2, b"a"), chunk(2, 3, b"b")), None),
        ((chunk(0, 1, b"a"),), None),
        ((chunk(1, 1, b""),), None),
        ((segment(0xE2, b"ICC_PROFILE\0"),), None),
        ((segment(0xE2, b"ICC_PROFILE\0\x01"),), None),
        (tuple(chunk(number, 64, bytes(65_000)) for number in range(1, 65)), bytes(64 * 65_000)),
        (tuple(chunk(number, 66, bytes(65_000)) for number in range(1, 67)), None),  # more than 4 MiB
    ],
)
def test_a_profile_is_put_together_by_its_numbers_or_counts_as_absent(
    chunks: tuple[bytes, ...], profile: bytes | None
) -> None:
    data = with_segments(in_format(PHOTO, "JPEG"), *chunks)
    assert jpeg.read(data, JPEG, BOUNDS).profile == profile


# --- several pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index", [b"MPF\0", b"MPF\0damaged", b"MPF\0MM\0*\0\0\0\x08\0\x01\xb0\x01\0\x04\0\0\0\x01\0\0\0\x02"]
)
def test_of_several_pictures_the_first_is_read_whatever_their_index_says(index: bytes) -> None:
    clean = in_format(PHOTO, "JPEG")
    data = with_segments(clean, segment(0xE2, index)) + in_format(Image.new("RGB", (90, 20), "red"), "JPEG")
    result = media.decode(data, max_pixels=10**6)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(pillow(clean)))


def test_why_a_jpeg_of_several_pictures_is_refused_is_not_hidden() -> None:
    clean = in_format(PHOTO, "JPEG")
    data = with_segments(clean[: len(clean) // 2], segment(0xE2, b"MPF\0damaged"))
    with pytest.raises(errors.UnreadablePicture) as caught:
        media.decode(data, max_pixels=10**6)
    assert "MPO" not in caught.value.line


@pytest.mark.parametrize("segment", [b"\xff\xfe\0\2", b"\xff\xc4\0\2"])
def test_segments_without_number_are_refused_by_name(segment: bytes) -> None:
    data = in_format(Image.new("RGB", (16, 16)), "JPEG")
    with pytest.raises(errors.UnsupportedPicture, match="more than 50,000 segments"):
        media.decode(data[:2] + segment * 60_000 + data[2:], max_pixels=1000)
    assert media.decode(data[:2] + segment * 1000 + data[2:], max_pixels=1000).image.size == (16, 16)


@pytest.mark.parametrize("between", [b"\xff", b"\xff\0", b"\xff\1", b"\xff\xd0", b"\0"])
def test_what_is_no_segment_is_skipped_however_much_it_is(between: bytes) -> None:
    data = in_format(Image.new("RGB", (16, 16)), "JPEG")
    behind = 4 + int.from_bytes(data[4:6])
    assert media.decode(data[:behind] + between * 1_000_000 + data[behind:], max_pixels=1000).image.size == (16, 16)
