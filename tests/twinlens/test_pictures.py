"""Pictures as programs have them become bytes without loss."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests import ROOT
from twinlens.pictures import bytes_of


def read(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def test_an_array_keeps_every_value() -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    image = read(bytes_of(pixels))
    assert (image.size, image.mode) == ((9, 5), "RGB")
    assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(np.asarray(read(bytes_of(pixels[::-1, ::2]))), pixels[::-1, ::2])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 9, 3), np.float32), r"float32\[5, 9, 3\]"),
        (np.zeros((3, 5, 9), np.uint8), r"uint8\[3, 5, 9\]"),
        (np.zeros((5, 9, 4), np.uint8), r"uint8\[5, 9, 4\]"),
        (np.zeros((5, 9), np.uint8), r"uint8\[5, 9\]"),
        (np.zeros((0, 9, 3), np.uint8), r"uint8\[0, 9, 3\]"),
    ],
)
def test_an_array_of_another_kind_is_refused(array: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bytes_of(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_an_image_keeps_its_mode_and_its_pixels(mode: str) -> None:
    image = Image.linear_gradient("L").resize((16, 9)).convert(mode if mode != "I;16" else "I").convert(mode)
    kept = read(bytes_of(image))
    assert kept.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_an_image_is_upright_and_keeps_its_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (4, 2), "red")
    image.putpixel((0, 0), (0, 0, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn to the right
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif, icc_profile=profile)
    kept = read(bytes_of(Image.open(file)))
    assert (kept.size, kept.getpixel((1, 0))) == ((2, 4), (0, 0, 255))
    assert kept.info["icc_profile"] == profile
    assert 0x0112 not in kept.getexif()


def test_colours_that_png_has_not_become_rgb_without_the_old_profile() -> None:
    image = Image.new("CMYK", (3, 3), (0, 255, 255, 0))
    image.info["icc_profile"] = b"of four colours"
    kept = read(bytes_of(image))
    assert (kept.mode, kept.getpixel((1, 1))) == ("RGB", (255, 0, 0))
    assert "icc_profile" not in kept.info
    with pytest.raises(ValueError, match="mode F"):
        bytes_of(Image.new("F", (2, 2)))


@pytest.mark.parametrize("wrong", [None, 7, ["a"], io.StringIO("text")])
def test_what_is_no_picture_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        bytes_of(wrong)


def test_a_file_that_is_missing_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bytes_of(tmp_path / "none.jpg")


def test_neither_pillow_nor_numpy_is_loaded_for_those_who_send_files(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"picture")
    code = "import sys, twinlens.pictures as p; p.bytes_of(sys.argv[1]); print({'PIL', 'numpy'} & {*sys.modules})"
    whole = [sys.executable, "-c", code, str(tmp_path / "picture")]
    done = subprocess.run(whole, cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "set()"
