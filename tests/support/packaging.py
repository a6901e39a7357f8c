"""What pyproject.toml says that each extra installs, and the wheel that is made of it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests import ROOT

_NOT_BUILT_FROM = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__", "*.onnx")


def run(*command: str | Path, folder: Path, **given: Any) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(list(command), cwd=folder, text=True, capture_output=True, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def build_wheel(folder: Path) -> Path:
    """The wheel, built from a copy of the checkout, which keeps what a build leaves behind."""
    shutil.copytree(ROOT, folder / "checkout", ignore=_NOT_BUILT_FROM)
    flags = ["--no-deps", "--wheel-dir", "wheels", "--disable-pip-version-check"]
    if importlib.util.find_spec("setuptools"):
        flags.append("--no-build-isolation")  # what builds it is here already
    run(sys.executable, "-m", "pip", "wheel", *flags, folder / "checkout", folder=folder)
    (made,) = (folder / "wheels").iterdir()
    return made


def install(folder: Path, *what: str | Path) -> Path:
    """The interpreter of an environment that holds what pip installs by these words, and nothing else."""
    run(sys.executable, "-m", "venv", "--without-pip", "empty", folder=folder)
    python = folder / "empty" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-compile", *what, folder=folder)
    return python


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def brought_by(extra: str) -> set[str]:
    """The requirements of an extra, those of the extras that it names among them."""
    found = set()
    for requirement in project()["optional-dependencies"][extra]:
        if ours := re.fullmatch(r"twinlens\[(.+)\]", requirement):
            found |= {one for name in ours[1].split(",") for one in brought_by(name.strip())}
        else:
            found.add(requirement)
    return found
