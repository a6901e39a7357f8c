"""Where weights come from: a hub id, a local folder in Hugging Face format, or the built-in starter."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from export.checkpoint import Checkpoint
from export.clip import open_clip
from export.errors import ExportRefused
from export.starter import open_starter
from server.artifact import Source

STARTER = "starter"

_CONFIGS = ["config.json", "preprocessor_config.json"]
_SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def open_source(source: str, revision: str | None = None) -> Checkpoint:
    """Open what `--source` names. A local folder wins over a hub id of the same name.

    `revision` is a branch, tag or commit of a hub id; the manifest records the commit that it was. Raises
    ExportRefused in plain words.
    """
    if source == STARTER:
        _no_revision(source, revision)
        return open_starter()
    folder = Path(source)
    if folder.is_dir():
        _no_revision(source, revision)
        name = folder.resolve().name
        return open_clip(folder, Source("folder", name), name)
    if folder.exists():
        raise ExportRefused(f"{source} is a file; a source is a folder in Hugging Face format, a hub id, or starter.")
    if not _HUB_ID.fullmatch(source):
        raise ExportRefused(f"There is no folder {source}, and it cannot be the id of a model on the hub.")
    snapshot = _download(source, revision)
    # The hub's cache keeps each commit in a folder of that name.
    return open_clip(snapshot, Source("hub", source, snapshot.name), source)


def _no_revision(source: str, revision: str | None) -> None:
    if revision is not None:
        raise ExportRefused(f"--revision is for models on the hub; {source} has no revisions.")


def _download(source: str, revision: str | None) -> Path:
    """A snapshot of only what is needed; one from the cache where the hub cannot be reached."""
    try:
        try:
            files = {file.rfilename for file in HfApi().model_info(source, revision=revision).siblings or []}
            weights = _SAFETENSORS if files.intersection(_SAFETENSORS[:2]) else _PICKLES
            return Path(snapshot_download(source, revision=revision, allow_patterns=_CONFIGS + weights))
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
            raise
        except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as exc:
            if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return _from_cache(source, revision, exc)
    except GatedRepoError as exc:
        raise ExportRefused(f"{source} on the hub asks for an agreement first: log in with `hf auth login`.") from exc
    except RevisionNotFoundError as exc:
        raise ExportRefused(f"{source} on the hub has no revision {revision}.") from exc
    except RepositoryNotFoundError as exc:
        raise ExportRefused(
            f"There is no folder {source}, and no model of that name on the hub (or it is private)."
        ) from exc
    except HFValidationError as exc:
        raise ExportRefused(f"There is no folder {source}, and it cannot be the id of a model on the hub.") from exc


def _from_cache(source: str, revision: str | None, trouble: Exception) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        answer = getattr(trouble, "response", None)
        why = "cannot be reached" if answer is None else f"answered {answer.status_code}"
        raise ExportRefused(
            f"There is no folder {source}, and the hub ({endpoint}) {why}; its cache here has no such model either."
        ) from trouble
