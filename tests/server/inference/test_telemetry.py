"""That ONNX Runtime tells nobody what runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.parametrize(
    "modules",
    [
        "onnxruntime",
        "server.inference.encoder",
        "export, onnxruntime",
        "bench.precisions",
        "bench, onnxruntime",
        "models.starter.features, onnxruntime",
    ],
)
def test_importing_it_leaves_nothing_in_the_home_folder(modules: str, tmp_path: Path) -> None:
    """What it would send, it keeps there first; by itself it does so as soon as it is imported."""
    # It keeps quiet by itself where it sees that it is being tested.
    quiet = ("CI", "PYTEST", "ORT_", "GITHUB", "BUILD", "TF_BUILD", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(quiet)}
    subprocess.run(
        [sys.executable, "-c", f"import {modules}"], cwd=ROOT, check=True, env={**environment, "HOME": str(tmp_path)}
    )
    assert bool(list(tmp_path.rglob("onnxruntime.db"))) == (modules == "onnxruntime")
