"""What is shipped under the name twinlens, and what each extra installs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import server
import twinlens
from server.access.keys import new_key
from tests import ROOT
from tests.support.packaging import brought_by, build_wheel, install, project, run


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("packaging"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, without what it depends on."""
    return install(tmp_path_factory.mktemp("environment"), "--no-deps", "--no-index", wheel)


def test_a_server_in_an_image_without_the_package_knows_its_version_all_the_same() -> None:
    assert server.__version__ == twinlens.__version__


def test_the_wheel_holds_all_of_the_package_twinlens_and_claims_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"twinlens", f"twinlens-{twinlens.__version__}.dist-info"}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "twinlens").rglob("*.py")} | {"twinlens/py.typed"}
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


def test_search_keys_are_derived_without_anything_else(python: Path, tmp_path: Path) -> None:
    code = f"from twinlens import derive_search_key; print(derive_search_key({new_key()[1]!r}))"
    assert run(python, "-I", "-c", code, folder=tmp_path).startswith("twinlens-search.")


@pytest.mark.parametrize("extra", ["cpu", "gpu", "export", "bench", "dev"])
def test_every_extra_that_runs_the_server_brings_what_the_server_needs(extra: str) -> None:
    assert project()["dependencies"] == ["httpx", "msgspec"], "the client library needs no more"
    assert brought_by(extra) > brought_by("server") >= {"granian", "litestar", "psycopg[binary,pool]"}
