"""HEIC and HEIF: what is read, how it is turned, and what is refused before anything is decoded.

The files in tests/data/heif are coded without loss, so the pixels that should come are known by arithmetic.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pi_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from server import errors
from server.preprocessing import heif, heif_coded, heif_file, heif_still, media
from server.preprocessing.formats import HEIC
from server.preprocessing.stored import Bounds, Stored
from tests import ROOT
from tests.support.heif import ALPHA, Item, aperture, box, coded, extent, file, full, grid, written

WIDTH, HEIGHT = 96, 64
MOST = 1_000_000
EXACT = coded("exact")
PLAIN = coded("plain")


def samples(bits: int = 8) -> NDArray[np.int64]:
    """As tests/data/heif/make.py draws them."""
    full_scale = (1 << bits) - 1
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    red, green = across * full_scale // (WIDTH - 1), down * full_scale // (HEIGHT - 1)
    return np.stack([red, green, np.where((across > 60) & (down < 20), full_scale, full_scale // 6)], -1)


def alpha(bits: int = 8) -> NDArray[np.int64]:
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.asarray((across + down) * ((1 << bits) - 1) // (WIDTH + HEIGHT - 2))


def to_eight(wide: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return np.floor(wide * 255 / ((1 << bits) - 1) + 0.5).astype(np.int64)


def read(data: bytes, most: int = MOST) -> Stored:
    return heif.read(data, HEIC, Bounds(most))


def pixels(data: bytes) -> NDArray[np.int64]:
    return np.asarray(read(data).image).astype(np.int64)


def refused(data: bytes) -> str:
    """The sentence of a refusal that comes with 415."""
    with pytest.raises(errors.UnsupportedPicture) as caught:
        media.decode(data, max_pixels=MOST)
    return caught.value.sentence


def unreadable(data: bytes) -> None:
    with pytest.raises(errors.UnreadablePicture):
        media.decode(data, max_pixels=MOST)


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_colours_of_8_bits_are_read_to_the_last_bit() -> None:
    assert np.array_equal(pixels(file("exact")), samples())


@pytest.mark.parametrize("bits", [10, 12])
def test_wide_samples_are_rounded_to_8_bits(bits: int) -> None:
    assert np.array_equal(pixels(file(f"bits-{bits}")), to_eight(samples(bits), bits))
    wide = samples(bits)
    grey = pixels(file(f"grey-{bits}"))
    assert np.array_equal(grey, to_eight(wide[..., 0] // 2 + wide[..., 1] // 2, bits))


def test_grey_is_read_to_the_last_bit() -> None:
    stored = read(file("grey"))
    assert stored.image.mode == "L"
    assert np.array_equal(np.asarray(stored.image), samples()[..., 0] // 2 + samples()[..., 1] // 2)


@pytest.mark.parametrize(("name", "bits"), [("alpha", 8), ("alpha-10", 10)])
def test_alpha_is_read_to_the_last_bit(name: str, bits: int) -> None:
    found = pixels(file(name))
    assert np.array_equal(found[..., :3], to_eight(samples(bits), bits))
    assert np.array_equal(found[..., 3], to_eight(alpha(bits), bits))


def test_colours_that_were_multiplied_by_their_alpha_are_divided_by_it() -> None:
    found, straight, opacity = pixels(file("premultiplied")), samples(), alpha()
    multiplied = np.floor(straight * opacity[..., None] / 255 + 0.5)
    expected = np.floor(multiplied * 255 / np.maximum(opacity, 1)[..., None] + 0.5)
    seen = opacity > 0
    assert np.array_equal(found[seen][:, :3], expected[seen])
    assert np.array_equal(found[..., 3], opacity)


@pytest.mark.parametrize("name", ["plain", "chroma-420", "chroma-422", "chroma-444", "grid-420", "thumbnail", "two"])
def test_pixels_equal_those_that_the_library_gives_of_the_whole_file(name: str) -> None:
    theirs = pi_heif.open_heif(file(name)).to_pillow()
    assert np.array_equal(pixels(file(name)), np.asarray(theirs))


@pytest.mark.parametrize("name", ["plain", "chroma-420", "chroma-422", "chroma-444"])
def test_coded_with_loss_it_is_still_the_picture(name: str) -> None:
    """Chroma of half the size blurs the one sharp edge; everything else is smooth."""
    differences = np.abs(pixels(file(name)) - samples())
    assert differences.mean() < 2
    assert np.percentile(differences, 95) <= 4


def test_tiles_are_put_together() -> None:
    upright = np.rot90(samples(), -1)
    assert np.array_equal(pixels(file("grid")), upright)  # tiles of 40 x 40, cut from 64 x 64, turned as a whole


def test_the_primary_picture_of_several_is_read() -> None:
    assert np.array_equal(pixels(file("two")), samples())


def test_the_still_picture_of_a_sequence_is_read() -> None:
    data = written([EXACT.item()], brands=b"msf1\0\0\0\0msf1hevcmif1heic") + box(b"moov", bytes(40))
    assert np.array_equal(pixels(data), samples())
    assert media.decode(data, max_pixels=MOST).format is HEIC


# --- which way up ---------------------------------------------------------------------------------------------------

UPRIGHT: dict[int, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: picture[::-1, ::-1].transpose(1, 0, 2),
    8: lambda picture: np.rot90(picture),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_it_is_turned_once_as_its_boxes_say(orientation: int) -> None:
    stored = read(file(f"turned-{orientation}"))
    assert stored.orientation == 1  # nothing is left to be done
    assert np.array_equal(np.asarray(stored.image), UPRIGHT[orientation](samples()))


def test_exif_beside_the_boxes_does_not_turn_it_again() -> None:
    picture = media.decode(file("turned-and-exif"), max_pixels=MOST)
    assert np.array_equal(np.asarray(picture.image), UPRIGHT[6](samples()))


def test_exif_alone_does_not_turn_it() -> None:
    """As HEIF says: the boxes are what counts, and EXIF is there for information."""
    assert np.array_equal(np.asarray(media.decode(file("exif-alone"), max_pixels=MOST).image), samples())


def test_alpha_is_turned_with_the_picture() -> None:
    found = pixels(file("turned-alpha"))
    assert np.array_equal(found, UPRIGHT[6](np.dstack([samples(), alpha()])))
    # The same where its own properties do not say so again.
    both = [EXACT.item(box(b"irot", b"\3")), coded("grey").item(box(b"auxC", ALPHA))]
    mask = pixels(written(both, [(b"auxl", 2, [1])]))[..., 3]
    assert np.array_equal(mask, np.rot90(samples()[..., 0] // 2 + samples()[..., 1] // 2, -1))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([aperture(40, 20, (0, 1), (0, 1))], samples()[22:42, 28:68]),
        ([aperture(40, 20, (-28, 1), (44, 2))], samples()[44:64, 0:40]),
        ([aperture(96, 64, (10, 1), (0, 1))], samples()[:, 10:]),
        ([aperture(40, 20, (0, 1), (0, 1)), box(b"irot", b"\1")], np.rot90(samples()[22:42, 28:68])),
        ([box(b"irot", b"\1"), box(b"imir", b"\1")], np.rot90(samples())[:, ::-1]),
        ([box(b"imir", b"\0"), box(b"irot", b"\2")], samples()[::-1][::-1, ::-1]),
    ],
)  # fmt: skip
def test_it_is_cut_turned_and_mirrored_in_the_order_of_its_boxes(
    turns: list[bytes], expected: NDArray[np.int64]
) -> None:
    data = written([EXACT.item(*turns)])
    assert np.array_equal(pixels(data), expected)
    theirs = np.asarray(pi_heif.open_heif(data).to_pillow())
    assert np.array_equal(theirs, expected)


def test_one_picture_that_is_another_one_turned() -> None:
    items = [Item(b"", [extent(64, 96), box(b"irot", b"\1")], b"iden"), EXACT.item(box(b"imir", b"\1"))]
    items[0].content = b"\0"
    assert np.array_equal(pixels(written(items, [(b"dimg", 1, [2])])), np.rot90(samples()[:, ::-1]))


# --- colour ---------------------------------------------------------------------------------------------------------


def test_its_icc_profile_is_handed_on() -> None:
    profile = read(file("icc")).profile
    assert profile is not None
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).startswith("sRGB")


def test_colours_that_are_named_by_numbers_get_a_profile_unless_they_are_srgb() -> None:
    assert read(file("exact")).profile is None
    profile = read(file("display-p3")).profile
    assert profile is not None
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    columns = (opened.red_colorant, opened.green_colorant, opened.blue_colorant)
    # Display P3 under D50, as Apple publishes it.
    published = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
    for column, expected in zip(columns, published, strict=True):
        assert column is not None
        assert np.allclose(column[0], expected, atol=2e-4)


@pytest.mark.parametrize("nclx", [b"\xff\xff\0\r\0\0\x80", b"\0\1\xff\xff\0\0\x80", b"\0\1", b""])
def test_colours_named_by_numbers_that_mean_nothing_count_as_absent(nclx: bytes) -> None:
    stored = read(written([EXACT.item(box(b"colr", b"nclx", nclx))]))
    assert stored.profile is None
    if len(nclx) == 7:  # the matrix is known: red, green and blue as they are
        assert np.array_equal(np.asarray(stored.image), samples())


# --- refused by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (b"av01", "AV1"),
        (b"avc1", "H.264"),
        (b"vvc1", "H.266"),
        (b"jpeg", "JPEG inside"),
        (b"j2k1", "JPEG 2000"),
        (b"unci", "without compression"),
        (b"iovl", "laid over each other"),
        (b"tmap", "gain map"),
        (b"xyz1", "not known here"),
    ],
)
def test_what_is_coded_otherwise_is_named(kind: bytes, name: str) -> None:
    assert name in refused(written([Item(bytes(20), [extent(96, 64)], kind)]))


def test_a_property_that_must_be_understood_and_is_not_is_named() -> None:
    assert "'wxyz'" in refused(written([Item(**{**vars(EXACT.item(box(b"wxyz", b"1"))), "needed": b"wxyz"})]))
    assert np.array_equal(pixels(written([EXACT.item(box(b"wxyz", b"1"))])), samples())


def test_a_film_without_a_still_picture_is_named() -> None:
    assert "film" in refused(box(b"ftyp", b"hevc\0\0\0\0msf1hevc") + box(b"moov", bytes(100)))


def test_an_encrypted_picture_is_named() -> None:
    data = written([EXACT.item()])
    at = data.index(b"infe") + 4 + 4 + 2
    assert "encrypted" in refused(data[:at] + b"\0\1" + data[at + 2 :])


def test_a_configuration_that_is_wrong_about_the_bits_does_not_change_the_pixels() -> None:
    """The library goes by the configuration, and would cut the samples to 8 bits."""
    wide = coded("bits-10")
    wide.configuration = wide.configuration[:17] + b"\xf8\xf8" + wide.configuration[19:]
    assert np.array_equal(pixels(written([wide.item()])), to_eight(samples(10), 10))


def test_without_its_library_it_is_refused_by_name_and_not_listed() -> None:
    program = """if True:
        import sys
        sys.modules["pi_heif"] = None
        from importlib import util
        find, util.find_spec = util.find_spec, lambda name, *more: None if name == "pi_heif" else find(name, *more)
        from server import errors
        from server.preprocessing import media
        try:
            media.decode(open("tests/data/heif/plain.heic", "rb").read(), max_pixels=10**6)
        except errors.NotAPicture as error:
            print(error.sentence, media.reads())
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "this server has no reader of HEIC installed" in done.stdout, done.stderr
    assert "heic" not in done.stdout.split("[")[1]
    assert {"image/heic", "image/heif", "image/jpeg"} <= set(media.reads())


