"""A JPEG without its end mark is read where no coefficient is missing, and refused where one is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from server import errors
from server.preprocessing import media
from tests.support.jpegs import EOI, in_scans, noise, pillow, segment, tall
from tests.support.pictures import in_format

PHOTO = Image.fromarray(np.asarray(noise(11, 8).resize((75, 53), Image.Resampling.BICUBIC)))
LETTERS = Image.fromarray(np.where(np.asarray(noise(75, 53)) > 127, 255, 0).astype(np.uint8))
SCALES = (0, 26, 13, 6)


def with_lower_half(colour: str) -> Image.Image:
    image = PHOTO.copy()
    image.paste(colour, (0, 25, 75, 53))
    return image


PICTURES = {
    "photo": PHOTO,
    "noise": noise(75, 53),
    "letters": LETTERS,
    "white": Image.new("RGB", (75, 53), "white"),
    "white below": with_lower_half("white"),
    # What a decoder puts in place of missing data is grey, too.
    "grey": Image.new("RGB", (75, 53), (128, 128, 128)),
    "grey below": with_lower_half("#808080"),
}
WAYS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4, own tables": {"subsampling": 0, "optimize": True},
    "best": {"quality": 100},
    "progressive": {"progressive": True},
    "best, progressive": {"quality": 100, "progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "a restart a row": {"restart_marker_rows": 1},
    "restarts, progressive": {"restart_marker_rows": 2, "progressive": True},
}


def decoded(data: bytes, at_least: int = 0) -> Image.Image | None:
    """None where it is refused as cut short."""
    try:
        return media.decode(data, max_pixels=10**8, jpeg_at_least=at_least).image
    except errors.UnreadablePicture:
        return None


def cuts(data: bytes, last: int = 120, others: int = 12) -> list[int]:
    """How many bytes to cut: each number up to `last`, and some more up to all of the coded data."""
    most = len(data) - data.index(b"\xff\xda")
    random = np.random.default_rng(len(data))
    return [*range(1, min(last, most)), *(int(cut) for cut in random.integers(1, most, others))]


def check_cuts(data: bytes) -> None:
    """What is read of a file that was cut is the whole picture; and so is a file that lacks only the end mark."""
    whole = np.asarray(pillow(data))
    for cut in cuts(data):
        image = decoded(data[:-cut])
        assert image is not None or cut > 2, f"refused without its last {cut}"
        if image is not None:
            np.testing.assert_array_equal(np.asarray(image), whole, err_msg=f"without its last {cut}")


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("way", WAYS)
def test_a_cut_jpeg_is_read_only_where_all_its_pixels_are_there(picture: str, way: str) -> None:
    check_cuts(in_format(PICTURES[picture], "JPEG", **WAYS[way]))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("way", ["4:2:0", "progressive"])
def test_so_it_is_in_grey_and_in_four_colours(mode: str, way: str) -> None:
    for picture in ("photo", "white below"):
        check_cuts(in_format(PICTURES[picture].convert(mode), "JPEG", **WAYS[way]))


@pytest.mark.parametrize("picture", ["photo", "white below", "grey"])
def test_so_it_is_with_a_scan_for_each_component(picture: str) -> None:
    data = in_scans(PICTURES[picture])
    assert data.count(b"\xff\xda") == 3
    check_cuts(data)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (16, 16), (17, 5), (3, 400)])
def test_so_it_is_at_any_size(size: tuple[int, int]) -> None:
    for way in ("4:2:0", "progressive"):
        check_cuts(in_format(noise(*size), "JPEG", **WAYS[way]))


@pytest.mark.parametrize("way", ["4:2:0", "progressive", "a restart a row"])
def test_a_real_cut_is_refused(way: str) -> None:
    data = in_format(PHOTO, "JPEG", quality=95, **WAYS[way])
    assert [cut for cut in cuts(data) if decoded(data[:-cut]) is not None] in ([1, 2], [1, 2, 3])


@pytest.mark.parametrize("way", ["4:2:0", "progressive", "restarts"])
def test_a_cut_jpeg_fares_the_same_at_every_scale(way: str) -> None:
    data = in_format(PHOTO, "JPEG", **WAYS[way])
    for cut in (*range(1, 20), 100, 500):
        fates = {(image := decoded(data[:-cut], at_least)) is None for at_least in SCALES}
        assert len(fates) == 1
        if fates == {False}:
            for at_least in SCALES:
                image, whole = decoded(data[:-cut], at_least), decoded(data, at_least)
                assert image is not None
                np.testing.assert_array_equal(np.asarray(image), np.asarray(whole))


TRAILERS = {
    "text": b"SEFHk\0\0\0\x02\0\0\0Panorama_Shot_Info" * 5,
    "zeros": bytes(500),
    "random": np.random.default_rng(6).bytes(5000).replace(EOI, b"\0\0"),
    "a marker that no scan is followed by": b"\xff\xf3\0\x04ab",
    "a segment that does not end": b"\xff\xe2\xff\xffabc",
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + np.random.default_rng(7).bytes(3000).replace(b"\xff", b"\0"),
    "a second picture": in_format(Image.new("RGB", (20, 90), "red"), "JPEG"),
}


@pytest.mark.parametrize("behind", TRAILERS)
@pytest.mark.parametrize("way", ["4:2:0", "4:4:4, own tables", "progressive", "restarts"])
def test_a_trailer_in_place_of_the_end_mark_changes_nothing(way: str, behind: str) -> None:
    for picture in ("photo", "grey below"):
        data = in_format(PICTURES[picture], "JPEG", **WAYS[way])
        for at_least in SCALES:
            image, whole = decoded(data[:-2] + TRAILERS[behind], at_least), decoded(data, at_least)
            assert image is not None
            np.testing.assert_array_equal(np.asarray(image), np.asarray(whole))


@pytest.mark.parametrize("scans", range(1, 10))
def test_a_progressive_jpeg_without_its_last_scans_is_cut_short(scans: int) -> None:
    data = in_format(PHOTO, "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    for _ in range(scans):
        at = data.index(b"\xff\xda", at + 2)
    # Between two scans stand the tables of the second.
    assert decoded(data[:at]) is None
    assert decoded(data[: data.rindex(b"\xff\xc4", 0, at)]) is None


def test_a_jpeg_without_the_scan_of_a_component_is_cut_short() -> None:
    data = in_scans(PHOTO)
    last = data.rindex(b"\xff\xda")
    assert decoded(data[:last]) is None
    assert decoded(data[:last] + data[last:]) is not None


def test_a_jpeg_without_a_restart_interval_at_its_end_is_cut_short() -> None:
    data = in_format(PHOTO, "JPEG", restart_marker_rows=1)
    for number in range(3):
        at = data.index(bytes((0xFF, 0xD0 + number)))
        assert decoded(data[:at]) is None
        assert decoded(data[: at + 2]) is None


def test_metadata_behind_the_scan_does_not_make_it_whole() -> None:
    data = in_format(PHOTO, "JPEG")
    comment = segment(0xFE, b"comment")
    assert decoded(data[:-40] + comment) is None
    assert decoded(data[:-2] + comment) is not None


def test_a_large_jpeg_without_an_end_is_judged_at_its_scale() -> None:
    strip = Image.fromarray(np.asarray(noise(80, 1).resize((2000, 16), Image.Resampling.BICUBIC)))
    data = tall(strip, 100, 1600)
    read = media.decode(data[:-2], max_pixels=10**6, jpeg_at_least=200)
    assert (read.width, read.height, read.scale) == (2000, 1600, 8)
    with pytest.raises(errors.UnreadablePicture):
        media.decode(data[:-200], max_pixels=10**6, jpeg_at_least=200)


FLAT = Image.new("RGB", (1600, 1200), (128, 128, 128))
HALF = Image.fromarray(np.asarray(noise(100, 75).resize((1600, 1200), Image.Resampling.BICUBIC)))
HALF.paste("#808080", (0, 600, 1600, 1200))


@pytest.mark.parametrize(
    "way",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"optimize": True},  # of a flat picture: one code for the levels, which says that they do not change
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 7},
    ],
)
def test_greys_at_the_end_need_no_more_than_decoding_at_an_eighth(way: dict[str, Any]) -> None:
    # Beyond `max_pixels` nothing else is tried.
    for picture in (FLAT, HALF, HALF.convert("L")):
        data = in_format(picture, "JPEG", **way)
        read = media.decode(data[:-2], max_pixels=500_000, jpeg_at_least=150)
        assert read.scale == 8
        np.testing.assert_array_equal(
            np.asarray(read.image), np.asarray(media.decode(data, max_pixels=500_000, jpeg_at_least=150).image)
        )
        for cut in (4, 5, 6, 7, 9, 20, 100):
            with pytest.raises(errors.UnreadablePicture, match="cut short"):
                media.decode(data[:-cut], max_pixels=500_000, jpeg_at_least=150)


def with_scan_last(picture: Image.Image, last: int, *, refined: bool) -> bytes:
    """A progressive JPEG with this of its scans at its end; without the refining ones if not `refined`."""
    data = in_format(picture, "JPEG", progressive=True)
    pieces, start = [], data.index(b"\xff\xc4")
    head, at = data[:start], start
    while (at := data.find(b"\xff\xda", at)) >= 0:
        behind = min(found for one in (b"\xff\xc4", b"\xff\xda", EOI) if (found := data.find(one, at + 2)) >= 0)
        pieces.append(bytearray(data[start:behind]))
        bits = at - start + 4 + 1 + 2 * data[at + 4] + 2
        if not refined:
            assert pieces[-1][bits] >> 4 == 0 or len(pieces) > 5
            pieces[-1][bits] = 0
        start, at = behind, behind
    assert len(pieces) == 10
    if not refined:
        del pieces[5:]
    pieces.append(pieces.pop(last))
    return head + b"".join(pieces) + EOI


@pytest.mark.parametrize("picture", ["photo", "noise", "grey below", "grey"])
@pytest.mark.parametrize(
    ("last", "refined"),
    [(0, False), (1, False), (2, False), (3, False), (4, False), (6, True), (7, True), (8, True), (9, True)],
)
def test_so_it_is_whatever_scan_comes_last(picture: str, last: int, refined: bool) -> None:
    check_cuts(with_scan_last(PICTURES[picture], last, refined=refined))


def test_a_progressive_jpeg_of_many_pixels_is_told_apart_where_its_last_scan_has_the_levels() -> None:
    for last, refined in ((0, False), (6, True)):
        data = with_scan_last(HALF, last, refined=refined)
        np.testing.assert_array_equal(np.asarray(decoded(data[:-2])), np.asarray(pillow(data)))
        assert [cut for cut in range(3, 40) if decoded(data[:-cut]) is not None] in ([], [3])
