"""Made the files beside it: `python make.py`, with pillow-heif 1.8 (which has an encoder), Pillow and numpy installed.

All but `plain.heic` and those in 4:2:0 and 4:2:2 are coded without loss, as red, green and blue (matrix 0), so their
pixels are known to the last bit: see `picture`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pillow_heif.constants import HeifCompressionFormat
from pillow_heif.misc import CtxEncode

HERE = Path(__file__).parent
WIDTH, HEIGHT = 96, 64
EXACT = {"chroma": 444, "matrix_coefficients": 0, "color_primaries": 1, "transfer_characteristic": 13}


def picture(bits: int = 8) -> NDArray[Any]:
    """Samples without symmetry: every orientation differs."""
    full = (1 << bits) - 1
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    red, green = across * full // (WIDTH - 1), down * full // (HEIGHT - 1)
    blue = np.where((across > 60) & (down < 20), full, full // 6)
    return np.stack([red, green, blue], -1).astype(np.uint16 if bits > 8 else np.uint8)


def alpha(bits: int = 8) -> NDArray[Any]:
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return ((across + down) * ((1 << bits) - 1) // (WIDTH + HEIGHT - 2)).astype(np.uint16 if bits > 8 else np.uint8)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def write(name: str, *images: tuple[str, NDArray[Any]], quality: int = -1, primary: int = 0, **options: Any) -> None:
    if quality == -1 and "chroma" not in options:
        options = {**EXACT, **options}
    chroma = options.pop("chroma", None)
    context = CtxEncode(HeifCompressionFormat.HEVC, quality=quality, chroma=chroma)
    for number, (mode, samples) in enumerate(images):
        given = {"tile_size": 0, **options, "primary": number == primary}
        context.add_image((samples.shape[1], samples.shape[0]), mode, np.ascontiguousarray(samples).tobytes(), **given)
    context.save(HERE / f"{name}.heic")


def main() -> None:
    colours = picture()
    grey = colours[..., 0] // 2 + colours[..., 1] // 2
    write("plain", ("RGB", colours), quality=90)
    write("exact", ("RGB", colours))
    write("chroma-420", ("RGB", colours), chroma=420)
    write("chroma-422", ("RGB", colours), chroma=422)
    write("chroma-444", ("RGB", colours), chroma=444)
    for bits in (10, 12):
        wide = picture(bits)
        write(f"bits-{bits}", (f"RGB;{bits}", wide), bit_depth=bits)
        write(f"grey-{bits}", (f"L;{bits}", wide[..., 0] // 2 + wide[..., 1] // 2), bit_depth=bits, chroma=420)
    write("grey", ("L", grey), chroma=420)
    layered = np.dstack([colours, alpha()])
    write("alpha", ("RGBA", layered))
    write("alpha-10", ("RGBA;10", np.dstack([picture(10), alpha(10)])), bit_depth=10)
    multiplied = ((colours * alpha()[..., None].astype(np.uint32) * 2 + 255) // 510).astype(np.uint8)
    write("premultiplied", ("RGBa", np.dstack([multiplied, alpha()])))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write("icc", ("RGB", colours), icc_profile=profile, icc_profile_type="prof")
    write("display-p3", ("RGB", colours), color_primaries=12)
    write("pq", ("RGB;10", picture(10)), bit_depth=10, color_primaries=9, transfer_characteristic=16)
    for turn in range(2, 9):
        write(f"turned-{turn}", ("RGB", colours), image_orientation=turn)
    write("turned-and-exif", ("RGB", colours), image_orientation=6, exif=exif(6))
    write("exif-alone", ("RGB", colours), exif=exif(6))
    write("turned-alpha", ("RGBA", layered), image_orientation=6)
    write("grid", ("RGB", colours), tile_size=40, image_orientation=6)
    write("grid-420", ("RGB", colours), tile_size=64, chroma=420)
    write("two", ("RGB", 255 - colours), ("RGB", colours), primary=1)
    write("thumbnail", ("RGB", colours), thumbnails=[32], exif=exif(1), xmp=b"<x:xmpmeta/>")


if __name__ == "__main__":
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    main()
    files = sorted(HERE.glob("*.heic"))
    print(len(files), sum(file.stat().st_size for file in files), max(file.stat().st_size for file in files))
