"""python -m bench ingest, at a size that says nothing: all four parts run and are written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import ingest
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from tests import STARTER


def test_the_bare_encoder_is_run_by_all_its_runners() -> None:
    with Encoder(Artifact.read(STARTER), "fp32", "cpu", threads=1) as encoder:
        pixels = np.zeros((5, *encoder.samples[0].shape), np.uint8)
        assert ingest.run_bare(encoder.runners, pixels, 2, 0.05) > 0


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ingest.main(["--only", "speed"])
    assert "there is no part speed" in capsys.readouterr().err


@pytest.mark.slow
def test_all_parts_are_measured_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    sizes = ["--pictures", "8", "--rounds", "1", "--seconds", "2", "--loop", "3", "--rows", "3", "6", "--live", "4"]
    assert ingest.main([*sizes, "--rate", "20", "--threads", "1", "--json", str(report)]) == 0, capsys.readouterr().err
    found = json.loads(report.read_text())
    assert found["rate"]["ratio"] > 0
    assert found["loop"]["ratios"].keys() == {"new", "known to the API", "known"}
    assert found["memory"]["peaks"].keys() == {"3", "6"}
    assert found["live"]["searches"]["beside"] > 0
