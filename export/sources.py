"""Where weights come from: a hub id, a local folder in Hugging Face format, or the built-in starter."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
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

from export.checkpoint import Checkpoint
from export.clip import open_clip
from export.errors import ExportRefused
from export.starter import open_starter
from export.weights import FILES, find_weights
from server.artifact import Source

STARTER = "starter"

_CONFIGS = ["config.json", "preprocessor_config.json"]
_SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]
# The best known of the CLIPs that sentence-transformers has repackaged.
_PLAIN_IDS = {
    "clip-vit-b-32": "openai/clip-vit-base-patch32",
    "clip-vit-b-16": "openai/clip-vit-base-patch16",
    "clip-vit-l-14": "openai/clip-vit-large-patch14",
}
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
    if _is_folder(folder):
        _no_revision(source, revision)
        files = {path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/config.json"))}
        _refuse_sentence_transformers(files, source, partial(_advise_local, source))
        name = folder.resolve().name
        return open_clip(folder, Source("folder", name), name)
    if folder.exists():
        raise ExportRefused(f"{source} is a file; a source is a folder in Hugging Face format, a hub id, or starter.")
    if not _HUB_ID.fullmatch(source):
        raise ExportRefused(f"There is no folder {source}, and it cannot be the id of a model on the hub.")
    snapshot = _download(source, revision)
    # The hub's cache keeps each commit in a folder of that name.
    return open_clip(snapshot, Source("hub", source, snapshot.name), source)


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
    """A snapshot of only what is needed; one from the cache where the hub cannot be reached."""
    try:
        try:
            files = {file.rfilename for file in HfApi().model_info(source, revision=revision).siblings or []}
            _refuse_sentence_transformers(files, f"{source} on the hub", partial(_advise_hub, source))
            weights = _SAFETENSORS if files.intersection(_SAFETENSORS[:2]) else _PICKLES
            return Path(snapshot_download(source, revision=revision, allow_patterns=_CONFIGS + weights))
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
            raise
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as exc:
            # Something answers there (a proxy, a sign-in page), but not as the hub does.
            raise ExportRefused(f"The hub ({_endpoint()}) gave no answer of a hub for {source}: {exc!r}.") from exc
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


def _refuse_sentence_transformers(files: set[str], what: str, advise: Callable[[str], str]) -> None:
    """Refuse a model in that library's format, with advice for the folder that its CLIP is in.

    `files` are the names in the model's folder, and the config.json of each folder in it.
    """
    if "modules.json" not in files or files.intersection(FILES):
        return
    inside = sorted(name.removesuffix("/config.json") for name in files if name.endswith("CLIPModel/config.json"))
    advice = f"its CLIP is the folder {inside[0]} in it. {advise(inside[0])}" if inside else "there is no CLIP in it."
    raise ExportRefused(f"{what} is in the format of sentence-transformers; {advice}")


def _advise_local(source: str, inside: str) -> str:
    return f"Give {Path(source) / inside} as --source."


def _advise_hub(source: str, inside: str) -> str:
    plain = _PLAIN_IDS.get(source.rpartition("/")[2].lower())
    fetch = f"etch that folder (hf download {source} --include '{inside}/*' --local-dir DIR) and give it as --source."
    return f"Give {plain}, which is its plain form, or f{fetch}" if plain else f"F{fetch}"


def _from_cache(source: str, revision: str | None, trouble: Exception) -> Path:
    answer = getattr(trouble, "response", None)
    why = f"the hub ({_endpoint()}) {'cannot be reached' if answer is None else f'answered {answer.status_code}'}"
    try:
        snapshot = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        raise ExportRefused(
            f"There is no folder {source}, and {why}; its cache here has no such model either."
        ) from trouble
    try:
        find_weights(snapshot)
        whole = all((snapshot / name).is_file() for name in _CONFIGS)
    except ExportRefused:
        whole = False
    if not whole:
        # A download that broke off, or another program that wanted the configs only.
        raise ExportRefused(f"There is no folder {source}, and {why}; its cache here has only a part of that model.")
    return snapshot


def _endpoint() -> str:
    return str(constants.ENDPOINT)
