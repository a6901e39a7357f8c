"""The corpus: every format x mode x depth x orientation x profile x oddity, made anew each time and always the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from bench.decoders.case import Case
from bench.decoders.corpus import bmp, coded, gif, heif, jpeg, png, tiff, webp

FORMATS: dict[str, Callable[[], Iterator[Case]]] = {
    "JPEG": jpeg.cases,
    "PNG": png.cases,
    "WEBP": webp.cases,
    "GIF": gif.cases,
    "BMP": bmp.cases,
    "TIFF": tiff.cases,
    "AVIF": coded.avif_cases,
    "HEIF": heif.cases,
    "JXL": coded.jxl_cases,
}


def corpus(formats: Collection[str] = tuple(FORMATS)) -> list[Case]:
    """All cases of these formats. Raises ValueError where two have the same title."""
    cases = [case for name, make in FORMATS.items() if name in formats for case in make()]
    titles = [case.title for case in cases]
    if len(set(titles)) < len(titles):
        raise ValueError(f"two cases have the same title: {sorted({t for t in titles if titles.count(t) > 1})}")
    return cases
