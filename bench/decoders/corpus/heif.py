"""HEIC, which no encoder here writes: the small files of the tests, most of them coded without loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.pictures import ROOT

_WIDTH, _HEIGHT = 96, 64


def files_of_tests(folder: str, pattern: str) -> list[Path]:
    """In the order of their names; none in a copy of the repository without its tests."""
    return sorted((ROOT / "tests" / "data" / folder).glob(pattern))


def cases() -> Iterator[Case]:
    """What they show is known from the program that made them, `tests/data/heif/make.py`, but for a few."""
    known = _known()
    for path in files_of_tests("heif", "*.hei[cf]"):
        expected = known.get(path.stem)
        group = "files of the tests" if expected is not None else "files of the tests, coded with loss"
        should = Should.BE_READ if expected is not None else Should.BE_NAMED
        yield Case("HEIF", group, path.stem, path.read_bytes(), expected, 2, should)
        if path.stem == "exact":
            data = path.read_bytes()
            yield Case("HEIF", "cut short", "after 60%", data[: len(data) * 6 // 10], should=Should.BE_REFUSED)


def _known() -> dict[str, Samples]:
    colours, levels = _picture(8), _alpha(8)
    known = dict.fromkeys(("exact", "icc", "display-p3", "two", "thumbnail", "exif-alone"), colours)
    known |= {f"turned-{way}": art.turned(colours, way) for way in range(2, 9)}
    known |= {f"bits-{bits}": art.from_bits(_picture(bits), bits) for bits in (10, 12)}
    known["pq"] = known["bits-10"]
    known["grey"] = art.rgb((colours[..., 0] // 2 + colours[..., 1] // 2).astype(np.uint8))
    known["alpha"] = known["premultiplied"] = art.with_alpha(colours, levels)
    known["alpha-10"] = art.with_alpha(known["bits-10"], art.from_bits(_alpha(10), 10))
    known["turned-and-exif"] = known["grid"] = art.turned(colours, 6)
    known["turned-alpha"] = art.turned(known["alpha"], 6)
    return known


def _picture(bits: int) -> Samples:
    full = (1 << bits) - 1
    down, across = np.mgrid[:_HEIGHT, :_WIDTH]
    blue = np.where((across > 60) & (down < 20), full, full // 6)
    samples = np.stack([across * full // (_WIDTH - 1), down * full // (_HEIGHT - 1), blue], -1)
    return samples.astype(np.uint8 if bits == 8 else np.uint32)


def _alpha(bits: int) -> Samples:
    down, across = np.mgrid[:_HEIGHT, :_WIDTH]
    levels = (across + down) * ((1 << bits) - 1) // (_WIDTH + _HEIGHT - 2)
    samples: Samples = levels.astype(np.uint8 if bits == 8 else np.uint32)
    return samples