def test_the_library_is_loaded_for_the_first_picture_alone() -> None:
    program = "import sys, server.preprocessing.media; print('pi_heif' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


# --- bounds and damage ----------------------------------------------------------------------------------------------


def test_its_size_is_bounded_before_it_is_decoded() -> None:
    for data in (file("exact"), file("grid"), written([EXACT.item(size=(40000, 40000))])):
        with pytest.raises(errors.PictureTooLarge):
            media.decode(data, max_pixels=6000)
        with pytest.raises(errors.PictureTooLarge):
            media.measure(data, max_pixels=6000)
    assert media.measure(file("grid"), max_pixels=MOST) == (96, 64)  # as stored: not turned


def test_a_picture_larger_than_its_boxes_say_is_not_decoded() -> None:
    unreadable(written([EXACT.item(size=(16, 16))]))
    unreadable(written([EXACT.item(size=(97, 64))]))


def test_the_size_of_alpha_is_bounded_as_well() -> None:
    large = coded("grey").item(box(b"auxC", ALPHA), size=(5000, 5000))
    unreadable(written([EXACT.item(), large], [(b"auxl", 2, [1])]))


def test_a_grid_must_be_covered_by_its_tiles_and_by_no_more() -> None:
    tiles = [EXACT.item() for _ in range(4)]

    def of(width: int, height: int, references: list[int]) -> bytes:
        whole = Item(grid(2, 2, width, height), [extent(width, height)], b"grid")
        return written([whole, *tiles], [(b"dimg", 1, references)])

    assert np.array_equal(pixels(of(192, 128, [2, 3, 4, 5])), np.tile(samples(), (2, 2, 1)))
    assert np.array_equal(pixels(of(180, 100, [2, 2, 2, 2])), np.tile(samples(), (2, 2, 1))[:100, :180])
    for width, height in ((193, 128), (96, 128), (192, 64), (10, 10)):
        unreadable(of(width, height, [2, 3, 4, 5]))
    unreadable(of(192, 128, [2, 3, 4]))
    unreadable(of(192, 128, [2, 3, 4, 9]))


