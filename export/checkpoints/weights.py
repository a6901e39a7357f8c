"""Weight files to tensors, without ever running code from a pickle."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from export.errors import ExportRefused, is_out_of_memory
from server.artifact.artifact import Tensor

Weights = dict[str, torch.Tensor]

# Safetensors first: such a file cannot hold code.
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

_STORED = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_READ = (*_STORED, torch.float64)


def load_weights(folder: Path, wanted: Callable[[str], bool]) -> Weights:
    """The tensors of a Hugging Face folder whose names are wanted, as stored; safetensors before `.bin`.

    Raises ExportRefused for missing or damaged weights, and for a pickle that holds more than tensors.
    """
    parts = find_weights(folder)
    return {key: tensor for part in parts for key, tensor in _load_file(part, wanted).items()}


def find_weights(folder: Path) -> list[Path]:
    """The files that hold a folder's weights. Raises ExportRefused where one is missing, or all are."""
    for name in FILES:
        path = folder / name
        if path.is_file():
            return _parts(path) if name.endswith(".json") else [path]
    raise ExportRefused(f"There are no weights in {folder}: none of {', '.join(FILES)}.")


def weight_names(folder: Path) -> set[str]:
    """The names of all the tensors of a folder, without reading their values where the files allow.

    Raises ExportRefused as `load_weights` does.
    """
    names: set[str] = set()

    def note(name: str) -> bool:
        names.add(name)
        return False

    load_weights(folder, note)
    return names


def _parts(index: Path) -> list[Path]:
    """The files that an index of sharded weights names, each once."""
    try:
        values = json.loads(index.read_text("utf-8"))["weight_map"].values()
        names = sorted(set(values), key=str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ExportRefused(f"{index} is not an index of weights: {exc!r}.") from exc
    parts = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ExportRefused(f"{index} names weights outside its folder: {name!r}.")
        if not (index.parent / name).is_file():
            raise ExportRefused(f"{index} names {name}, which is missing.")
        parts.append(index.parent / name)
    return parts


def _load_file(path: Path, wanted: Callable[[str], bool]) -> Weights:
    return _load_safetensors(path, wanted) if path.suffix == ".safetensors" else load_pickle(path, wanted)


def _load_safetensors(path: Path, wanted: Callable[[str], bool]) -> Weights:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, RuntimeError) as exc:
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"{path} cannot be read as weights; it is damaged or not safetensors: {exc}.") from exc


def load_pickle(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Weights:
    """The tensors of a `.bin` or `.pth`, by torch's reader that accepts tensors only. Raises ExportRefused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A mapped file is read only where a tensor is wanted. Older containers cannot be mapped.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as exc:
        raise ExportRefused(
            f"{path} was refused: it is damaged, or it is a pickle that holds more than tensors and would run code "
            "when loaded. Convert it to safetensors where you trust it, and export that."
        ) from exc
    except Exception as exc:  # torch raises RuntimeError, EOFError, ValueError, AttributeError and more for damage
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"{path} cannot be read as weights: {_first_sentence(exc)}.") from exc
    if not isinstance(loaded, Mapping):
        raise ExportRefused(f"{path} holds a {type(loaded).__name__}, not a table of named weights.")
    return {
        name: tensor
        for name, tensor in loaded.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor) and wanted(name)
    }


def _first_sentence(exc: Exception) -> str:
    # The rest of torch's message advises loading the file unsafely.
    return (str(exc).splitlines() or [type(exc).__name__])[0].partition(". ")[0]


def build(kind: Any, config: Any, model: str) -> Any:
    """The module of a config, before its weights. Raises ExportRefused for a config that describes no module."""
    try:
        return kind(config)
    except Exception as exc:  # it fails in torch, in arithmetic or in a table of activations
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"The config.json of {model} describes no tower that can be built: {exc!r}.") from exc


def fill(module: torch.nn.Module, weights: Weights, *, where: str, what: str = "an image tower") -> None:
    """Load weights into a module strictly; it computes in float32, whatever precision they are stored in.

    Raises ExportRefused that names weights of another type, missing, surplus, misshapen or not finite.
    """
    # First, since `isfinite` and much else of torch does not work on other types.
    for name, tensor in weights.items():
        _refuse_other_types(name, tensor, where)
    expected = module.state_dict()
    if missing := [name for name in expected if name not in weights]:
        raise ExportRefused(f"The weights of {where} lack {_some(missing)}: {what} cannot be made without.")
    if surplus := [name for name in weights if name not in expected]:
        raise ExportRefused(f"The weights of {where} have {_some(surplus)}, which its config.json has no place for.")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ExportRefused(
                f"The weights of {where} have {name} of shape {list(tensor.shape)}; its config.json asks for "
                f"{list(expected[name].shape)}."
            )
        if not torch.isfinite(tensor).all():
            raise ExportRefused(f"The weights of {where} have {name} with values that are not finite.")
    # Assigned, not copied: towers are large.
    wide = {name: tensor.to(torch.float32) for name, tensor in weights.items()}
    module.load_state_dict(wide, strict=True, assign=True)
    module.eval()


def _refuse_other_types(name: str, tensor: torch.Tensor, where: str) -> None:
    if tensor.dtype not in _READ:
        stored = str(tensor.dtype).removeprefix("torch.")
        raise ExportRefused(
            f"The weights of {where} store {name} as {stored}; only floating-point of 16, 32 or 64 bits is read."
        )
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise ExportRefused(f"The weights of {where} name {name}, but hold no plain values for it.")


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def as_tensors(weights: Weights, *, where: str) -> Iterable[Tensor]:
    """Weights by name, as the space's id is computed: half precision as stored, others as float32, little-endian.

    Raises ExportRefused for weights that are not floating-point (quantised checkpoints).
    """
    for name, tensor in sorted(weights.items()):
        _refuse_other_types(name, tensor, where)
        stored = tensor.to(torch.float32) if tensor.dtype == torch.float64 else tensor
        plain = stored.detach().cpu().contiguous()
        # numpy has no bfloat16; its 16 bits travel as integers.
        array = plain.view(torch.int16).numpy() if plain.element_size() == 2 else plain.numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)
        # The tensor's own memory: towers are large.
        yield Tensor(name, _STORED[stored.dtype], tuple(stored.shape), little.view("uint8").data)
