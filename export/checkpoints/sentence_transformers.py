"""A CLIP in the format of sentence-transformers: a list of modules, each in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from export.errors import ExportRefused

MODULES = "modules.json"

# A `Transformer` may hold another model: its config.json shows whether it is a CLIP.
_CLIPS = ("CLIPModel", "Transformer")
# Vectors of an artifact have unit length anyway.
_HARMLESS = ("Normalize",)


def clip_inside(path: Path, model: str) -> str:
    """The folder of the CLIP that a modules.json names, relative to that file's folder; "" where it is the same.

    Raises ExportRefused for modules that change a CLIP's vectors, and for a list that cannot be read.
    """
    try:
        modules = json.loads(path.read_text("utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        folders = [PurePosixPath(str(module["path"])) for module in modules]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ExportRefused(f"{path} is not a list of modules, as sentence-transformers writes it: {exc!r}.") from exc
    if not kinds or kinds[0] not in _CLIPS:
        first = f"its first module is {kinds[0]}" if kinds else "it has no modules"
        raise ExportRefused(f"{model} is in the format of sentence-transformers, but there is no CLIP in it: {first}.")
    if more := [kind for kind in kinds[1:] if kind not in _HARMLESS]:
        raise ExportRefused(
            f"{model} is in the format of sentence-transformers and changes its vectors by {', '.join(more)}, which "
            "cannot be exported; a CLIP alone can."
        )
    inside = folders[0]
    if inside.is_absolute() or ".." in inside.parts:
        raise ExportRefused(f"{path} names a module outside its folder: {inside}.")
    return "" if inside == PurePosixPath(".") else inside.as_posix()
