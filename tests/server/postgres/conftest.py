"""What the tests of the embedded PostgreSQL share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that every user can walk to, as pytest's own is not: under root, a database in it stays in it."""
    folder = Path(tempfile.mkdtemp(prefix="twinlens-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