def test_a_tile_that_cannot_be_decoded_is_not_left_out_in_silence() -> None:
    broken = EXACT.item()
    # Of its slice the head is left, and nothing of its pixels.
    broken.content = (3).to_bytes(4) + broken.content[-int.from_bytes(broken.content[:4]) :][:3]
    whole = Item(grid(1, 2, 192, 64), [extent(192, 64)], b"grid")
    data = written([whole, EXACT.item(), broken], [(b"dimg", 1, [2, 3])])
    unreadable(data)


def test_several_pictures_in_the_place_of_one_are_not_decoded_one_after_the_other() -> None:
    many = EXACT.item()
    many.content *= 300
    assert "several pictures" in refused(written([many]))


def test_a_file_cut_short_is_unreadable_wherever_it_is_cut() -> None:
    data = file("grid-420")
    for end in range(40, len(data), 97):
        with pytest.raises(errors.MediaRejected) as caught:
            media.decode(data[:end], max_pixels=MOST)
        assert isinstance(caught.value, errors.UnreadablePicture), end
    assert pixels(data + b"whatever a phone puts behind it").shape == (64, 96, 3)


def test_what_nobody_reads_cannot_spoil_it() -> None:
    """EXIF that is missing or endless, a profile of nothing, other pictures that are broken."""
    broken = [Item(b"?", [], b"Exif"), Item(b"?", [extent(1, 1)], b"jpeg"), Item(b"?", [box(b"hvcC", b"?")])]
    references = [(b"cdsc", 2, [1]), (b"thmb", 3, [1]), (b"auxl", 4, [1])]
    data = written([EXACT.item(box(b"colr", b"prof"), box(b"pixi", b"?")), *broken], references)
    assert np.array_equal(pixels(data), samples())
    assert read(data).profile is None


