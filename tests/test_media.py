"""Bytes to pixels, over every format, orientation and way of being broken that a shop will meet."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from server import errors, media
from server.artifact import PreprocessingSpec
from tests.conftest import in_format

SPEC = PreprocessingSpec(
    size=224,
    resize="shortest-edge",
    edge=224,
    resample="bicubic",
    rescale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
MOST = 64_000_000


def picture(width=96, height=64):
    """A picture without symmetry: every orientation of it differs."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    samples = np.stack([across, down, np.where((across > 150) & (down < 80), 255, 40)], axis=-1)
    return Image.fromarray(samples.astype(np.uint8))


def decoded(data, most=MOST):
    return media.decode(data, max_pixels=most)


def difference(one, other):
    assert one.size == other.size
    return np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean()


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 3),
        ("GIF", {}, 12),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("AVIF", {"quality": 95}, 3),
    ],
)
def test_every_format_decodes_to_the_picture_it_holds(form, options, tolerance):
    result = decoded(in_format(picture(), form, **options))
    assert result.image.mode == "RGB"
    assert result.format.pillow == form
    assert difference(result.image, picture()) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_turned_upright(orientation, form):
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decoded(in_format(stored, form, exif=exif))
    assert (result.width, result.height) == picture().size
    assert difference(result.image, picture()) < 6


def test_damaged_exif_does_not_cost_the_picture():
    exif = b"Exif\0\0" + b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 20
    assert difference(decoded(in_format(picture(), "JPEG", quality=95, exif=exif)).image, picture()) < 3


def test_cmyk_jpeg_becomes_rgb():
    result = decoded(in_format(picture().convert("CMYK"), "JPEG", quality=95))
    assert difference(result.image, picture()) < 6


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_laid_on_white(form):
    image = picture().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert difference(decoded(in_format(image, form, **options)).image, expected) <= 1


def test_a_transparent_palette_is_laid_on_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    result = decoded(in_format(image, "PNG", transparency=0)).image
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((7, 0)) == (0, 0, 255)


def test_a_grey_png_with_alpha_is_laid_on_white():
    image = Image.new("LA", (4, 4), (10, 0))
    assert decoded(in_format(image, "PNG")).image.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    for form in ("PNG", "TIFF"):
        result = np.asarray(decoded(in_format(Image.fromarray(ramp), form)).image)
        np.testing.assert_array_equal(result[0, :, 0], np.arange(256))


def test_one_bit_and_grey_pictures_become_rgb():
    for mode in ("1", "L"):
        image = picture().convert(mode)
        assert difference(decoded(in_format(image, "PNG")).image, image.convert("RGB")) == 0


def test_float_tiff_is_scaled():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    result = np.asarray(decoded(in_format(Image.fromarray(ramp), "TIFF")).image)
    np.testing.assert_array_equal(result[0, :, 0], np.arange(256))


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        data = in_format(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        red, _, blue = decoded(data).image.getpixel((8, 8))
        assert (red, blue) == (255, 0)


def test_an_empty_upload_is_no_picture():
    with pytest.raises(errors.NoPicture):
        decoded(b"")


@pytest.mark.parametrize(
    "data", [b"hello, I am a text called photo.jpg", b"%PDF-1.7", b"<svg xmlns='x'/>", b"\0" * 100, b"BZh9"]
)
def test_what_is_not_a_picture_says_so(data):
    with pytest.raises(errors.NotAPicture):
        decoded(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_truncated_picture_is_unreadable(form, part):
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = in_format(noise, form)
    with pytest.raises(errors.UnreadablePicture):
        decoded(data[: int(len(data) * part)])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_garbage_behind_a_good_signature_never_escapes_as_another_error(form):
    data = bytearray(in_format(picture(32, 32), form))
    random = np.random.default_rng(7)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(damaged), 8):
            damaged[place] = random.integers(0, 256)
        try:
            decoded(bytes(damaged))
        except errors.MediaRejected:
            continue


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    bomb = in_format(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(errors.PictureTooLarge) as caught:
        decoded(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert (caught.value.width, caught.value.height) == (20_000, 20_000)


def test_the_bound_on_pixels_is_the_setting():
    data = in_format(picture(100, 100), "PNG")
    assert decoded(data, most=10_000).width == 100
    with pytest.raises(errors.PictureTooLarge):
        decoded(data, most=9_999)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (224, 224), (223, 500)])
def test_pixels_are_always_the_models_square(size):
    pixels = media.to_pixels(picture(*size), SPEC)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_a_long_thin_picture_makes_no_giant_intermediate():
    # The whole way would hold 224 x 1,120,000 samples; Pillow's allocator counts what it really asked for.
    Image.core.reset_stats()
    media.to_pixels(Image.new("RGB", (1, 5000), (9, 8, 7)), SPEC)
    assert Image.core.get_stats()["allocated_blocks"] < 10


def test_the_way_round_a_giant_intermediate_gives_the_same_pixels(monkeypatch):
    random = np.random.default_rng(3)
    for width, height in [(40, 900), (900, 40), (7, 2400), (2400, 7), (230, 260), (31, 33)]:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        whole = media.to_pixels(image, SPEC).astype(np.int16)
        monkeypatch.setattr(media, "_LARGEST_INTERMEDIATE", 0)
        round_about = media.to_pixels(image, SPEC).astype(np.int16)
        monkeypatch.undo()
        assert np.abs(whole - round_about).max() <= 1
        assert (whole != round_about).mean() < 0.001


def test_squashing_keeps_the_whole_picture():
    spec = PreprocessingSpec(
        size=64, resize="squash", edge=64, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
    )
    image = picture(300, 100)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(media.to_pixels(image, spec), expected)


def test_a_thumbnail_is_small_keeps_its_shape_and_never_grows():
    small = Image.open(io.BytesIO(media.thumbnail(picture(2000, 1000))))
    assert (small.format, small.size) == ("WEBP", (256, 128))
    assert Image.open(io.BytesIO(media.thumbnail(picture(30, 20)))).size == (30, 20)
    assert Image.open(io.BytesIO(media.thumbnail(picture(4000, 2)))).size == (256, 1)
