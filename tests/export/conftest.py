"""A tiny checkpoint and its artifact, made once: tests that change them take a copy."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.__main__ import main
from export.proof import parity
from tests.support.checkpoints import Exported, tiny_clip


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
