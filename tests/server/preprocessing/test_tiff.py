"""Which page of a TIFF is read, which way up and with what profile; and what becomes of damaged files."""

from __future__ import annotations

import ctypes
import io
import struct
import subprocess
import sys
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.errors import MediaRejected, PictureTooLarge, UnreadablePicture, UnsupportedPicture
from server.preprocessing import libtiff, media, tiff, tiff_directory
from server.preprocessing.formats import TIFF
from server.preprocessing.stored import Bounds
from tests.support import tiffs
from tests.support.tiffs import DEFLATE, GREY, LZW, NONE, PACKBITS, RGB, Page

MANY = 10**6


def flat(value: int, width: int = 8, height: int = 6, **more: Any) -> Page:
    """A page of one grey; its value says which page was read."""
    further = more.pop("further", {})
    samples = np.full((height, width, 1), value, np.uint8)
    return tiffs.page(samples, bits=8, photometric=GREY, further=further, **more)


def read_grey(data: bytes) -> int:
    values = np.unique(np.asarray(tiff.read(data, TIFF, Bounds(MANY)).image))
    assert len(values) == 1
    return int(values[0])


REDUCED, PAGE_OF_MANY, MASK = {254: [1]}, {254: [2]}, {254: [4]}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("pages", "right"),
    [
        ([flat(1), flat(2)], 1),
        ([flat(1, further=PAGE_OF_MANY), flat(2, further=PAGE_OF_MANY)], 1),
        ([flat(1, 2, 2, further=REDUCED), flat(2), flat(3)], 2),
        ([flat(1, 2, 2, further={255: [2]}), flat(2, further={255: [1]})], 2),
        ([flat(1, further=MASK), flat(2, 2, 2, further=REDUCED), flat(3)], 3),
        ([flat(1, further={262: [4]}), flat(2)], 2),
        # The full picture is below the thumbnail; or smaller ones are below the full one.
        ([flat(1, 2, 2, further=REDUCED, below=[flat(2)])], 2),
        ([flat(1, 2, 2, further=REDUCED, below=[flat(2, 3, 3, further=REDUCED), flat(3)])], 3),
        ([flat(1, below=[flat(2, 4, 3, further=REDUCED)])], 1),
        # A full page in the chain comes before one below another page.
        ([flat(1, 2, 2, further=REDUCED, below=[flat(2)]), flat(3)], 3),
        # All say that they are reduced: the largest.
        ([flat(1, 2, 2, further=REDUCED), flat(2, 4, 3, further=REDUCED), flat(3, 3, 3, further=REDUCED)], 2),
        ([flat(1, 2, 2, further=REDUCED, below=[flat(2, 4, 3, further=REDUCED)])], 2),
        ([flat(1, 9, 9, further=MASK), flat(2, 4, 3, further=REDUCED)], 2),
    ],
)
def test_the_first_page_in_full_is_read(pages: list[Page], right: int, order: str, big: bool) -> None:
    data = tiffs.written(*pages, order=order, big=big)
    assert read_grey(data) == right
    image = tiff.read(data, TIFF, Bounds(MANY)).image
    assert tiff.measure(data, TIFF) == image.size


def test_a_chain_that_leads_back_ends() -> None:
    data = bytearray(tiffs.written(flat(7, 2, 2, further=REDUCED)))
    (first,) = struct.unpack_from("<I", data, 4)
    data[-4:] = struct.pack("<I", first)
    assert read_grey(bytes(data)) == 7


@pytest.mark.parametrize(
    "page",
    [
        flat(1, further={50706: bytes([1, 4, 0, 0])}),
        flat(1, further={262: [32803]}),
        flat(1, further={262: [34892]}),
        flat(1, further={259: [34713]}),
        flat(1, 2, 2, further=REDUCED, below=[flat(2, further={262: [32803]})]),
    ],
    ids=["DNG", "colour filter array", "linear", "Nikon", "below the thumbnail"],
)
def test_a_cameras_raw_picture_is_refused_by_name(page: Page) -> None:
    with pytest.raises(UnsupportedPicture, match="camera's raw picture"):
        tiff.read(tiffs.written(page), TIFF, Bounds(MANY))


def test_canons_raw_picture_is_refused_by_name() -> None:
    data = bytearray(tiffs.written(flat(1)))
    data[8:10] = b"CR"
    with pytest.raises(UnsupportedPicture, match="camera's raw picture"):
        tiff.read(bytes(data), TIFF, Bounds(MANY))


