"""The socket's folder, where the path of the cluster is too long for one."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from server.errors import DatabaseUnusable
from server.postgres.server import EmbeddedPostgres
from tests.support.postgres import Embedded, answers, as_root, ask


def test_a_path_too_long_for_a_socket_moves_the_socket_to_a_private_folder(tmp_path: Path, embedded: Embedded) -> None:
    if os.geteuid() == 0:
        pytest.skip("under root the path is short here")
    check_long_path(embedded(tmp_path / ("x" * 100)))


def check_long_path(postgres: EmbeddedPostgres) -> None:
    with postgres:
        assert answers(postgres.url)
        folder = Path(ask(postgres.url, "SHOW unix_socket_directories"))
        assert folder != postgres.cluster
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with postgres:
        assert answers(postgres.url)
    folder.chmod(0o755)
    with pytest.raises(DatabaseUnusable, match="in the way"):
        postgres.start()
    shutil.rmtree(folder)


@as_root
def test_under_root_a_path_too_long_for_a_socket_works_too(public_path: Path, embedded: Embedded) -> None:
    check_long_path(embedded(public_path / ("x" * 100)))
