"""What the gate says about colours and ground: figures that are right, and a refusal where a choice does not help."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.errors import ExportRefused
from export.proof import colours
from export.proof.colours import Converted, Shapes
from export.proof.parity import PICTURES, GatePicture, as_the_checkpoint, gate_pictures, prove_pixels
from export.proof.profiles import SPACES, in_space, rgb_profile
from server.preprocessing.media import read_pixels
from tests.support.pictures import in_format
from tests.support.stand_ins import SPEC, encode

COLOURED = msgspec.structs.replace(SPEC, icc="srgb", alpha="contrast")
CHOSEN = ("sunset.jpg", "two-dogs.jpg", "hammer.jpg", "cat.png", "dahlia.webp", "bucket.jpg", "apple.webp")


@pytest.fixture(scope="module")
def pictures() -> list[GatePicture]:
    return [picture for picture in gate_pictures(SPEC) if picture.name in CHOSEN]


def test_files_in_wide_spaces_are_nearer_to_their_originals_when_they_are_converted(
    pictures: list[GatePicture],
) -> None:
    found = colours.compare_colours(pictures, COLOURED, encode)
    assert [(one.space, one.count) for one in found] == [("Display P3", 3), ("Adobe RGB (1998)", 3)]
    for one in found:
        assert one.ignored[0] < one.converted[0] <= one.converted[1] <= 1.000001
        assert one.ignored[1] < one.converted[1]
        assert one.converted_first > one.ignored_first
    colours.prove_colours(found)


@pytest.mark.parametrize(
    ("converted", "ignored", "first"),
    [((0.9, 0.95), (0.9, 0.96), (5, 5)), ((0.9, 0.97), (0.9, 0.96), (4, 5))],
    ids=["farther", "fewer first"],
)
def test_a_model_that_conversion_does_not_help_is_refused_with_what_to_do(
    converted: tuple[float, float], ignored: tuple[float, float], first: tuple[int, int]
) -> None:
    with pytest.raises(ExportRefused, match=r"(?s)Display P3: mean cosine.*--icc ignored"):
        colours.prove_colours([Converted("Display P3", 5, converted, ignored, *first)])


def test_white_shapes_are_one_picture_on_white_and_several_on_their_ground() -> None:
    def looks(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        vectors = pixels.reshape(len(pixels), -1) / 255 + 0.01
        unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    shapes = colours.compare_shapes(COLOURED, looks)
    assert shapes.white == pytest.approx(1, abs=1e-6)
    assert shapes.contrast < 0.99
    colours.prove_shapes(shapes)
    with pytest.raises(ExportRefused, match="--alpha white"):
        colours.prove_shapes(Shapes(0.9995, 1))


def test_pixels_are_proved_as_the_checkpoint_reads_them_whatever_the_spec_adds(
    pictures: list[GatePicture],
) -> None:
    assert as_the_checkpoint(COLOURED) == SPEC
    for plain, coloured in zip(gate_pictures(SPEC), gate_pictures(COLOURED), strict=True):
        np.testing.assert_array_equal(plain.pixels, coloured.pixels)


def test_a_wide_copy_of_a_vivid_thing_finds_it_before_its_paler_variants() -> None:
    """The scarf: in numbers of Display P3 read as sRGB it is the paler variant."""
    profile = rgb_profile("Display P3", SPACES["Display P3"])
    with Image.open(PICTURES / "dahlia.webp") as image:
        vivid = image.convert("RGB")
    file = in_format(in_space(vivid, profile), "PNG", icc_profile=profile)
    paler = Image.fromarray(np.asarray(in_space(vivid, profile)))

    def distances(icc: str) -> list[float]:
        spec = msgspec.structs.replace(COLOURED, icc=icc)
        query = read_pixels(file, spec, max_pixels=10**7).astype(np.int16)
        stored: list[NDArray[np.uint8]] = [
            read_pixels(in_format(one, "PNG"), spec, max_pixels=10**7) for one in (vivid, paler)
        ]
        return [float(np.abs(query - one).mean()) for one in stored]

    right, wrong = distances("srgb")
    assert right < 0.8
    assert wrong > 2 * right
    assert distances("ignored")[1] == 0 < distances("ignored")[0]


def test_profiles_hold_the_numbers_of_their_standards() -> None:
    """sRGB as ICC's own profile has it, D50-adapted (IEC 61966-2-1, ICC.1)."""
    from export.proof.profiles import to_xyz

    expected = [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]
    np.testing.assert_allclose(to_xyz(SPACES["sRGB"]), expected, atol=2e-4)
    for space in SPACES.values():
        np.testing.assert_allclose(to_xyz(space).sum(axis=1), [0.9642, 1, 0.8249], atol=1e-6)


def test_the_gate_has_no_use_for_prove_pixels_in_colour(pictures: list[GatePicture]) -> None:
    from export.checkpoints.preprocessing import processor_of

    assert prove_pixels(processor_of(COLOURED), pictures) == sum(picture.alike for picture in pictures)