# Of TIFF 6.0: what row 0 and column 0 of the stored picture are in the upright one.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("compression", [NONE, LZW])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_that_of_the_page(orientation: int, compression: int) -> None:
    pyvips = pytest.importorskip("pyvips")
    samples = np.random.default_rng(orientation).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    full = tiffs.page(samples, bits=8, photometric=RGB, compression=compression, further={274: [orientation]})
    thumbnail = flat(1, further={**REDUCED, 274: [3]})
    right = UPRIGHT[orientation](samples)
    for pages in ((full,), (thumbnail, full), (full, thumbnail)):
        picture = media.decode(tiffs.written(*pages), max_pixels=MANY)
        np.testing.assert_array_equal(np.asarray(picture.image), right)
        assert (picture.width, picture.height) == picture.image.size
    turned = pyvips.Image.new_from_buffer(tiffs.written(full), "").autorot()
    np.testing.assert_array_equal(turned.numpy(), right)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_left_alone(value: int) -> None:
    assert tiff.read(tiffs.written(flat(1, further={274: [value]})), TIFF, Bounds(MANY)).orientation == 1


def test_the_profile_is_that_of_the_page_unless_it_is_too_large() -> None:
    thumbnail = flat(1, further={**REDUCED, 34675: b"of the thumbnail"})
    data = tiffs.written(thumbnail, flat(2, further={34675: b"of the picture"}))
    assert tiff.read(data, TIFF, Bounds(MANY)).profile == b"of the picture"
    assert tiff.read(tiffs.written(flat(2)), TIFF, Bounds(MANY)).profile is None
    large = tiffs.written(flat(2, further={34675: bytes((4 << 20) + 1)}))
    assert tiff.read(large, TIFF, Bounds(MANY)).profile is None


def test_pixels_are_bounded_before_anything_is_decoded() -> None:
    data = tiffs.written(flat(1, further={256: [60000], 257: [60000], 278: [60000]}))
    with pytest.raises(PictureTooLarge):
        tiff.read(data, TIFF, Bounds(MANY))
    # Tiles are decompressed as a whole: what they hold beyond the picture counts, too.
    data = tiffs.written(flat(1, tile=(16, 16), compression=DEFLATE, further={322: [60000], 323: [60000]}))
    with pytest.raises(PictureTooLarge):
        tiff.read(data, TIFF, Bounds(MANY))


def test_a_strip_beyond_what_the_library_takes_is_refused_by_name() -> None:
    data = tiffs.written(flat(1, compression=DEFLATE, further={256: [60000], 257: [60000], 278: [60000]}))
    with pytest.raises(UnsupportedPicture, match="more than 2 GiB"):
        tiff.read(data, TIFF, Bounds(sys.maxsize))


def test_a_picture_in_countless_strips_is_refused_by_name() -> None:
    rows = 65_537
    one = flat(1, 1, 1)
    tags = {**one.tags, 257: [rows], 278: [1], 273: [8] * rows, 279: [1] * rows}
    with pytest.raises(UnsupportedPicture, match="65,537 strips"):
        tiff.read(tiffs.written(Page(tags, one.blocks)), TIFF, Bounds(MANY))


def of_size(pixels: int, bits: int, samples: int, photometric: int, **more: Any) -> bytes:
    """A file of which the tags say that it has so many pixels."""
    page = tiffs.page(np.zeros((8, 8, samples), np.uint8), bits=bits, photometric=photometric, **more)
    rows = pixels // 1000
    return tiffs.written(Page({**page.tags, 256: [1000], 257: [rows], 278: [rows]}, page.blocks))


CMYK, LAB, YCBCR = tiffs.CMYK, tiffs.LAB, tiffs.YCBCR
ORDINARY: list[tuple[int, int, int, dict[str, Any]]] = [
    (1, 1, GREY, {}),
    (8, 1, GREY, {}),
    (16, 1, GREY, {}),
    (8, 3, RGB, {}),
    (8, 4, RGB, {"extra": [2]}),
    (8, 4, CMYK, {}),
    (16, 3, RGB, {}),
    (16, 3, RGB, {"planar": True}),
    (8, 3, YCBCR, {"further": {530: [1, 1]}}),
]
SLOW: list[tuple[int, int, int, dict[str, Any]]] = [
    (12, 3, RGB, {}),
    (16, 4, RGB, {"extra": [1]}),
    (16, 5, CMYK, {"extra": [2]}),
    (8, 3, LAB, {}),
    (64, 1, GREY, {"numbering": 3, "compression": DEFLATE, "predictor": 3}),
]


