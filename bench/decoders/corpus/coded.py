"""AVIF as Pillow writes it, and JPEG XL, which is not read here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import jxl, metadata

NEAR = 12
ALPHA_NEAR = 20
"""Where alpha is coded with loss as well; across its edges both errors add up."""


def _saved(picture: Samples | Image.Image, form: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def avif_cases() -> Iterator[Case]:
    soft, levels = art.soft(), art.alpha()
    clear = art.with_alpha(soft, levels)

    def save(picture: Samples, **options: Any) -> bytes:
        return _saved(picture, "AVIF", **{"quality": 95, "speed": 8, "max_threads": 1, **options})

    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield Case("AVIF", "depth and colour", f"RGB, {sampling}", save(soft, subsampling=sampling), soft, NEAR)
    exact = save(art.blocks(), quality=100, subsampling="4:4:4")
    yield Case("AVIF", "depth and colour", "RGB, quality 100", exact, art.blocks(), 6)
    grey = art.rgb(art.grey_of(soft))
    yield Case("AVIF", "depth and colour", "grey", save(grey, subsampling="4:0:0"), grey, NEAR)
    yield Case("AVIF", "alpha", "RGBA", save(clear), clear, ALPHA_NEAR)
    data = save(clear, subsampling="4:4:4", alpha_premultiplied=True)
    yield Case("AVIF", "alpha", "RGBA, premultiplied", data, clear, ALPHA_NEAR)
    for way in range(1, 9):
        data = save(soft, exif=metadata.exif(way), subsampling="4:4:4")
        yield Case("AVIF", "orientation", f"{way}", data, art.turned(soft, way), NEAR)
    for name in ("sRGB", "Display P3"):
        yield Case("AVIF", "profile", name, save(soft, icc_profile=metadata.profile(name)), soft, NEAR)
    yield Case("AVIF", "profile", "broken", save(soft, icc_profile=metadata.BROKEN_PROFILE), soft, NEAR)
    out = io.BytesIO()
    frames = [Image.fromarray(soft), Image.fromarray(255 - soft)]
    frames[0].save(
        out, "AVIF", save_all=True, append_images=frames[1:], quality=95, speed=8, duration=100, max_threads=1
    )
    yield Case("AVIF", "animated", "two frames", _timeless(out.getvalue()), soft, NEAR)
    whole = save(soft)
    yield Case("AVIF", "end", "bytes behind the end", whole + b"\0\0\0\x10free" + bytes(8), soft, NEAR)
    for share in (0.5, 0.9):
        data = whole[: int(len(whole) * share)]
        yield Case("AVIF", "cut short", f"after {share:.0%}", data, should=Should.BE_REFUSED)


def _timeless(data: bytes) -> bytes:
    """A sequence as if written at no particular time: the corpus is the same whenever it is made."""
    out = bytearray(data)
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = out.find(box)
        while at >= 0:
            length = 16 if out[at + 4] == 1 else 8
            out[at + 8 : at + 8 + length] = bytes(length)
            at = out.find(box, at + 4)
    return bytes(out)


def jxl_cases() -> Iterator[Case]:
    """Not read here, so each is to be refused by name; whole pictures only where an encoder is installed."""
    for name, data in (("codestream", jxl.codestream(45, 30)), ("container", jxl.CONTAINER + bytes(40))):
        yield Case("JXL", "beginnings", name, data, should=Should.BE_NAMED)
    try:
        import pillow_jxl  # noqa: F401 - it teaches Pillow the format
    except ImportError:
        return
    blocks, soft, levels = art.blocks(), art.soft(), art.alpha()

    def case(group: str, name: str, picture: Samples, expected: Samples, near: int = 1, **options: Any) -> Case:
        data = _saved(picture, "JXL", **{"lossless": True, "num_threads": 1, **options})
        return Case("JXL", group, name, data, expected, near, Should.BE_NAMED)

    clear, grey = art.with_alpha(blocks, levels), art.grey_of(blocks)
    yield case("depth and colour", "RGB, lossless", blocks, blocks)
    yield case("depth and colour", "RGB, lossy", soft, soft, NEAR, lossless=False, quality=95)
    yield case("depth and colour", "grey, lossless", grey, art.rgb(grey))
    yield case("alpha", "RGBA, lossless", clear, clear)
    for name in ("sRGB", "Display P3"):
        yield case("profile", name, blocks, blocks, icc_profile=metadata.profile(name))