def test_a_picture_is_not_turned_without_end() -> None:
    assert "turned more often" in refused(written([EXACT.item(*[box(b"irot", b"\1")] * 200)]))


def test_boxes_items_and_references_are_counted_before_they_are_read() -> None:
    tiny = box(b"free") * 200
    assert "more boxes" in refused(written([EXACT.item()], extra=tiny))
    assert "more boxes" in refused(written([EXACT.item()] + [Item(b"", [box(b"free")] * 100)] * 50))
    many = full(b"iinf", (5000).to_bytes(2))
    data = written([EXACT.item()])
    at = data.index(b"iinf") - 4
    size = int.from_bytes(data[at : at + 4])
    assert "more parts" in refused(data[:at] + many + box(b"free", bytes(size - len(many) - 8)) + data[at + size :])


class Counted(bytes):
    """Counts how many bytes are copied out of it."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, bytes):
            self.copied += len(part)
        return part


def test_a_property_is_copied_once_however_often_items_name_it() -> None:
    items = [EXACT.item(box(b"free", bytes(100_000))) for _ in range(1000)]
    counted = Counted(written(items, share=True))
    found = heif_file.parse(counted)
    assert all(found.items[number].get(b"free") == bytes(100_000) for number in range(1, 1001))
    assert counted.copied < 2 * len(counted)


def test_the_alpha_of_a_tile_is_looked_for_once_however_often_the_tile_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    referring = heif_file.HeifFile.referring

    def counted(file: heif_file.HeifFile, kind: bytes, number: int) -> list[int]:
        asked.append(number)
        return referring(file, kind, number)

    monkeypatch.setattr(heif_file.HeifFile, "referring", counted)
    mask = coded("grey").item(box(b"auxC", ALPHA))
    items = [Item(grid(10, 10, 960, 640), [extent(960, 640)], b"grid"), EXACT.item(), mask]
    data = written(items, [(b"dimg", 1, [2] * 100), (b"auxl", 3, [2] * 1000)])
    opacity = samples()[..., 0] // 2 + samples()[..., 1] // 2
    assert np.array_equal(pixels(data), np.tile(np.dstack([samples(), opacity]), (10, 10, 1)))
    assert asked == [1, 2]
    assert referring(heif_file.parse(data), b"auxl", 2) == [3]  # once, though it says so a thousand times


def test_items_that_share_their_bytes_do_not_make_a_small_file_a_large_one() -> None:
    tiles = [EXACT.item() for _ in range(4)]
    whole = Item(grid(2, 2, 192, 128), [extent(192, 128)], b"grid")
    data = bytearray(written([whole, *tiles], [(b"dimg", 1, [2, 3, 4, 5])]))
    for number in range(3, 6):  # each begins a byte earlier than the one before: as good as the same, and yet another
        at = data.index(number.to_bytes(2) + bytes(2) + b"\0\1", data.index(b"iloc"))
        start = int.from_bytes(data[at + 6 : at + 10])
        data[at + 6 : at + 10] = (start - (number - 2) * len(EXACT.stream) - number).to_bytes(4)
    unreadable(bytes(data))


def tiled(tiles: Sequence[Item], columns: int, *, share: bool = False) -> bytes:
    """A grid of these, by rows, each of 96 x 64."""
    rows = len(tiles) // columns
    whole = Item(grid(rows, columns, columns * WIDTH, rows * HEIGHT), [], b"grid")
    numbers = range(2, len(tiles) + 2)
    return written([whole, *tiles], [(b"dimg", 1, numbers)], share=share)


def test_items_of_the_same_bytes_are_one_picture_that_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counted(coded: heif_coded.Coded, nclx: bytes | None) -> bytes:
        decoded.append(id(coded))
        return heif_coded.packed(coded, nclx)

    monkeypatch.setattr("server.preprocessing.heif.packed", counted)
    data = tiled([EXACT.item() for _ in range(100)], 10, share=True)
    assert np.array_equal(pixels(data), np.tile(samples(), (10, 10, 1)))
    assert len(decoded) == 1
    decoded.clear()
    mirrored = EXACT.item(box(b"imir", b"\1"))
    data = tiled([EXACT.item(), mirrored] * 50, 2, share=True)
    assert np.array_equal(pixels(data), np.tile(np.hstack([samples(), samples()[:, ::-1]]), (50, 1, 1)))
    assert len(decoded) == 2
    found = heif_still.find(heif_file.parse(data), Bounds(MOST).check)
    assert len({id(tile.stream) for tile in found.tiles}) == 1


def test_the_streams_of_all_pictures_are_together_no_larger_than_the_file() -> None:
    tiles = []
    for number in range(4):  # the same bytes, and each time another configuration
        other = coded("exact")
        other.configuration = other.configuration[:2] + bytes([number]) + other.configuration[3:]
        tiles.append(other.item())
    data = tiled(tiles, 2, share=True)
    assert 4 * len(EXACT.stream) > len(data)
    unreadable(data)
    assert np.array_equal(pixels(tiled(tiles, 2)), np.tile(samples(), (2, 2, 1)))  # each with bytes of its own


def test_a_configuration_has_a_bounded_length() -> None:
    long = coded("exact")
    room = (64 << 10) - len(long.configuration)
    long.configuration += bytes(room)
    assert np.array_equal(pixels(written([long.item()])), samples())
    long.configuration += b"\0"
    assert "longer parameters" in refused(written([long.item()]))


def test_the_tiles_that_are_decoded_are_counted() -> None:
    most = heif_coded._MOST_PICTURES
    tiles = [PLAIN.item() for _ in range(most)]
    data = tiled(tiles, 32)
    found = heif_still.find(heif_file.parse(data), Bounds(10 * MOST).check)
    assert len(set(found.tiles)) == len(found.tiles) == most
    with pytest.raises(errors.UnsupportedPicture) as caught:
        media.decode(tiled([*tiles, *tiles[:32]], 32), max_pixels=10 * MOST)
    assert "more tiles" in caught.value.sentence


def test_parameter_sets_and_units_of_a_stream_are_counted() -> None:
    """Those that are the same are one; a picture has no use for several others."""
    configuration, stream = EXACT.configuration, EXACT.stream
    sequence, picture = (unit for kind, unit in parameters(configuration) if kind in (33, 34))
    for others, read_well in (([sequence] * 100, True), ([sequence + bytes([end]) for end in range(1, 9)], False)):
        several = EXACT.item()
        several.content = b"".join(len(one).to_bytes(4) + one for one in (*others, picture)) + stream
        if read_well:
            assert np.array_equal(pixels(written([several])), samples())
        else:
            unreadable(written([several]))
    message = b"\x50\1"  # a message of nothing behind the picture
    for count, read_well in ((900, True), (1001, False)):
        cut = EXACT.item()
        cut.content = stream + (len(message).to_bytes(4) + message) * count
        if read_well:
            assert np.array_equal(pixels(written([cut])), samples())
        else:
            assert "more slices" in refused(written([cut]))
    few = coded("exact")  # of all tiles together: 20 x 900 is more than 16,384
    few.stream = stream + (len(message).to_bytes(4) + message) * 900
    assert "more slices" in refused(tiled([few.item() for _ in range(20)], 5))


def parameters(configuration: bytes) -> list[tuple[int, bytes]]:
    """The units of a configuration, with their kinds."""
    found, at = [], 23
    for _ in range(configuration[22]):
        count, at = int.from_bytes(configuration[at + 1 : at + 3]), at + 3
        for _ in range(count):
            size = int.from_bytes(configuration[at : at + 2])
            unit = configuration[at + 2 : at + 2 + size]
            found.append((unit[0] >> 1 & 63, unit))
            at += 2 + size
    return found


def test_threads_decode_side_by_side() -> None:
    found: list[bool] = []

    def decode() -> None:
        found.extend(pixels(file(name)).shape[2] >= 3 for name in ("exact", "grid", "alpha-10"))

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12


def test_a_decoded_picture_needs_its_file_no_more() -> None:
    image: Image.Image = read(file("grey-10")).image
    assert image.copy().tobytes() == image.tobytes()
