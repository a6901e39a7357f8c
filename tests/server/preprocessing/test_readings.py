"""Whether a picture is read otherwise than by an earlier version of the readers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.preprocessing.media import read_pixels
from server.preprocessing.readings import READING, read_otherwise
from tests import ROOT
from tests.support import gifs, pngs
from tests.support.pictures import in_format

MOST = 10_000_000
SPEC = PreprocessingSpec(
    size=32, resize="shortest-edge", edge=32, resample="bicubic", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
SCALED = PreprocessingSpec(
    size=32,
    resize="shortest-edge",
    edge=32,
    resample="bicubic",
    rescale=1 / 255,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    jpeg_at_least=64,
)
RANDOM = np.random.default_rng(5)
GREYS = RANDOM.integers(0, 65536, (24, 32, 1))
PALETTE = RANDOM.integers(0, 256, (16, 3), np.uint8).tobytes()


def otherwise(data: bytes, spec: PreprocessingSpec = SPEC, since: int = 0) -> bool:
    pixels = read_pixels(data, spec, max_pixels=MOST)
    return read_otherwise(data, pixels, spec, since=since, max_pixels=MOST)


TRANSPARENT_GREY = pngs.png(GREYS, pngs.GREY, 16, before=[pngs.chunk(b"tRNS", struct.pack(">H", int(GREYS[3, 4, 0])))])
SMALL_FRAME = gifs.screen(40, 30, PALETTE) + gifs.frame(RANDOM.integers(0, 16, (10, 12)), at=(8, 8)) + gifs.TRAILER


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TRANSPARENT_GREY, id="a transparent grey of 16 bits"),
        pytest.param(SMALL_FRAME, id="a GIF's frame that is smaller than its screen"),
        pytest.param(in_format(Image.new("RGB", (40, 30), (1, 2, 3)), "TIFF"), id="any TIFF"),
    ],
)
def test_what_was_misread_before_is_told(data: bytes) -> None:
    assert otherwise(data)
    assert not otherwise(data, since=READING)


@pytest.mark.parametrize("spec", [SPEC, SCALED], ids=["in full", "at a scale"])
def test_ordinary_pictures_were_read_as_they_are_now(spec: PreprocessingSpec) -> None:
    files = [one for one in sorted((ROOT / "export" / "pictures").iterdir()) if one.suffix not in (".md", ".tif")]
    assert len(files) > 80
    chosen = [one for one in files if one.suffix in (".gif", ".bmp", ".avif")] + files[::4]
    assert [one.name for one in chosen if otherwise(one.read_bytes(), spec)] == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_was_turned_before_as_well(orientation: int) -> None:
    image = Image.fromarray(RANDOM.integers(0, 256, (301, 203, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = in_format(image, "JPEG", exif=exif.tobytes())
    assert not otherwise(data)
    assert not otherwise(data, SCALED)


def test_what_an_earlier_version_did_not_read_at_all_is_read_otherwise() -> None:
    data = in_format(Image.new("RGB", (40, 30), (1, 2, 3)), "PNG")
    pixels = read_pixels(data, SPEC, max_pixels=MOST)
    assert read_otherwise(data[:-30], pixels, SPEC, since=0, max_pixels=MOST)
