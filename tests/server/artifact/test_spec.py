"""The preprocessing spec and the ids that it is a part of: those of spaces that catalogues are filled with stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.artifact.artifact import Artifact, PreprocessingSpec, Tensor, space_id
from server.errors import ArtifactInvalid
from tests import STARTER
from tests.support.artifacts import rewrite
from tests.support.starters import RELEASED, earlier_starter, released

# As an artifact of format 2 has it.
SPEC = """{"size": 224, "resize": "shortest-edge", "edge": 224, "resample": "bicubic", "rescale": 0.00392156862745098,
"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "colour": "rgb", "orientation": "exif", "alpha": "white",
"jpegAtLeast": 448}"""
TENSORS = [
    Tensor("visual.weight", "float32", (2, 3), bytes(range(24))),
    Tensor("projection", "float16", (2,), b"\0\x3c\0\x40"),
]


def spec(**changes: Any) -> PreprocessingSpec:
    return msgspec.structs.replace(msgspec.json.decode(SPEC, type=PreprocessingSpec), **changes)


def test_the_id_of_a_space_of_format_2_is_what_it_was() -> None:
    assert space_id(TENSORS, spec()) == "edc9c65119bd4453d25c3fdddba4a5fd67a4c1b2a96884e6a3b44c067a275db3"
    assert space_id(TENSORS, spec(jpeg_at_least=0)) == (
        "4e31a962d68a201257337d7c04a695fb2309f2d1079f44337caf2712894eeb18"
    )


def test_what_means_as_before_is_in_no_id_and_in_no_manifest_and_every_other_choice_is_in_both(tmp_path: Path) -> None:
    assert b"icc" not in spec(icc="ignored").canonical()
    ids = {
        space_id(TENSORS, spec(icc=icc, alpha=alpha)) for icc in ("ignored", "srgb") for alpha in ("white", "contrast")
    }
    assert len(ids) == 4
    artifact = Artifact.read(earlier_starter(tmp_path / "earlier", "72b1084832f6"))
    assert "icc" not in artifact.manifest.as_written()["preprocessing"]
    assert b'"icc"' not in (artifact.folder / "manifest.json").read_bytes()
    rewrite(artifact.folder, preprocessing=msgspec.structs.replace(artifact.spec, icc="srgb"))
    assert Artifact.read(artifact.folder).spec.icc == "srgb"
    assert b'"icc": "srgb"' in (artifact.folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("short_id", ["72b1084832f6", "1ef554193999"])
def test_manifests_that_were_released_are_read_and_written_as_they_were(short_id: str) -> None:
    data = (RELEASED / short_id / "manifest.json").read_bytes()
    manifest = released(short_id)
    assert manifest.space.id.startswith(short_id)
    if manifest.format == 3:
        assert manifest.to_json() == data
    assert (manifest.preprocessing.icc, manifest.preprocessing.alpha) == ("ignored", "white")


def test_the_present_starter_converts_colours_and_lays_white_things_on_black() -> None:
    written = json.loads((STARTER / "manifest.json").read_bytes())["preprocessing"]
    assert (written["icc"], written["alpha"]) == ("srgb", "contrast")


@pytest.mark.parametrize(("field", "value"), [("icc", "adobe"), ("alpha", "grey"), ("gamut", "wide")])
def test_a_choice_that_this_version_does_not_know_is_refused(tmp_path: Path, field: str, value: str) -> None:
    folder = earlier_starter(tmp_path / "earlier", "72b1084832f6")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["preprocessing"][field] = value
    (folder / "manifest.sha256").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactInvalid, match=r"not a manifest that this version reads: .*preprocessing|" + field):
        Artifact.read(folder)
