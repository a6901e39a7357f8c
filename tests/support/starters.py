"""Starters that were released before, as far as they can be had: their manifests, on the present one's graphs."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from server.artifact.artifact import Manifest
from tests import ROOT, STARTER
from tests.support.artifacts import rewrite

RELEASED = ROOT / "tests" / "data" / "starters"


def released(short_id: str) -> Manifest:
    """The manifest as it was released."""
    return msgspec.json.decode((RELEASED / short_id / "manifest.json").read_bytes(), type=Manifest)


def earlier_starter(folder: Path, short_id: str) -> Path:
    """An artifact that a server runs as that starter: of its space and its preprocessing.

    The graph is the present one. That of 72b1084832f6 was the same; the older one's, which knew no words, is not kept:
    what its space is filled with here are vectors of its length.
    """
    shutil.copytree(STARTER, folder)
    present, manifest = released_now(), released(short_id)
    # A JPEG that carries a profile, or is decoded at a scale, had other pixels.
    goldens = [one for one in present.goldens if not one.picture.endswith(".jpg")]
    variants = {
        precision: msgspec.structs.replace(present.precisions[precision], space=variant.space)
        for precision, variant in manifest.precisions.items()
    }
    return rewrite(
        folder, space=manifest.space, preprocessing=manifest.preprocessing, precisions=variants, goldens=goldens
    )


def released_now() -> Manifest:
    return msgspec.json.decode((STARTER / "manifest.json").read_bytes(), type=Manifest)
