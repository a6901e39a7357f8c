"""The grades' thresholds: chosen from cosines, written by the export, and proved again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.__main__ import main
from export.artifacts.diff import diff
from export.artifacts.listing import show
from export.artifacts.verify import verify
from export.errors import ExportRefused
from export.proof.alterations import ALTERATIONS
from export.proof.grading import chosen, chosen_of_words, grade, pairs_of
from export.proof.parity import PICTURES, gate_pictures
from server.artifact.artifact import Artifact, Vectors
from server.artifact.grades import SAME_PICTURE, Grades, TextGrades, TextGrading, TextShare
from server.errors import BadParameter
from tests import DEMO_PICTURES
from tests.support.artifacts import rewrite
from tests.support.checkpoints import save_clip_tokenizer, tiny_clip


def test_thresholds_where_pairs_are_well_separated() -> None:
    same = np.array([1.0, 0.9995, 0.9973])
    altered, others = np.linspace(0.8005, 1.0, 1001), np.linspace(-0.2, 0.6005, 4001)
    grades, measured = chosen(same, altered, others)
    assert grades == Grades(identical=0.997, near_duplicate=0.82, similar=0.593)
    assert (measured.same.pairs, measured.same.identical) == (3, 1.0)
    assert measured.altered.near_duplicate == pytest.approx(0.9, abs=0.005)
    assert measured.others.near_duplicate == 0
    assert 0 < measured.others.similar <= 0.01


def test_near_duplicate_is_never_so_low_that_different_pictures_reach_it() -> None:
    altered, others = np.linspace(0.3, 1.0, 1001), np.linspace(0.0, 0.9005, 10_001)
    grades, measured = chosen(np.ones(3), altered, others)
    assert grades == Grades(identical=0.999, near_duplicate=0.9, similar=0.892)
    assert measured.others.near_duplicate <= 0.001
    assert measured.altered.near_duplicate < 0.2


@pytest.mark.parametrize("cosine", [1.0, 0.9999, 0.0, -1.0])
def test_a_tower_that_gives_all_pictures_one_vector_still_has_thresholds_in_order(cosine: float) -> None:
    grades, _ = chosen(np.ones(1), np.full(2, cosine), np.full(1, cosine))
    assert grades.identical == 0.999
    assert 0.999 >= grades.near_duplicate == grades.similar >= -1


def test_every_alteration_alters_and_all_are_used(few_pictures: None) -> None:
    with Image.open(PICTURES / "chair.jpg") as image:
        picture = image.convert("RGB")
    made = [alter(picture) for alter in ALTERATIONS.values()]
    assert all(one.mode == "RGB" and one.tobytes() != picture.tobytes() for one in made)


@pytest.fixture(scope="module")
def artifact(few_pictures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grades")
    checkpoint = tiny_clip(folder / "checkpoint")
    save_clip_tokenizer(checkpoint)
    captions = folder / "captions.jsonl"
    rows = [
        {"picture": str(path), "text": path.stem.replace("-", " ")} for path in sorted(DEMO_PICTURES.iterdir())[:60]
    ]
    captions.write_text("\n".join(json.dumps(row) for row in rows))
    flags = ["--precision", "fp32", "--precision", "int8", "--allow-drift", "0.5", "--models", str(folder)]
    flags += ["--captions", str(captions)]
    assert main(["--source", str(checkpoint), "--name", "tiny", *flags]) == 0
    return folder / "tiny"


def test_each_precision_has_grades_of_its_own_and_how_many_pairs_reach_them(artifact: Path) -> None:
    read = Artifact.read(artifact)
    assert read.manifest.format == 3
    count = len(gate_pictures(read.spec))
    for variant in read.manifest.precisions.values():
        assert variant.grades is not None
        assert variant.grading is not None
        pairs = (variant.grading.same.pairs, variant.grading.altered.pairs, variant.grading.others.pairs)
        assert pairs == (count, 5 * count, count * (count - 1) // 2)
        assert variant.grading.same.identical == 1
        assert variant.grading.others.similar <= 0.05
    assert 'class="left">near-duplicate' in (artifact / "report.html").read_text("utf-8")
    assert "near-duplicate" in show(artifact)


def test_each_precision_has_a_grade_of_words_by_the_captions(artifact: Path) -> None:
    read = Artifact.read(artifact)
    for variant in read.manifest.precisions.values():
        assert variant.text_grades is not None
        assert variant.text_grading is not None
        assert -1 <= variant.text_grades.similar <= 1
        assert (variant.text_grading.own.pairs, variant.text_grading.others.pairs) == (60, 60 * 59)
        assert 0 < variant.text_grading.others.similar <= 0.005
    for shown in (show(artifact), (artifact / "report.html").read_text("utf-8")):
        assert shown.count("words are similar from") == 2


def test_the_threshold_of_words_is_what_one_in_200_wrong_pairs_reaches() -> None:
    own, others = np.array([0.05, 0.2, 0.3, 0.31]), np.linspace(-0.2, 0.2005, 4001)
    grades, measured = chosen_of_words(own, others)
    assert grades == TextGrades(similar=0.199)
    assert measured == TextGrading(own=TextShare(pairs=4, similar=0.75), others=measured.others)
    assert measured.others.pairs == 4001
    assert 0 < measured.others.similar <= 0.005
    alike, _ = chosen_of_words(np.ones(3), np.ones(9))
    assert alike == TextGrades(similar=1.0)


def test_words_are_similar_or_weak_and_never_the_same_picture() -> None:
    grades = TextGrades(similar=0.138)
    assert [grades.of(cosine) for cosine in (1.0, 0.138, 0.1379, -1.0)] == ["similar", "similar", "weak", "weak"]
    assert (grades.least("similar"), grades.least("weak")) == (0.138, -1)
    for named in SAME_PICTURE:
        with pytest.raises(BadParameter, match=f"{named} is a grade of pictures"):
            grades.least(named)
    for cosine in (1.1, -1.1, float("nan")):
        with pytest.raises(ValueError, match="cosine"):
            TextGrades(similar=cosine)


def test_a_manifest_without_grades_of_words_is_written_as_it_always_was(artifact: Path) -> None:
    manifest = Artifact.read(artifact).manifest
    without = {
        name: msgspec.structs.replace(variant, text_grades=None, text_grading=None)
        for name, variant in manifest.precisions.items()
    }
    written = msgspec.structs.replace(manifest, precisions=without).as_written()["precisions"]
    assert all(one["textGrades"] is None and "textGrading" not in one for one in written.values())
    assert all("textGrading" in one for one in manifest.as_written()["precisions"].values())


def test_captions_are_no_use_to_a_model_that_reads_no_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_clip(tmp_path / "checkpoint")
    captions = tmp_path / "captions.csv"
    captions.write_text("picture,text\na.jpg,x\n")
    flags = ["--models", str(tmp_path), "--captions", str(captions)]
    assert main(["--source", str(checkpoint), "--name", "blind", *flags]) == 2
    assert "nothing to grade by --captions" in capsys.readouterr().err
    assert not (tmp_path / "blind").exists()


def test_the_same_pictures_give_the_same_grades_and_one_picture_gives_none(artifact: Path) -> None:
    pictures = gate_pictures(Artifact.read(artifact).spec)
    pairs = pairs_of(pictures[:6], Artifact.read(artifact).spec)

    def mean_colour(pixels: NDArray[np.uint8]) -> Vectors:
        means = pixels.reshape(len(pixels), -1, 3).mean(axis=1) - 100
        unit: Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
        return unit

    first = grade(mean_colour, pairs)
    assert first is not None
    assert first == grade(mean_colour, pairs_of(pictures[:6], Artifact.read(artifact).spec))
    assert grade(mean_colour, pairs_of(pictures[:1], Artifact.read(artifact).spec)) is None


def test_verify_refuses_grades_of_another_model_and_diff_shows_the_difference(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Artifact.read(artifact).manifest
    verify(artifact)
    changed = msgspec.structs.replace(
        before.precisions["fp32"], grades=Grades(identical=0.999, near_duplicate=0.1, similar=-0.9)
    )
    other = artifact.with_name("other")
    other.mkdir()
    for name, data in ((path.name, path.read_bytes()) for path in artifact.iterdir() if path.is_file()):
        (other / name).write_bytes(data)
    (other / "goldens").symlink_to(artifact / "goldens")
    rewrite(other, precisions={**before.precisions, "fp32": changed})
    assert "fp32, near-duplicate from" in diff(artifact, other)
    (other / "goldens").unlink()
    rewrite(artifact, precisions={**before.precisions, "fp32": changed})
    with pytest.raises(ExportRefused, match="its grades are not of these graphs"):
        verify(artifact)
