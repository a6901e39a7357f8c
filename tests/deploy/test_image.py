"""What the two Dockerfiles say. That they can be built, and what then runs, is in `test_containers.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twinlens
from tests import ROOT
from tests.support.packaging import brought_by

DOCKERFILES = {"cpu": "Dockerfile", "gpu": "Dockerfile.gpu"}


def instructions(name: str) -> str:
    """Without comments and continued lines."""
    lines = (ROOT / name).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#")).replace("\\\n", "")


@pytest.mark.parametrize("extra", DOCKERFILES)
def test_the_image_installs_what_the_server_needs_and_never_twinlens_itself(extra: str) -> None:
    """The line of the Dockerfile, run as the build of the image runs it."""
    line = re.search(
        r'^RUN (python -c ".*?") +> /tmp/requirements\.txt', instructions(DOCKERFILES[extra]), re.MULTILINE
    )
    assert line is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.run(
        ["sh", "-c", line[1]], cwd=ROOT, env={"PATH": path}, text=True, capture_output=True, check=True
    )
    printed = shell.stdout.splitlines()
    assert set(printed) == brought_by(extra)
    assert not [requirement for requirement in printed if requirement.startswith("twinlens")]


def test_the_image_for_a_gpu_is_that_for_a_cpu_but_for_the_gpu() -> None:
    """So that what is tested of the one, which can be built without CUDA, holds for the other."""
    nvidia = re.compile(r" +NVIDIA_VISIBLE_DEVICES=all +NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    gpu, found = nvidia.subn("", instructions(DOCKERFILES["gpu"]))
    assert found == 1
    gpu = gpu.replace("('server', 'gpu')", "('server', 'cpu')").replace("TWINLENS_DEVICE=cuda", "TWINLENS_DEVICE=cpu")
    assert gpu == instructions(DOCKERFILES["cpu"])


@pytest.mark.parametrize("extra", DOCKERFILES)
def test_the_label_names_the_version_that_it_is(extra: str) -> None:
    assert f"\nARG VERSION={twinlens.__version__}\n" in instructions(DOCKERFILES[extra])


def test_the_builder_is_sent_nothing_but_what_the_image_is_made_of() -> None:
    listed = (ROOT / ".dockerignore").read_text().split()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", instructions("Dockerfile"), re.M)
        for name in line.split()
    }
    assert {one.removeprefix("!") for one in listed if one.startswith("!")} == {name.rstrip("/") for name in copied}
