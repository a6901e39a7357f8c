"""A tiny checkpoint and its artifact, made once: tests that change them take a copy."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.__main__ import main
from export.artifacts import publish
from export.proof import parity
from tests.support.checkpoints import tiny_clip


@dataclass(frozen=True)
class Exported:
    """An artifact, and what the export printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="session")
def few_pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sixth of the gate's pictures, the goldens among them."""
    folder = tmp_path_factory.mktemp("pictures")
    everything = sorted(parity.PICTURES.iterdir())
    for path in everything:
        if path.name in (*publish.GOLDENS, "LICENCES.md") or (
            path in everything[::8] and path.stat().st_size < 200_000
        ):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def few_pictures(few_pictures_folder: Path) -> Iterator[None]:
    """For tests that export many times over: the gate has fewer pictures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parity, "PICTURES", few_pictures_folder)
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with a tokenizer."""
    return tiny_clip(tmp_path_factory.mktemp("checkpoints") / "tiny", words=True)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, few_pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """It in fp32, from a gate of few pictures."""
    models = tmp_path_factory.mktemp("models")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(out):
        patched.setattr(parity, "PICTURES", few_pictures_folder)
        assert main(["--source", str(checkpoint), "--name", "tiny", "--models", str(models)]) == 0
    return Exported(models / "tiny", out.getvalue())


@pytest.fixture(scope="session")
def artifact(exported: Exported) -> Path:
    return exported.folder
