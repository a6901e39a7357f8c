"""Pictures with an ICC profile: the colours that it means, against arithmetic; and profiles that mean nothing."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from export.proof.profiles import SPACES, grey_profile, in_space, linear, profile, rgb_profile, to_xyz
from server.artifact.artifact import PreprocessingSpec
from server.preprocessing import colour, media
from server.preprocessing.colour import colours_of
from server.preprocessing.media import Picture
from server.preprocessing.stored import MOST_PROFILE_BYTES
from tests.support.pictures import in_format
from tests.support.profiles import press_profile, printed

SPEC = PreprocessingSpec(
    size=64, resize="shortest-edge", edge=64, resample="bicubic", rescale=1.0, mean=(0, 0, 0), std=(1, 1, 1), icc="srgb"
)
IGNORED = msgspec.structs.replace(SPEC, icc="ignored")
SQUASHED = msgspec.structs.replace(SPEC, resize="squash")
WIDE = ["Display P3", "Adobe RGB (1998)", "ProPhoto RGB"]


def profile_of(name: str) -> bytes:
    return rgb_profile(name, SPACES[name])


def smooth(width: int = 160, height: int = 100) -> Image.Image:
    """Colours of every hue, from dull to vivid."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across * 0.6], axis=-1).astype(np.uint8))


