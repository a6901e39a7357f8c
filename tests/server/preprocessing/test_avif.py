"""AVIF: colours, depths, alpha and orientation against libvips and what was written, and what must not cost it."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from server import errors
from server.preprocessing import av1, avif, cicp, media
from server.preprocessing.formats import AVIF
from server.preprocessing.orientation import upright
from server.preprocessing.stored import Bounds
from tests.support.pictures import in_format

MOST = 1_000_000
SIZE = (64, 48)
Array = NDArray[np.uint8]

MAKE = b"\x01\x0f\x00\x02\x00\x00\x00\x06\x00\x00\x00\x1a"
SIX = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"


def gradient() -> Image.Image:
    """Smooth, and different whichever way it is turned; its alpha is 0 above, 200 below."""
    across, down = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(255, 0, SIZE[1]))
    bands = [across, down, np.full_like(across, 60), np.where(np.arange(SIZE[1])[:, None] < 24, 0, 200) + 0 * across]
    return Image.fromarray(np.stack(bands, axis=2).astype(np.uint8))


def rgba(data: bytes) -> Array:
    stored = avif.read(data, AVIF, Bounds(MOST))
    assert stored.size == stored.image.size == media.measure(data, max_pixels=MOST)
    return np.asarray(stored.image.convert("RGBA"))


def by_vips(data: bytes) -> Array:
    image = pyvips.Image.new_from_buffer(data, "")
    found = image.numpy().reshape(image.height, image.width, image.bands)
    if found.dtype == np.uint16:
        found = np.rint(found / 257)
    if found.shape[2] < 3:
        found = np.concatenate([found[..., :1].repeat(3, 2), found[..., 1:]], axis=2)
    if found.shape[2] == 3:
        found = np.concatenate([found, np.full((*found.shape[:2], 1), 255)], axis=2)
    eight: Array = found.astype(np.uint8)
    return eight


def apart(one: Array, other: Array) -> float:
    """On average, where either can be seen: what alpha 0 hides may differ."""
    assert one.shape == other.shape
    shown = (one[..., 3] > 0) | (other[..., 3] > 0)
    return float(np.abs(one[shown].astype(int) - other[shown].astype(int)).mean())


def oriented(orientation: int, *, name: str = "maker") -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, name
    return exif.tobytes()


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"range": "limited"}, {"alpha_premultiplied": True}],
)
def test_every_kind_is_read_as_it_was_written_and_by_libvips(mode: str, options: dict[str, Any]) -> None:
    image = gradient().convert(mode)
    data = in_format(image, "AVIF", quality=95, **options)
    found, written = rgba(data), np.asarray(image.convert("RGBA"))
    assert apart(found, written) < 2
    np.testing.assert_array_equal(found[..., 3], written[..., 3])
    # libvips takes premultiplied colours for straight ones, and does not widen limited greys.
    if "alpha_premultiplied" not in options and (mode, options.get("range")) != ("L", "limited"):
        assert apart(found, by_vips(data)) < 2


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_ten_and_twelve_bits_become_eight(mode: str, bits: int) -> None:
    samples = np.asarray(gradient().convert(mode)).astype(np.uint16) * 257
    kind = "grey16" if mode == "L" else "rgb16"
    data = pyvips.Image.new_from_array(samples, interpretation=kind).heifsave_buffer(
        compression="av1", Q=95, bitdepth=bits
    )
    found = rgba(data)
    assert apart(found, np.asarray(gradient().convert(mode).convert("RGBA"))) < 2
    assert apart(found, by_vips(data)) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_once_by_its_properties(orientation: int) -> None:
    data = in_format(gradient().convert("RGB"), "AVIF", quality=95, exif=oriented(orientation))
    plain = in_format(gradient().convert("RGB"), "AVIF", quality=95)
    expected = np.asarray(upright(media.decode(plain, max_pixels=MOST).image, orientation))
    for each in (data, data.replace(MAKE, SIX)):  # EXIF's own word does not count: not again, and not instead
        found = np.asarray(media.decode(each, max_pixels=MOST).image)
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found.astype(int) - by_vips(each)[..., :3]).mean() < 2
    assert data.replace(MAKE, SIX) != data


def test_xmp_does_not_turn_it() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = in_format(gradient().convert("RGB"), "AVIF", xmp=xmp)
    assert avif.read(data, AVIF, Bounds(MOST)).orientation == 1


def test_exif_that_is_damaged_does_not_cost_the_picture() -> None:
    data = in_format(gradient().convert("RGB"), "AVIF", exif=oriented(6))
    at = data.index(b"MM\0*")
    clean = np.asarray(media.decode(data, max_pixels=MOST).image)
    for damage in (b"zzzz", b"MM\0*\xff\xff\xff\xff", bytes(8), b"MM\0*\0\0\0\x08\xff\xff\xff\xff"):
        damaged = data[:at] + damage + data[at + len(damage) :]
        np.testing.assert_array_equal(np.asarray(media.decode(damaged, max_pixels=MOST).image), clean)


def test_a_sequence_gives_its_first_picture() -> None:
    first, other = gradient().convert("RGB"), Image.new("RGB", SIZE, "red")
    data = in_format(first, "AVIF", quality=95, save_all=True, append_images=[other] * 3)
    assert apart(rgba(data), np.asarray(first.convert("RGBA"))) < 2


def test_colours_that_are_named_by_numbers_have_a_profile() -> None:
    data = in_format(gradient(), "AVIF")
    numbers = data.index(b"nclx") + 4
    assert avif.read(data, AVIF, Bounds(MOST)).profile is None
    named = {(12, 13): cicp.profile(12, 13), (1, 4): cicp.profile(1, 4), (2, 2): None, (9, 16): None}
    for (primaries, transfer), profile in named.items():
        said = data[:numbers] + primaries.to_bytes(2) + transfer.to_bytes(2) + data[numbers + 4 :]
        assert avif.read(said, AVIF, Bounds(MOST)).profile == profile


def test_the_profile_is_handed_on_unless_it_is_too_large() -> None:
    image = gradient().convert("RGB")
    for profile, kept in ((b"profile" * 9, True), (bytes(4 << 20), True), (bytes((4 << 20) + 1), False)):
        data = in_format(image, "AVIF", icc_profile=profile)
        assert avif.read(data, AVIF, Bounds(MOST)).profile == (profile if kept else None)


def test_what_follows_the_picture_does_not_matter_and_a_cut_one_is_refused() -> None:
    data = in_format(gradient().convert("RGB"), "AVIF")
    np.testing.assert_array_equal(rgba(data + b"trailing"), rgba(data))
    for kept in (16, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(errors.UnreadablePicture, match="damaged or cut short"):
            media.decode(data[:kept], max_pixels=MOST)


def test_colours_and_depths_that_are_not_read_are_named() -> None:
    data = in_format(gradient().convert("RGB"), "AVIF")
    at = data.index(b"nclx") + 4
    foreign = data[: at + 4] + struct.pack(">H", 14) + data[at + 6 :]  # a matrix of HDR pictures (ICtCp)
    deep = data.replace(b"pixi\0\0\0\0\3\x08\x08\x08", b"pixi\0\0\0\0\3\x40\x40\x40")
    assert deep != data
    for changed, said in ((foreign, "colours in a way"), (deep, "a kind that is not read")):
        with pytest.raises(errors.UnsupportedPicture, match=said):
            media.decode(changed, max_pixels=MOST)


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [Image.new("RGB", SIZE)]}])
def test_the_bound_on_pixels_holds_for_the_header_and_for_the_frames(options: dict[str, Any]) -> None:
    data = in_format(gradient().convert("RGB"), "AVIF", **options)
    assert set(av1.frame_sizes(data)) == {SIZE}
    for reading in (media.decode, media.measure):
        with pytest.raises(errors.PictureTooLarge):
            reading(data, max_pixels=SIZE[0] * SIZE[1] - 1)
    said = struct.pack(">II", *SIZE)
    smaller = data.replace(said, struct.pack(">II", 8, 8))
    assert smaller != data
    with pytest.raises(errors.PictureTooLarge, match="64 x 48"):
        avif.read(smaller, AVIF, Bounds(SIZE[0] * SIZE[1] - 1))


def test_the_size_of_frames_is_found_at_any_depth_and_for_alpha() -> None:
    for size in ((1, 1), (300, 7), (1000, 999)):
        assert set(av1.frame_sizes(in_format(Image.new("RGBA", size, (1, 2, 3, 4)), "AVIF"))) == {size}
    for bits in (8, 10, 12):
        image = pyvips.Image.black(70, 30, bands=3).copy(interpretation="srgb")
        data = image.heifsave_buffer(compression="av1", bitdepth=bits)
        assert set(av1.frame_sizes(data)) == {(70, 30)}


def test_what_is_no_frame_is_not_taken_for_one() -> None:
    # As units of AV1, these would begin with a sequence header.
    image = gradient().convert("RGB")
    for options in ({"xmp": b"\n\x7f" + b"\xff" * 300}, {"icc_profile": b"\n\x7f" + b"\xff" * 300}):
        assert set(av1.frame_sizes(in_format(image, "AVIF", **options))) == {SIZE}
    assert set(av1.frame_sizes(in_format(image, "AVIF") + b"\n\x7f" * 300)) == {SIZE}


def test_a_file_of_parts_without_number_is_refused_by_name() -> None:
    data = in_format(gradient().convert("RGB"), "AVIF")
    many = data + struct.pack(">I4s", 8, b"free") * 100_000
    with pytest.raises(errors.UnsupportedPicture, match="more than 100,000 parts"):
        list(av1.frame_sizes(many))


def test_a_file_of_sequence_headers_without_number_is_refused_by_name() -> None:
    data = in_format(gradient().convert("RGB"), "AVIF")
    at = data.rindex(b"mdat") + 4
    # Its sequence header, which says its length, over and over in place of the picture.
    first = data.index(b"\x0a", at)
    unit = data[first : first + 2 + data[first + 1]]
    start, length = struct.pack(">I", at), struct.pack(">I", len(data) - at)
    for number in (10_000, 10_001, 90_000):
        many = data[:at] + unit * number
        many = many.replace(start + length, start + struct.pack(">I", len(unit) * number))
        if number <= 10_000:
            assert list(av1.frame_sizes(many)) == [SIZE] * number
        else:
            with pytest.raises(errors.UnsupportedPicture, match="more than 10,000 frames or tiles"):
                list(av1.frame_sizes(many))


def test_damaged_files_raise_nothing_but_what_rejects_them() -> None:
    chance = random.Random(6)
    files = [
        in_format(gradient(), "AVIF", exif=oriented(6)),
        in_format(gradient().convert("RGB"), "AVIF", save_all=True, append_images=[Image.new("RGB", SIZE)]),
    ]
    fates = set()
    for number in range(400):
        data = bytearray(files[number % len(files)])
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(12, len(data))] = chance.randrange(256)
        if number % 7 == 0:
            del data[chance.randrange(12, len(data)) :]
        list(av1.frame_sizes(bytes(data)))
        try:
            media.decode(bytes(data), max_pixels=MOST)
            fates.add("read")
        except errors.MediaRejected as exc:
            fates.add(type(exc).__name__)
    assert {"read", "UnreadablePicture"} <= fates
