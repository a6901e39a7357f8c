"""The bench of scaled decoding: that it runs, compares what it says it compares, and refuses in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import decoding, near_duplicates
from export.proof.parity import PICTURES
from tests.support.stand_ins import SPEC, encode


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two photographs of the gate's, small enough to be quick."""
    for name, size in (("two-dogs.jpg", (512, 769)), ("sunset.jpg", (534, 356))):
        Image.open(PICTURES / name).resize(size).save(tmp_path / name, quality=95)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_likeness_compares_every_coding_of_every_photograph_with_itself_in_full(two: Path) -> None:
    pictures = list(near_duplicates.read_pictures(two).items())
    assert [name for name, _ in pictures] == ["sunset.jpg", "two-dogs.jpg"]
    found = decoding.likeness(pictures, SPEC, encode)
    assert found["jpegs"] == 2 * 2 * len(decoding.CODINGS)
    least = found["edges"]["1"], found["edges"]["4"]
    assert [row["decoded_at_a_scale"] for row in least] == [12, 3]
    assert all(0.99 < row["cosine_min"] <= row["cosine_mean"] < 1 for row in least)
    assert least[0]["pixels_mean"] > least[1]["pixels_mean"] > 0
    assert set(found["near_duplicates"]) == {"0", "1", "2", "3", "4"}
    for row in found["near_duplicates"].values():
        assert row["found_first"] == 2
        assert 0.99 < row["cosine_min"] < 1 < row["ahead_of_the_next_min"] + 1


def test_times_are_of_every_size_both_kinds_and_every_scale(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MEGAPIXELS", (0.02, 0.3))
    found = decoding.times(Image.open(two / "two-dogs.jpg"), SPEC, rounds=2)
    assert [(row["megapixels"], row["kind"]) for row in found] == [
        (0.02, "baseline"),
        (0.02, "progressive"),
        (0.3, "baseline"),
        (0.3, "progressive"),
    ]
    assert found[0]["scale"] == {"1": 1, "2": 1, "3": 1, "4": 1}
    assert found[2]["scale"] == {"1": 4, "2": 2, "3": 2, "4": 1}
    assert all(np.isfinite(list(row["times_quicker"].values())).all() for row in found)


def test_figures_are_printed_and_kept_with_their_machine(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(decoding, "MEGAPIXELS", (0.3,))
    assert decoding.main(["--pictures", str(two), "--rounds", "1", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "0.3 MP, progressive" in printed
    assert "near-duplicates, in full: 2 found first" in printed
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["machine"]["pillow"]
    assert kept["command"].startswith("python -m bench.decoding --pictures ")
    assert kept["models"][0]["photographs"] == 2


def test_a_folder_without_photographs_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decoding.main(["--pictures", str(tmp_path)]) == 2
    assert "holds 0 pictures; two are needed" in capsys.readouterr().err
    assert decoding.main(["--pictures", str(tmp_path), "--model", str(tmp_path / "none")]) == 2
    assert "There is no model artifact" in capsys.readouterr().err