def encoded(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light, 0 to 1, as sRGB's samples, 0 to 255 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def meant(samples: NDArray[Any], name: str) -> NDArray[np.float64]:
    """What samples of a space are in sRGB, by arithmetic; what sRGB cannot show is cut off."""
    matrix = np.linalg.inv(to_xyz(SPACES["sRGB"])) @ to_xyz(SPACES[name])
    return encoded(np.clip(linear(samples / 255, SPACES[name].gamma) @ matrix.T, 0, 1))


def decoded(data: bytes, alpha: str = "white") -> Picture:
    return media.decode(data, max_pixels=10**7, alpha=alpha)  # type: ignore[arg-type]


def resized(samples: NDArray[np.float64], spec: PreprocessingSpec) -> NDArray[np.float64]:
    """float[H, W, 3] to float[S, S, 3] as the spec says, without rounding between."""
    height, width, _ = samples.shape
    size = (spec.size, spec.size)
    if spec.resize != "squash":
        size = (spec.edge * width // min(width, height), spec.edge * height // min(width, height))
    bands = [
        np.asarray(Image.fromarray(samples[..., k].astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for k in range(3)
    ]
    left, top = (size[0] - spec.size) // 2, (size[1] - spec.size) // 2
    cropped = np.stack(bands, axis=-1)[top : top + spec.size, left : left + spec.size]
    clipped: NDArray[np.float64] = np.clip(cropped, 0, 255).astype(np.float64)
    return clipped


def pixels_of(image: Image.Image, spec: PreprocessingSpec = SPEC) -> NDArray[np.int16]:
    return media.to_pixels(image, spec).astype(np.int16)


@pytest.mark.parametrize("spec", [SPEC, SQUASHED], ids=["cropped", "squashed"])
@pytest.mark.parametrize("name", WIDE)
def test_colours_of_a_wide_space_come_out_as_the_arithmetic_has_them(name: str, spec: PreprocessingSpec) -> None:
    image = smooth()
    data = in_format(image, "PNG", icc_profile=profile_of(name))
    expected = resized(meant(np.asarray(image), name), spec)
    found = media.to_pixels(decoded(data), spec)
    apart = np.abs(found - expected)
    # Near black one step of what is stored is several of sRGB's.
    assert np.quantile(apart, 0.98) <= 1.5
    assert apart.mean() < 0.4
    assert np.abs(expected - media.to_pixels(image, spec)).max() > 10
    assert found.flags.c_contiguous
    assert found.dtype == np.uint8


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_format_brings_its_profile(form: str) -> None:
    options = {"quality": 95} if form != "TIFF" else {}
    data = in_format(smooth(), form, icc_profile=profile_of("ProPhoto RGB"), **options)
    expected = meant(media.to_pixels(smooth(), SPEC), "ProPhoto RGB")
    assert np.abs(media.to_pixels(decoded(data), SPEC) - expected).mean() <= 3


@pytest.mark.parametrize("name", WIDE)
def test_a_picture_and_its_copy_in_a_wide_space_are_the_same_colours(name: str) -> None:
    """Of dull colours, which every space has."""
    image = Image.fromarray((np.asarray(smooth()) // 2 + 64).astype(np.uint8))
    data = in_format(in_space(image, profile_of(name)), "PNG", icc_profile=profile_of(name))
    apart = np.abs(media.to_pixels(decoded(data), SPEC) - pixels_of(image))
    assert apart.max() <= 4
    assert apart.mean() < 0.5
    raw = np.abs(media.to_pixels(decoded(data), IGNORED) - pixels_of(image))
    assert raw.mean() > 3


def test_a_scaled_jpeg_is_converted_too() -> None:
    data = in_format(smooth(1600, 1000), "JPEG", quality=95, icc_profile=profile_of("Adobe RGB (1998)"))
    picture = media.decode(data, max_pixels=10**7, jpeg_at_least=64)
    assert picture.scale == 8
    expected = meant(media.to_pixels(smooth(1600, 1000), SPEC), "Adobe RGB (1998)")
    assert np.abs(media.to_pixels(picture, SPEC) - expected).mean() < 2


@pytest.mark.parametrize("gamma", [1.4, 1.8, 2.6])
@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA"])
def test_greys_of_another_curve_are_converted(gamma: float, mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    stored = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257) if mode == "I;16" else ramp.convert(mode)
    data = in_format(stored, "PNG", icc_profile=grey_profile("gamma", gamma))
    levels = np.asarray(stored.convert("L")) if mode == "1" else np.asarray(ramp)
    expected = np.rint(encoded((levels / 255.0) ** gamma))
    found = media.to_pixels(decoded(data), SPEC)
    # A gamma is stored in steps of 1/256, and littleCMS works in 16 bits.
    assert np.abs(found - expected[..., None]).max() <= 2


def test_the_inks_of_a_press_are_converted_by_its_profile() -> None:
    inks = np.stack([np.asarray(smooth(64, 64))[..., k] // d for k, d in ((0, 1), (1, 1), (2, 2), (0, 6))], axis=-1)
    for form in ("JPEG", "TIFF"):
        options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
        data = in_format(Image.fromarray(inks, "CMYK"), form, icc_profile=press_profile(), **options)
        apart = np.abs(media.to_pixels(decoded(data), SPEC).astype(np.int16) - printed(inks))
        assert apart.mean() < 2, form
        assert apart.max() <= 12, form
        unmanaged = media.to_pixels(decoded(data), IGNORED)
        assert np.abs(unmanaged.astype(np.int16) - printed(inks)).mean() > 20, form


def test_white_paper_stays_white() -> None:
    bare = np.zeros((64, 64, 4), np.uint8)
    data = in_format(Image.fromarray(bare, "CMYK"), "TIFF", icc_profile=press_profile())
    assert media.to_pixels(decoded(data), SPEC).min() == 255


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "LA", "P"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_spec_that_ignores_profiles_gives_the_pixels_of_a_picture_without_one(mode: str, orientation: int) -> None:
    image = smooth().convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    form = "TIFF" if mode == "CMYK" else "PNG"
    icc = {"L": grey_profile("g", 1.8), "LA": grey_profile("g", 1.8), "CMYK": press_profile()}
    exif = Image.Exif()
    exif[0x0112] = orientation
    bare = in_format(image, form, exif=exif)
    data = in_format(image, form, exif=exif, icc_profile=icc.get(mode, profile_of("ProPhoto RGB")))
    np.testing.assert_array_equal(media.to_pixels(decoded(data), IGNORED), media.to_pixels(decoded(bare), IGNORED))
    assert decoded(data).colours is not None
    assert not np.array_equal(media.to_pixels(decoded(data), SPEC), media.to_pixels(decoded(bare), SPEC))


def test_colours_are_converted_and_alpha_is_not() -> None:
    image = smooth(64, 64)
    image.putalpha(Image.linear_gradient("L").resize((64, 64)))
    straight = np.asarray(image).astype(np.float64)
    name = "Adobe RGB (1998)"
    data = in_format(image, "PNG", icc_profile=profile_of(name))
    opacity = straight[..., 3:] / 255
    expected = meant(straight[..., :3], name) * opacity + 255 * (1 - opacity)
    apart = np.abs(media.to_pixels(decoded(data), SPEC) - expected)
    # The alpha is multiplied into 8 bits and out again, and near black a step of 1 is one of several in sRGB.
    assert np.quantile(apart, 0.99) <= 3
    assert apart.mean() < 0.7


@pytest.mark.parametrize("made_by", ["here", "littleCMS"])
def test_a_profile_that_is_srgb_in_all_but_name_costs_nothing_and_changes_nothing(made_by: str) -> None:
    icc = (
        profile_of("sRGB") if made_by == "here" else ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    image = smooth()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    picture = decoded(in_format(image, "PNG", icc_profile=icc))
    assert picture.colours is None
    np.testing.assert_array_equal(
        media.to_pixels(picture, SPEC), media.to_pixels(decoded(in_format(image, "PNG")), SPEC)
    )
    assert colours_of(grey_profile("sRGB's curve", None), "L") is None


def test_a_profile_for_other_colours_than_the_pictures_counts_as_srgb() -> None:
    assert colours_of(press_profile(), "RGB") is None
    assert colours_of(grey_profile("g", 1.8), "RGB") is None
    assert colours_of(profile_of("Display P3"), "L") is None
    assert colours_of(profile_of("Display P3"), "CMYK") is None
    assert colours_of(profile_of("Display P3"), "YCbCr") is None
    picture = decoded(in_format(smooth().convert("L"), "JPEG", icc_profile=profile_of("ProPhoto RGB")))
    assert picture.colours is None
    assert picture.image.mode == "RGB"


@pytest.mark.parametrize("kind", [b"link", b"abst", b"nmcl", b"\0\0\0\0"])
def test_a_profile_that_describes_no_device_counts_as_srgb(kind: bytes) -> None:
    whole = profile_of("Display P3")
    assert colours_of(whole[:12] + kind + whole[16:], "RGB") is None


def test_a_scanners_profile_is_read() -> None:
    whole = profile_of("Display P3")
    assert colours_of(whole[:12] + b"scnr" + whole[16:], "RGB") is not None


@pytest.mark.parametrize(
    ("whole", "mode"),
    [(profile_of("Display P3"), "RGB"), (grey_profile("g", 1.8), "L"), (press_profile(), "CMYK")],
    ids=["rgb", "grey", "press"],
)
def test_a_profile_that_was_cut_short_counts_as_srgb(whole: bytes, mode: str) -> None:
    assert colours_of(whole, mode) is not None
    for end in range(0, len(whole), max(16, len(whole) // 400 // 16 * 16)):
        assert colours_of(whole[:end], mode) is None, end


def test_no_damage_to_a_profile_keeps_a_picture_from_being_read() -> None:
    drawn = np.random.default_rng(17)
    image = smooth(32, 32)
    for whole, mode in ((profile_of("Adobe RGB (1998)"), "RGB"), (grey_profile("g", 1.8), "L")):
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(drawn.integers(1, 6)):
                damaged[drawn.integers(len(damaged))] = drawn.integers(256)
            data = in_format(image.convert(mode), "PNG", icc_profile=bytes(damaged))
            assert media.to_pixels(decoded(data), SPEC).shape == (64, 64, 3)


def test_a_profile_in_which_everything_is_black_counts_as_srgb() -> None:
    """Damage can make one."""
    matrix = dict.fromkeys((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), b"XYZ " + b"\x00" * 16)
    curve = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + b"\x00" * 8)
    assert colours_of(profile(b"mntr", b"RGB ", b"XYZ ", matrix | curve), "RGB") is None


def test_a_profile_of_more_than_4_mib_is_ignored() -> None:
    whole = profile_of("Display P3")
    assert colours_of(whole + bytes(MOST_PROFILE_BYTES - len(whole)), "RGB") is not None
    assert colours_of(whole + bytes(MOST_PROFILE_BYTES - len(whole) + 1), "RGB") is None


def test_chains_of_processing_elements_are_not_followed() -> None:
    """They may be as long as the file: the tags beside them say the same."""
    space = SPACES["Display P3"]
    bare = rgb_profile("Display P3", space)
    assert b"desc" in bare
    chained = bare.replace(b"desc", b"D2B1", 1)
    sound = colour._sound(chained, b"RGB ")
    assert sound is not None
    assert b"D2B1" not in sound
    assert colours_of(chained, "RGB") is not None


def test_so_many_profiles_are_kept_and_no_more() -> None:
    kept = colour._Kept(3)
    icc = [grey_profile("g", 1.2 + step / 10) for step in range(5)]
    first = [kept.colours_of(one, "L") for one in icc]
    assert len(kept._kept) == 3
    assert kept.colours_of(icc[4], "L") is first[4]
    assert kept.colours_of(icc[0], "L") is not first[0]
    assert len(kept._kept) == 3


def test_threads_that_share_a_profile_get_the_same_colours() -> None:
    drawn = np.random.default_rng(5)
    images = [Image.fromarray(drawn.integers(0, 256, (48, 48, 3), np.uint8)) for _ in range(8)]
    colours = colours_of(profile_of("ProPhoto RGB"), "RGB")
    assert colours is not None
    alone = [np.asarray(colours.to_srgb(image)) for image in images]
    together = threading.Barrier(8)

    def convert(at: int) -> bool:
        together.wait()
        return all(np.array_equal(np.asarray(colours.to_srgb(images[at])), alone[at]) for _ in range(20))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(convert, range(8)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_thumbnail_is_in_srgb_whatever_the_spec_says(mode: str) -> None:
    image = smooth().convert(mode)
    data = in_format(image, "PNG", icc_profile=profile_of("ProPhoto RGB"))
    small = Image.open(io.BytesIO(media.thumbnail(decoded(data))))
    assert small.mode == "RGB"
    assert "icc_profile" not in small.info
    assert np.abs(np.asarray(small) - meant(np.asarray(smooth()), "ProPhoto RGB")).mean() < 4


def test_a_picture_in_full_can_be_had_in_srgb() -> None:
    data = in_format(smooth(), "PNG", icc_profile=profile_of("Display P3"))
    picture = decoded(data)
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(smooth())).max() == 0
    assert np.abs(np.asarray(picture.in_srgb()) - meant(np.asarray(smooth()), "Display P3")).max() <= 1


@pytest.mark.parametrize("size", [(120, 100), (90, 90), (70, 128)])
@pytest.mark.parametrize("spec", [SPEC, SQUASHED], ids=["cropped", "squashed"])
@pytest.mark.parametrize("name", WIDE)
def test_rounding_before_the_conversion_is_hardly_seen_after_it(
    name: str, spec: PreprocessingSpec, size: tuple[int, int]
) -> None:
    """Vivid, with the noise of a camera: its mean is known to fractions, and one step stored may be several in sRGB."""
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    samples = np.stack([205 + 30 * across, 60 + 30 * down * across, 70 + 30 * down], axis=-1)
    samples += np.random.default_rng(32).normal(0, 3, samples.shape)
    image = Image.fromarray(samples.round().astype(np.uint8))
    expected = resized(meant(np.asarray(image), name), spec)
    found = media.to_pixels(decoded(in_format(image, "PNG", icc_profile=profile_of(name))), spec)
    late = np.rint(meant(media.to_pixels(image, spec), name))
    assert np.abs(found - expected).mean() < 0.9 * np.abs(late - expected).mean()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 4000), (2000, 3), (400, 9000)])
def test_thin_pictures_are_converted_as_the_middle_of_what_they_show(size: tuple[int, int], mode: str) -> None:
    """One colour along the short side, a slow ramp along the long one: the middle of it is what the crop keeps."""
    length, short = max(size), min(size)
    ramp = np.linspace(60, 200, length)
    line = np.stack([ramp, np.full(length, 120.0), 255 - ramp], axis=-1).round().astype(np.uint8)
    samples = np.repeat(line[:, None], short, axis=1)
    samples = samples if size[1] == length else samples.swapaxes(0, 1)
    data = in_format(
        Image.fromarray(np.ascontiguousarray(samples)).convert(mode), "PNG", icc_profile=profile_of("Adobe RGB (1998)")
    )
    found = media.to_pixels(decoded(data), SPEC)
    middle = meant(line[length // 2 - short // 2 - 1 : length // 2 + short // 2 + 2], "Adobe RGB (1998)").mean(axis=0)
    assert found.shape == (64, 64, 3)
    assert np.abs(found.mean(axis=(0, 1)) - middle).max() < 1.5


def test_a_picture_that_fills_a_part_of_its_last_pixels_is_converted_in_its_place() -> None:
    image = smooth(1001, 701)
    data = in_format(image, "JPEG", quality=98, subsampling=0, icc_profile=profile_of("Display P3"))
    bare = in_format(image, "JPEG", quality=98, subsampling=0)
    scaled, plain = (media.decode(one, max_pixels=10**7, jpeg_at_least=128) for one in (data, bare))
    assert scaled.scale == 4
    assert scaled.box is not None
    expected = meant(media.to_pixels(plain, SPEC), "Display P3")
    apart = media.to_pixels(scaled, SPEC) - expected
    assert np.abs(apart).mean() < 1
    assert np.abs(apart.mean(axis=(0, 1))).max() < 0.5
