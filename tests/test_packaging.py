"""What is shipped under the name twinlens, and what each extra installs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import server
import twinlens
from tests import ROOT
from tests.support.packaging import brought_by, project

NOT_BUILT_FROM = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__", "*.onnx")


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, which keeps what a build leaves behind."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "checkout", ignore=NOT_BUILT_FROM)
    flags = ["--no-deps", "--wheel-dir", "wheels", "--disable-pip-version-check"]
    if importlib.util.find_spec("setuptools"):
        flags.append("--no-build-isolation")  # what builds it is here already
    run(sys.executable, "-m", "pip", "wheel", *flags, folder / "checkout", folder=folder)
    (made,) = (folder / "wheels").iterdir()
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", "empty", folder=folder)
    python = folder / "empty" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, folder=folder)
    return python


def test_a_server_in_an_image_without_the_package_knows_its_version_all_the_same() -> None:
    assert server.__version__ == twinlens.__version__


def test_the_wheel_holds_all_of_the_package_twinlens_and_claims_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"twinlens", f"twinlens-{twinlens.__version__}.dist-info"}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "twinlens").rglob("*.py")}
    assert {name for name in names if name.startswith("twinlens/")} == ours


def test_installed_it_is_imported_and_knows_its_version(python: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata, twinlens; print(twinlens.__version__, importlib.metadata.version('twinlens'))"
    assert run(python, "-I", "-c", code, folder=tmp_path).split() == [twinlens.__version__] * 2


def test_an_environment_that_installs_it_has_nothing_new_but_it(python: Path, tmp_path: Path) -> None:
    code = "import os, sysconfig; print(*os.listdir(sysconfig.get_path('purelib')))"
    assert set(run(python, "-I", "-c", code, folder=tmp_path).split()) == {
        "twinlens",
        f"twinlens-{twinlens.__version__}.dist-info",
    }


@pytest.mark.parametrize("extra", ["cpu", "gpu", "export", "bench", "dev"])
def test_every_extra_that_runs_the_server_brings_what_the_server_needs(extra: str) -> None:
    assert not project()["dependencies"], "the client library alone needs nothing"
    assert brought_by(extra) > brought_by("server") >= {"granian", "litestar", "psycopg[binary,pool]"}
