"""Where weights come from: a hub id, a local folder in Hugging Face format, or the built-in starter."""

from __future__ import annotations

import errno
import re
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from export.checkpoints import clip, siglip, tokenizer
from export.checkpoints.checkpoint import Checkpoint
from export.checkpoints.configs import read_json, read_processor_config
from export.checkpoints.sentence_transformers import MODULES, clip_inside
from export.checkpoints.starter import open_starter
from export.checkpoints.weights import find_weights
from export.errors import ExportRefused
from server.artifact.artifact import Source

STARTER = "starter"

_CONFIGS = ["config.json", "preprocessor_config.json"]
_SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]
# Models that are easily mistaken for a CLIP or a SigLIP: each is refused with its own reason.
_RELATED = {
    "siglip2": "is a SigLIP 2 of variable resolution (NaFlex), which has no one input size: export {twin}, its twin of "
    "fixed resolution",
    "clip_text_model": "is a text tower alone: there is nothing in it that sees",
    "siglip_text_model": "is a text tower alone: there is nothing in it that sees",
    "chinese_clip": "is a Chinese CLIP, whose text tower is a BERT: this version does not export it",
    "altclip": "is an AltCLIP, whose text tower is another one than CLIP's: this version does not export it",
    "metaclip_2": "is a MetaCLIP 2, whose text tower is another one than CLIP's: this version does not export it",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def open_source(source: str, revision: str | None = None) -> Checkpoint:
    """Open what `--source` names. A local folder wins over a hub id of the same name.

    `revision` is a branch, tag or commit of a hub id; the manifest records the commit. Raises ExportRefused.
    """
    if source == STARTER:
        _no_revision(source, revision)
        return open_starter()
    folder = Path(source)
    if _is_folder(folder):
        _no_revision(source, revision)
        name = folder.resolve().name
        return open_folder(folder, Source("folder", name), name)
    if folder.exists():
        raise ExportRefused(f"{source} is a file; a source is a folder in Hugging Face format, a hub id, or starter.")
    if not _HUB_ID.fullmatch(source):
        raise ExportRefused(f"There is no folder {source}, and it cannot be the id of a model on the hub.")
    snapshot = _download(source, revision)
    # The hub's cache keeps each commit in a folder of that name.
    return open_folder(snapshot, Source("hub", source, snapshot.name), source)


def open_folder(folder: Path, source: Source, model: str) -> Checkpoint:
    """Open a folder in Hugging Face format, or one of sentence-transformers with such a folder in it.

    Raises ExportRefused.
    """
    folder = folder / _inside(folder, model)
    kind = read_json(folder, "config.json").get("model_type")
    if kind in siglip.KINDS:
        return siglip.open_siglip(folder, source, model)
    if kind in clip.KINDS:
        return clip.open_clip(folder, source, model)
    if isinstance(kind, str) and kind in _RELATED:
        size = "so400m" if "so400m" in model else "base"
        raise ExportRefused(f"{model} {_RELATED[kind].format(twin=f'google/siglip2-{size}-patch16-256')}.")
    raise ExportRefused(
        f"{model} is not a CLIP: its config.json says model_type {kind!r}; clip and siglip are what can be exported."
    )


def _inside(folder: Path, model: str) -> str:
    modules = folder / MODULES
    return clip_inside(modules, model) if modules.exists() else ""


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as exc:
        if exc.errno != errno.ENAMETOOLONG:
            raise
        shown = f"{str(path)[:40]}..."
        raise ExportRefused(f"The --source {shown} is too long to be a folder or the id of a model.") from exc


def _no_revision(source: str, revision: str | None) -> None:
    if revision is not None:
        raise ExportRefused(f"--revision is for models on the hub; {source} has no revisions.")


def _download(source: str, revision: str | None) -> Path:
    """A snapshot with only the files needed; from the cache where the hub cannot be reached."""
    try:
        try:
            files = {file.rfilename for file in HfApi().model_info(source, revision=revision).siblings or []}
            get = partial(snapshot_download, source, revision=revision)
            inside = _inside(Path(get(allow_patterns=[MODULES])), source) if MODULES in files else ""
            within = f"{inside}/" if inside else ""
            weights = _SAFETENSORS if files.intersection(within + name for name in _SAFETENSORS[:2]) else _PICKLES
            wanted = [*_CONFIGS, "processor_config.json", *tokenizer.FILES, *weights]
            return Path(get(allow_patterns=[MODULES, *(within + name for name in wanted)]))
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
            raise
        except LocalEntryNotFoundError as exc:  # also a ValueError: the hub became unreachable between two files
            return _from_cache(source, revision, exc)
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as exc:
            # Something else answers there: a proxy, a sign-in page.
            raise ExportRefused(f"{_endpoint()} does not answer as the hub does for {source}: {exc!r}.") from exc
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
    answer = getattr(trouble, "response", None)
    why = f"the hub ({_endpoint()}) {'cannot be reached' if answer is None else f'answered {answer.status_code}'}"
    try:
        snapshot = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        raise ExportRefused(
            f"There is no folder {source}, and {why}; its cache here has no such model either."
        ) from trouble
    folder = snapshot / _inside(snapshot, source)
    try:
        find_weights(folder)
        read_processor_config(folder)
        complete = (folder / "config.json").is_file()
    except ExportRefused:
        complete = False
    if not complete:
        # A download was interrupted, or another program fetched the configs only.
        raise ExportRefused(f"There is no folder {source}, and {why}; its cache here has only a part of that model.")
    return snapshot


def _endpoint() -> str:
    return str(constants.ENDPOINT)
