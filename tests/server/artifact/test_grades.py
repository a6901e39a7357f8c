"""Grades: thresholds in order, on every match over HTTP, and a filter by them."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from export.proof.alterations import ALTERATIONS
from server.artifact.artifact import Artifact, Manifest
from server.artifact.grades import GRADES, Grades, grade_named
from server.errors import ArtifactInvalid, BadParameter
from tests import DEMO_PICTURES, STARTER
from tests.support.artifacts import rewrite
from tests.support.pictures import in_format
from tests.support.serving import serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()


def test_a_cosine_has_the_best_grade_that_it_reaches() -> None:
    grades = Grades(identical=0.999, near_duplicate=0.84, similar=0.5)
    expected = {1.0: "identical", 0.999: "identical", 0.998999: "near-duplicate", 0.84: "near-duplicate"}
    expected |= {0.839999: "similar", 0.5: "similar", 0.499999: "weak", -1.0: "weak"}
    assert {cosine: grades.of(cosine) for cosine in expected} == expected
    assert [grades.least(grade) for grade in GRADES] == [0.999, 0.84, 0.5, -1.0]
    assert [grade_named(grade) for grade in GRADES] == list(GRADES)
    with pytest.raises(BadParameter, match="identical, near-duplicate, similar, weak"):
        grade_named("nearDuplicate")


@pytest.mark.parametrize("three", [(0.9, 0.95, 0.5), (0.9, 0.5, 0.6), (1.1, 0.5, 0.4), (0.9, math.nan, 0.5)])
def test_thresholds_that_are_out_of_order_or_no_cosines_are_refused(three: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="each at least as high as the next"):
        Grades(identical=three[0], near_duplicate=three[1], similar=three[2])


def _older(folder: Path) -> Path:
    """The starter as an artifact of format 2."""
    shutil.copytree(STARTER, folder)
    precisions = {
        name: msgspec.structs.replace(variant, grades=None, grading=None, text_grades=None, text_grading=None)
        for name, variant in Artifact.read(folder).manifest.precisions.items()
    }
    return rewrite(folder, format=2, precisions=precisions)


def test_a_manifest_of_format_2_is_read_and_one_of_format_4_is_not(tmp_path: Path) -> None:
    folder = _older(tmp_path / "older")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for variant in manifest["precisions"].values():
        for name in ("grades", "grading", "textGrades"):
            assert variant.pop(name) is None
    (folder / "manifest.sha256").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    assert Artifact.read(folder).variant("fp32").grades is None
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 4}), "utf-8")
    with pytest.raises(ArtifactInvalid, match="format 4; this version reads the formats 2 and 3"):
        Artifact.read(folder)


def test_a_manifest_whose_grades_are_out_of_order_is_refused(tmp_path: Path) -> None:
    manifest = json.loads((STARTER / "manifest.json").read_bytes())
    manifest["precisions"]["fp32"]["grades"]["similar"] = 0.9999
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactInvalid, match="each at least as high as the next"):
        Artifact.read(tmp_path)


def _starter_grades() -> Grades:
    manifest = msgspec.json.decode((STARTER / "manifest.json").read_bytes(), type=Manifest)
    grades = manifest.precisions["fp32"].grades
    assert grades is not None
    return grades


def _by_picture(api: Any, data: bytes, path: str = "/v1/search", **fields: Any) -> Any:
    return api.post(path, files={"file": data}, data=fields)


def test_every_match_of_a_picture_has_the_grade_of_its_cosine(api: Any) -> None:
    grades = _starter_grades()
    picture = Image.open(io.BytesIO(KEYBOARD)).convert("RGB")
    altered = in_format(ALTERATIONS["JPEG, quality 40"](picture), "PNG")
    for data, first in ((KEYBOARD, "identical"), (altered, "near-duplicate")):
        found = _by_picture(api, data, limit=200).json()["results"]
        assert (found[0]["productId"], found[0]["grade"]) == ("demo-keyboard", first)
        assert [match["grade"] for match in found] == [grades.of(match["cosine"]) for match in found]
        assert {match["grade"] for match in found} >= {first, "weak"}
    best = _by_picture(api, KEYBOARD, path="/api/search/by-image").json()["results"][0]
    assert best["grade"] == "identical"


def test_a_media_and_an_embedding_are_graded_as_pictures(api: Any) -> None:
    best = _by_picture(api, KEYBOARD, limit=1).json()
    embedded = api.post("/embed-image", files={"file": KEYBOARD}).json()
    queries = (
        {"mediaId": best["results"][0]["mediaId"]},
        {"embedding": embedded["embedding"], "space": embedded["space"]},
    )
    for query in queries:
        found = api.post("/v1/search", json={**query, "minGrade": "identical"}).json()["results"]
        assert [(match["productId"], match["grade"]) for match in found] == [("demo-keyboard", "identical")]


def _by_words(api: Any, text: str, **more: Any) -> Any:
    return api.post("/v1/search", json={"text": text, "limit": 280, **more})


def test_words_are_graded_by_a_threshold_of_their_own_and_nothing_is_left_out_unasked(api: Any) -> None:
    manifest = msgspec.json.decode((STARTER / "manifest.json").read_bytes(), type=Manifest)
    grades = manifest.precisions["fp32"].text_grades
    assert grades is not None
    everything = _by_words(api, "a pair of shoes").json()["results"]
    assert len(everything) == 280
    assert [match["grade"] for match in everything] == [grades.of(match["cosine"]) for match in everything]
    similar = _by_words(api, "a pair of shoes", minGrade="similar").json()["results"]
    assert similar == [match for match in everything if match["grade"] == "similar"]
    assert 0 < len(similar) < 30
    assert len(_by_words(api, "a pair of shoes", minGrade="weak").json()["results"]) == 280


def test_a_word_without_meaning_finds_nothing_that_is_similar(api: Any) -> None:
    assert len(_by_words(api, "xqzv").json()["results"]) == 280
    assert _by_words(api, "xqzv", minGrade="similar").json()["results"] == []
    assert {"demo-ankle-boot"} <= {
        match["productId"] for match in _by_words(api, "red shoes", minGrade="similar").json()["results"]
    }


@pytest.mark.parametrize("grade", ["identical", "near-duplicate"])
def test_words_are_never_the_same_picture(api: Any, grade: str) -> None:
    refused = _by_words(api, "a keyboard", minGrade=grade)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_parameter")
    assert refused.json()["error"] == f"minGrade: {grade} is a grade of pictures; words have similar and weak."


def test_min_grade_keeps_only_what_is_at_least_that_good(api: Any) -> None:
    everything = _by_picture(api, KEYBOARD, limit=1000).json()["results"]
    for place, grade in enumerate(GRADES):
        found = _by_picture(api, KEYBOARD, limit=1000, minGrade=grade).json()["results"]
        assert found == [match for match in everything if match["grade"] in GRADES[: place + 1]]
    for path in ("/v1/search", "/api/search/by-image"):
        refused = _by_picture(api, KEYBOARD, path=path, minGrade="best")
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_parameter")
        assert "there is no grade 'best'; there are identical, near-duplicate" in refused.json()["error"]


def test_an_artifact_without_grades_answers_without_them(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path / "data", model=_older(tmp_path / "older")) as client:
        client.put("/v1/products/p", json={"name": "Keyboard"})
        media = client.post("/v1/products/p/media", files={"file": KEYBOARD}).json()
        (match,) = _by_picture(client, KEYBOARD).json()["results"]
        assert (match["similarity"], match["grade"]) == (100.0, None)
        refused = _by_picture(client, KEYBOARD, minGrade="similar")
        assert refused.status_code == 422
        assert "this model has no grades" in refused.json()["error"]
        (match,) = _by_words(client, "a keyboard").json()["results"]
        assert match["grade"] is None
        refused = _by_words(client, "a keyboard", minGrade="weak")
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_parameter")
        assert "no grades for words" in refused.json()["error"]
        found = client.get(f"/v1/media/{media['id']}/duplicates").json()
        assert (found["exact"], found["near"]) == ([], None)