@pytest.mark.parametrize(("bits", "samples", "photometric", "more"), ORDINARY)
def test_an_ordinary_kind_may_have_any_size(bits: int, samples: int, photometric: int, more: dict[str, Any]) -> None:
    if "planar" in more:
        more = {**more, "rows": 8}
    assert tiff.measure(of_size(200 * MANY, bits, samples, photometric, **more), TIFF) == (1000, 200_000)


@pytest.mark.parametrize(("bits", "samples", "photometric", "more"), SLOW)
def test_a_kind_that_takes_longer_may_have_24_million_pixels(
    bits: int, samples: int, photometric: int, more: dict[str, Any]
) -> None:
    assert tiff.measure(of_size(24 * MANY, bits, samples, photometric, **more), TIFF) == (1000, 24_000)
    large = of_size(64 * MANY, bits, samples, photometric, **more)
    for step in (lambda: tiff.measure(large, TIFF), lambda: tiff.read(large, TIFF, Bounds(64 * MANY))):
        with pytest.raises(UnsupportedPicture, match=rf"too large for its kind \({bits}-bit .* million pixels"):
            step()


def test_samples_that_are_left_out_count_as_well() -> None:
    assert tiff.measure(of_size(12 * MANY, 16, 15, RGB, extra=[0] * 12), TIFF) == (1000, 12_000)
    with pytest.raises(UnsupportedPicture, match="of 15 samples"):
        tiff.measure(of_size(24 * MANY, 16, 15, RGB, extra=[0] * 12), TIFF)


def test_no_more_numbers_of_a_tag_are_taken_than_are_asked_for() -> None:
    count = 4_000_000
    page = tiff_directory.Directory(bytes(8) + b"\2" * count, "<", dict.fromkeys(range(250, 400), (1, count, 8)), 0)
    tracemalloc.start()
    try:
        assert page.number(tiff_directory.WIDTH, 0) == 2
        depths = page.numbers(tiff_directory.BITS, most=3)
        assert depths is not None
        assert depths.tolist() == [2, 2, 2]
        assert page.area() == 4
        assert page.has_full_picture()
        assert not page.is_camera_raw()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count / 10


