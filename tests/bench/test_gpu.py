"""bench/gpu.sh from end to end, on the CPU; its figures there mean nothing, and it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from bench import pictures
from bench.gpu import command
from bench.gpu.aims import aims
from server.preprocessing.media import decode
from tests import ROOT, STARTER


def test_on_the_cpu_it_measures_all_that_it_would_on_a_gpu_and_says_that_it_is_none(tmp_path: Path) -> None:
    line = ["bench/gpu.sh", "--device", "cpu", "--model", str(STARTER), "--batches", "1,2", "--seconds", "1"]
    line += ["--callers", "2", "--workers", "1", "--json", str(tmp_path / "gpu.json")]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("These are NOT figures of a GPU.") == 2
    report = json.loads((tmp_path / "gpu.json").read_bytes())
    assert [(row["batch"], row["runners"]) for row in report["forward"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    rows = [*report["forward"], report["embedding"], *report["http"]]
    assert all(row["picturesPerSecond"] > 0 and row["gpu"] is None for row in rows)
    assert report["missing"] == {"yardstick": "no --checkpoint was given"}
    assert {aim["verdict"] for aim in report["aims"]} == {"not measured"}
    assert set(report["artifact"]) == {"name", "model", "precision", "device", "space"}


def test_each_aim_is_met_missed_or_not_measured() -> None:
    report = {
        "forward": [
            {"precision": "fp16", "picturesPerSecond": 12_000.0},
            {"precision": "fp16", "picturesPerSecond": 9_000.0},
            {"precision": "fp32", "picturesPerSecond": 99_000.0},
        ],
        "yardstick": [{"picturesPerSecond": 15_000.0}],
    }
    assert [(aim["found"], aim["verdict"]) for aim in aims(report, on_gpu=True)] == [
        (0.8, "met"),
        (12_000.0, "missed"),
        (None, "not measured"),
    ]
    assert {aim["verdict"] for aim in aims(report, on_gpu=False)} == {"not measured"}


def test_the_jpegs_are_as_many_as_asked_for_and_each_decodes() -> None:
    sent = pictures.distinct(70)
    assert len(set(sent)) == 70
    assert {decode(data, max_pixels=10**6).image.size for data in sent[::23]} == {(640, 480)}


def test_the_report_has_the_options_that_were_given_and_says_what_is_missing(tmp_path: Path) -> None:
    given = ["--device", "cpu", "--model", str(STARTER), "--only", "yardstick", "--json", str(tmp_path / "gpu.json")]
    assert command.main(given) == 0
    report = json.loads((tmp_path / "gpu.json").read_bytes())
    assert report["command"] == ["python", "-m", "bench.gpu", *given]
    assert report["missing"] == {"yardstick": "no --checkpoint was given"}


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--device", "cpu", "--only", "forward,backward"])
    assert "not backward" in capsys.readouterr().err


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="has CUDA")
def test_without_cuda_it_says_why_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--model", str(STARTER)]) == 2
    assert "has no CUDA" in capsys.readouterr().err
