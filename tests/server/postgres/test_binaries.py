"""A copy of PostgreSQL's programs, where its user cannot reach the package."""

from __future__ import annotations

import importlib.util
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.postgres import binaries, cluster
from tests.support.postgres import Embedded, as_root, ask


@as_root
def test_under_root_binaries_out_of_reach_are_copied(
    tmp_path: Path, public_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec(binaries.PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    site = tmp_path / "site"
    shutil.copytree(package / "pginstall18", site / binaries.PACKAGE / "pginstall18")
    libraries = package.with_name(binaries.PACKAGE + ".libs")
    shutil.copytree(libraries, site / libraries.name)
    (site / binaries.PACKAGE / "pginstall18/bin/postgres").chmod(0o700)  # as a strict umask leaves it
    found = SimpleNamespace(submodule_search_locations=[str(site / binaries.PACKAGE)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(cluster, "ROOT_HOME", public_path / "home")
    with embedded(public_path / "data") as postgres:
        assert public_path / "home" in postgres._binaries.parents
        ask(postgres.url, "CREATE EXTENSION vector")
        copies = list((public_path / "home").iterdir())
        assert len(copies) == 1
        made_at = copies[0].stat().st_ctime_ns
    assert stat.S_IMODE((site / binaries.PACKAGE / "pginstall18/bin/postgres").stat().st_mode) == 0o700
    with postgres:
        assert [copy.stat().st_ctime_ns for copy in (public_path / "home").iterdir()] == [made_at]