def test_directories_below_a_page_that_cannot_be_read_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked through until it turns out to be damaged."""
    pages = [Page({**flat(1, 2, 2, further=REDUCED).tags, 330: [1] * 100}) for _ in range(100)]
    data = tiffs.written(flat(9, 2, 2, further=REDUCED), *pages)
    looked_at = []
    whole = tiff_directory._read

    def counted(data: bytes, order: str, big: bool, at: int) -> tiff_directory.Directory | None:
        looked_at.append(at)
        return whole(data, order, big, at)

    monkeypatch.setattr(tiff_directory, "_read", counted)
    assert read_grey(data) == 9
    assert 100 < len(looked_at) <= 200


def test_a_library_without_a_compression_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libtiff, "_has_codec", lambda name: False)
    damaged = tiffs.written(flat(1, further={259: [50000]}))
    with pytest.raises(UnsupportedPicture, match="Zstandard, and this server's libtiff was built without it"):
        tiff.read(damaged, TIFF, Bounds(MANY))


NOISE = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("way", [{"rows": 24}, {"rows": 5}, {"tile": (16, 16)}, {"planar": True}])
def test_a_picture_that_lacks_its_last_samples_is_refused(way: dict[str, Any], compression: int) -> None:
    """The directory comes first here, as cameras and scanners write it, and the file ends early."""
    one = tiffs.page(NOISE, bits=8, photometric=RGB, compression=compression, **way)
    whole = tiffs.written(one)
    first = flat(1, further=REDUCED)
    tail = b"".join(one.blocks)
    # Its own blocks are left out of the directory's file, and come after it.
    starts, at = [], 0
    for block in one.blocks:
        starts.append(at)
        at += len(block)
    offsets, counts = (324, 325) if one.tiled else (273, 279)
    sizes = [len(block) for block in one.blocks]
    blank = tiffs.written(first, Page({**one.tags, offsets: starts, counts: sizes}))
    head = tiffs.written(first, Page({**one.tags, offsets: [len(blank) + start for start in starts], counts: sizes}))
    assert len(head) == len(blank)
    np.testing.assert_array_equal(np.asarray(tiff.read(head + tail, TIFF, Bounds(MANY)).image), NOISE)
    np.testing.assert_array_equal(np.asarray(tiff.read(whole, TIFF, Bounds(MANY)).image), NOISE)
    for missing in (8, len(tail) // 2, len(tail)):
        with pytest.raises(UnreadablePicture):
            tiff.read((head + tail)[:-missing], TIFF, Bounds(MANY))


@pytest.mark.parametrize("compression", ["jpeg", "group4", "group3"])
def test_a_jpeg_or_fax_strip_that_ends_early_is_refused(compression: str) -> None:
    out = io.BytesIO()
    image = Image.fromarray(NOISE).convert("RGB" if compression == "jpeg" else "1")
    image.save(out, "TIFF", compression=compression)
    with Image.open(out) as stored:
        at, count = stored.tag_v2[273][0], stored.tag_v2[279][0]  # type: ignore[attr-defined]
        assert len(stored.tag_v2[273]) == 1  # type: ignore[attr-defined]
    data = out.getvalue()
    media.decode(data, max_pixels=MANY)
    # The strip moved to the end of the file, where its last quarter is missing.
    cut = bytearray(data.replace(struct.pack("<HHII", 273, 4, 1, at), struct.pack("<HHII", 273, 4, 1, len(data))))
    assert bytes(cut) != data
    with pytest.raises(UnreadablePicture):
        media.decode(bytes(cut) + data[at : at + count * 3 // 4], max_pixels=MANY)


@pytest.mark.parametrize("rows", [24, 8])
@pytest.mark.parametrize("compression", [2, 3, 4])
def test_a_fax_strip_whose_data_ends_before_its_rows_is_refused(compression: int, rows: int) -> None:
    """However long the file says that it is, or if it does not say: libtiff alone leaves white, or anything."""
    name = {2: "tiff_ccitt", 3: "group3", 4: "group4"}[compression]
    strips = []
    for top in range(0, 24, rows):
        out = io.BytesIO()
        image = Image.fromarray(NOISE[top : top + rows]).convert("1")
        image.save(out, "TIFF", compression=name)
        with Image.open(out) as stored:
            (at,), (count,) = stored.tag_v2[273], stored.tag_v2[279]  # type: ignore[attr-defined]
        strips.append(out.getvalue()[at : at + count])
    tags = {**flat(1, 32, 24).tags, 258: [1], 259: [compression], 278: [rows]}
    whole = np.concatenate(
        [np.asarray(Image.fromarray(NOISE[top : top + rows]).convert("1")) for top in range(0, 24, rows)]
    )
    np.testing.assert_array_equal(
        np.asarray(tiff.read(tiffs.written(Page(tags, strips)), TIFF, Bounds(MANY)).image), whole * 255
    )
    for missing in (len(strips[-1]) // 2, len(strips[-1]) * 3 // 4):
        cut = [*strips[:-1], strips[-1][:-missing]]
        short = {**tags, 279: [len(strip) for strip in cut]}
        files = [tiffs.written(Page(tags, cut)), tiffs.written(Page(short, strips))]
        if rows == 24:  # it is the last thing in the file, and no length is given
            end = len(tiffs.written(Page({**tags, 273: [8], 279: [0]})))
            files.append(tiffs.written(Page({**tags, 273: [end], 279: [0]})) + cut[0])
        for data in files:
            with pytest.raises(UnreadablePicture):
                tiff.read(data, TIFF, Bounds(MANY))


@pytest.mark.parametrize(
    "tags",
    [
        {256: [0]},
        {257: [0]},
        {273: [2**31]},
        {273: [0]},
        {279: b"no number"},
        {258: b"\0\0\0\0"},
        {277: [0]},
        {278: [2]},
        {262: [3]},
        {262: [2]},
    ],
    ids=lambda tags: str(next(iter(tags))),
)
def test_a_directory_that_cannot_be_right_is_refused_as_damaged(tags: dict[int, Any]) -> None:
    with pytest.raises(UnreadablePicture):
        tiff.read(tiffs.written(flat(1, further=tags)), TIFF, Bounds(MANY))


def test_blocks_that_share_one_place_over_and_over_are_refused() -> None:
    one = flat(1, 64, 1, compression=DEFLATE)
    rows = 50_000
    padding = bytes(60_000)
    tags = {**one.tags, 257: [rows], 278: [1], 273: [8] * rows, 279: [50_000] * rows}
    with pytest.raises(UnreadablePicture):
        tiff.read(tiffs.written(Page(tags, [*one.blocks, padding])), TIFF, Bounds(10 * MANY))


def corpus() -> list[bytes]:
    """Small files of each kind that is read."""
    rng = np.random.default_rng(6)
    files = []
    for bits, (photometric, samples) in product((1, 4, 8, 12, 16), ((0, 1), (1, 2), (2, 3), (2, 4), (5, 4))):
        numbers = rng.integers(0, 1 << bits, (9, 11, samples)).astype(np.uint16 if bits > 8 else np.uint8)
        layout: dict[str, Any] = {"bits": bits, "photometric": photometric, "extra": (1,)}
        ways: list[dict[str, Any]] = [
            {},
            {"compression": LZW, "rows": 4},
            {"compression": DEFLATE, "tile": (16, 16), "planar": True},
        ]
        files += [tiffs.written(tiffs.page(numbers, **layout, **way)) for way in ways]
    grey = rng.integers(0, 256, (9, 11, 1), dtype=np.uint8)
    colours = {320: rng.integers(0, 65536, 768).tolist()}
    files.append(tiffs.written(tiffs.page(grey, bits=8, photometric=3, further=colours, compression=PACKBITS)))
    units = rng.integers(0, 256, (5, 36, 1), dtype=np.uint8)
    ycbcr = tiffs.page(units, bits=8, photometric=6, compression=LZW)
    fractions: dict[int, Any] = {
        529: [(299, 1000), (587, 1000), (114, 1000)],
        532: [(v, 1) for v in (0, 255, 128, 255, 128, 255)],
    }
    tags = {256: [11], 257: [9], 258: [8] * 3, 277: [3], 278: [10], 530: [2, 2], **fractions}
    files.append(tiffs.written(Page({**ycbcr.tags, **tags}, ycbcr.blocks)))
    files.append(tiffs.written(flat(1, 2, 2, further=REDUCED, below=[flat(2)]), order=">", big=True))
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for mode, compression in (("RGB", "jpeg"), ("L", "jpeg"), ("YCbCr", "jpeg"), ("1", "group3"), ("1", "group4")):
        out = io.BytesIO()
        image.convert(mode).save(out, "TIFF", compression=compression)
        files.append(out.getvalue())
    for compression in ("zstd", "lzma"):
        out = io.BytesIO()
        try:
            image.save(out, "TIFF", compression=compression)
        except OSError:
            continue
        files.append(out.getvalue())
    return files


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, more often where the directory is; or the end cut off."""
    changed: NDArray[np.uint8] = np.frombuffer(data, np.uint8).copy()
    for _ in range(int(rng.integers(1, 5))):
        place = (
            int(rng.integers(len(changed))) if rng.random() < 0.4 else -1 - int(rng.integers(min(260, len(changed))))
        )
        changed[place] = rng.choice([0, 1, 2, 3, 255, int(rng.integers(256))])
    end = int(rng.integers(8, len(changed))) if rng.random() < 0.2 else len(changed)
    return changed[:end].tobytes()


