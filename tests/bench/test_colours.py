"""The bench of profiles: that it runs, measures every profile, and refuses in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from bench import colours
from export.proof.parity import PICTURES
from tests.support.stand_ins import SPEC, encode


def test_every_size_and_format_is_measured_with_every_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colours, "MEGAPIXELS", (0.01, 2))
    with Image.open(PICTURES / "two-dogs.jpg") as image:
        rows = colours.costs(image.convert("RGB"), SPEC, encode, rounds=1)
    assert [(row["megapixels"], row["format"]) for row in rows] == [(0.01, "JPEG"), (0.01, "PNG, alpha"), (2, "JPEG")]
    assert all(set(row["times"]) == set(colours.PROFILES) for row in rows)
    assert all(row["without_ms"] > 0 for row in rows)


def test_figures_are_kept_with_their_machine_and_an_empty_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(colours, "MEGAPIXELS", (0.02,))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert colours.main(["--pictures", str(pictures)]) == 2
    assert "holds no picture" in capsys.readouterr().err
    with Image.open(PICTURES / "sunset.jpg") as image:
        image.save(pictures / "sunset.jpg")
    out = tmp_path / "out.json"
    assert colours.main(["--pictures", str(pictures), "--rounds", "1", "--json", str(out)]) == 0
    assert "0.02 MP, JPEG" in capsys.readouterr().out
    kept = json.loads(out.read_text())
    assert kept["command"].startswith("python -m bench.colours")
    assert len(kept["rows"]) == 2
