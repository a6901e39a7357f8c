"""nvImageCodec against Pillow, on its CPU backend, where its package is installed."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.errors import BadSetting, UnreadablePicture
from server.preprocessing.nvimagecodec import JpegDecoder
from tests import ROOT

INSTALLED = find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None

with_it = pytest.mark.skipif(not INSTALLED, reason="nvidia-nvimgcodec-cu13 is not installed")


@pytest.fixture(scope="module")
def decoder() -> JpegDecoder:
    return JpegDecoder(None)


def jpeg(name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    with Image.open(ROOT / "export" / "pictures" / name) as picture:
        picture.convert("RGB").resize((641, 479)).save(out, "JPEG", **{"quality": 88, **options})
    return out.getvalue()


@with_it
@pytest.mark.parametrize("name", ["astronaut.jpg", "cat.png", "brick-wall.jpg"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
def test_its_samples_are_pillows(decoder: JpegDecoder, name: str, options: dict[str, Any]) -> None:
    data = jpeg(name, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)), np.int16)
    decoded = decoder(data)
    assert (decoded.mode, decoded.size) == ("RGB", (641, 479))
    assert np.abs(np.asarray(decoded, np.int16) - expected).max() <= 2


@with_it
def test_the_orientation_is_left_to_media(decoder: JpegDecoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoder(jpeg("cat.png", exif=exif)).size == (641, 479)


@with_it
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:200]])
def test_a_jpeg_that_is_cut_short_is_refused_and_the_next_one_decodes(
    decoder: JpegDecoder, damage: Callable[[bytes], bytes]
) -> None:
    data = jpeg("cat.png")
    with pytest.raises(UnreadablePicture):
        decoder(damage(data))
    assert decoder(data).size == (641, 479)


@pytest.mark.skipif(INSTALLED, reason="the package is installed")
def test_without_the_package_the_start_is_refused_in_a_sentence() -> None:
    with pytest.raises(BadSetting, match=r"not installed: pip install .* TWINLENS_DECODER=pillow"):
        JpegDecoder(0)