def test_any_bytes_are_read_or_refused_without_a_line_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(7)
    came = {"read": 0, "refused": 0}
    for data in corpus():
        media.decode(data, max_pixels=MANY)
        for _ in range(40):
            try:
                media.decode(mutated(data, rng), max_pixels=MANY)
                came["read"] += 1
            except MediaRejected:
                came["refused"] += 1
    assert min(came.values()) > 100
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_sent_damaged_tiffs_writes_nothing_to_standard_error(tmp_path: Path) -> None:
    """In a process of its own, since libtiff's handlers belong to the process."""
    damaged = bytearray(tiffs.written(tiffs.page(NOISE, bits=8, photometric=RGB, compression=LZW)))
    damaged[20:40] = b"\xff" * 20
    path = tmp_path / "damaged.tif"
    path.write_bytes(damaged)
    # Without our reader libtiff does write a line: else the test would prove nothing.
    loud = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"
    silent = (
        "import sys; from server.preprocessing import media\n"
        "try: media.decode(open(sys.argv[1], 'rb').read(), max_pixels=10**6)\n"
        "except media.MediaRejected: print('refused')"
    )
    root = Path(__file__).parents[3]
    said = {}
    for name, code in (("loud", loud), ("silent", silent)):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, check=False)
        said[name] = done.stdout, done.stderr
    assert "code" in said["loud"][1].split("Traceback")[0]
    assert said["silent"] == ("refused\n", "")


def test_the_handlers_of_libtiff_are_within_reach_of_this_pillow() -> None:
    assert libtiff.silence()


def test_a_pillow_that_hides_libtiff_is_read_with_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(path: str) -> object:
        raise OSError(path)

    monkeypatch.setattr(ctypes, "CDLL", out_of_reach)
    assert not libtiff.silence()
