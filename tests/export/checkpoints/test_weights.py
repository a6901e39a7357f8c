"""Weight files: what is read, and that nothing in them is ever run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from export.__main__ import main
from export.checkpoints.weights import as_tensors, fill, load_weights, weight_names
from export.errors import ExportRefused
from tests.support.checkpoints import tiny_clip


class _Touch:
    """Unpickled, it creates a file: what a malicious checkpoint would do, made visible."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


def _plain(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def _legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _tar(value: object, path: Path) -> None:
    """The oldest container: four pickles in a tar."""
    data = pickle.dumps(value)
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("save", [torch.save, _plain, _legacy, _tar], ids=["zip", "pickle", "legacy", "tar"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    save: Callable[[object, Path], None], sharded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_clip(tmp_path / "evil", form="bin-sharded" if sharded else "bin")
    target = next(folder.glob("pytorch_model*.bin"))
    weights = torch.load(target, weights_only=True)
    mark = tmp_path / "executed"
    save({**weights, "visual_projection.bias": _Touch(mark)}, target)
    assert main(["--source", str(folder), "--name", "evil", "--models", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert target.name in error
    assert "was refused" in error or save is _tar
    assert not mark.exists()
    assert not (tmp_path / "m").exists()
    # The same file does what it says when it is trusted, so the test could have failed.
    with contextlib.suppress(RuntimeError, TypeError):
        torch.load(target, weights_only=False)
    assert mark.exists()


def test_safetensors_are_preferred_to_a_pickle_beside_them(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert load_weights(tmp_path, lambda name: True)["a"].tolist() == [1, 1]


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "model.safetensors")
    assert list(load_weights(tmp_path, lambda name: name == "b")) == ["b"]


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "missing.bin", 7])
def test_an_index_that_names_other_files_is_refused(name: object, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ExportRefused, match="index"):
        load_weights(folder, lambda name: True)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short", b"\x80\x02}q\x00"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_damaged_weights_are_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportRefused, match=name):
        load_weights(tmp_path, lambda name: True)


def test_weights_that_are_no_table_are_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportRefused, match="not a table"):
        load_weights(tmp_path, lambda name: True)


def test_tensors_are_hashed_as_stored_and_doubles_as_floats() -> None:
    value = torch.tensor([[1.5, -2.0]])
    made = {
        dtype: next(iter(as_tensors({"a": value.to(dtype)}, where="it")))
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    }
    assert made[torch.float32].data == bytes.fromhex("0000c03f000000c0")
    assert made[torch.float16].data == bytes.fromhex("003e00c0")
    assert made[torch.bfloat16].data == bytes.fromhex("c03f00c0")
    assert made[torch.float64] == made[torch.float32]
    assert [made[dtype].dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)] == [
        "float32",
        "float16",
        "bfloat16",
    ]
    assert made[torch.float32].shape == (1, 2)


def test_tensors_come_by_name_and_are_the_memory_of_their_weights() -> None:
    weights = {name: torch.full((2, 2), value) for name, value in (("b", 1.0), ("a", 2.0), ("c", 3.0))}
    tensors = list(as_tensors(weights, where="it"))
    assert [tensor.name for tensor in tensors] == ["a", "b", "c"]
    weights["a"][0, 0] = 0.5
    assert bytes(tensors[0].data)[:4] == bytes.fromhex("0000003f")


@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors-sharded", "bin-sharded"])
def test_the_names_of_weights_are_read_from_every_container(form: str, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "it", form=form)
    assert weight_names(folder) == load_weights(folder, lambda name: True).keys()


def test_a_tensor_that_is_a_view_is_hashed_as_what_it_shows() -> None:
    table = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    (seen,) = as_tensors({"a": table.T}, where="it")
    (copy,) = as_tensors({"a": table.T.contiguous()}, where="it")
    assert seen == copy


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (
            torch.ones(2, 2).to(torch.float8_e4m3fn),
            "store weight as float8_e4m3fn; only floating-point of 16, 32 or 64",
        ),
        (torch.ones(2, 2, dtype=torch.complex64), "store weight as complex64; only"),
        (torch.ones(2, 2, dtype=torch.int8), "store weight as int8; only"),
        (torch.ones(2, 2, dtype=torch.bool), "store weight as bool; only"),
        (torch.ones(2, 2, device="meta"), "name weight, but hold no plain values"),
        (torch.ones(2, 2).to_sparse(), "name weight, but hold no plain values"),
        (torch.ones(2, 3), r"have weight of shape \[2, 3\]"),
        (torch.full((2, 2), float("inf")), "values that are not finite"),
    ],
    ids=["float8", "complex", "integers", "booleans", "meta", "sparse", "another shape", "infinite"],
)
def test_tensors_that_are_no_plain_numbers_are_refused_by_name(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(ExportRefused, match=words):
        fill(torch.nn.Linear(2, 2, bias=False), {"weight": tensor}, where="it")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_point_that_is_read_is_computed_with_as_float32(dtype: torch.dtype) -> None:
    module = torch.nn.Linear(2, 2, bias=False)
    fill(module, {"weight": torch.full((2, 2), 0.5, dtype=dtype)}, where="it")
    assert (module.weight.dtype, module.weight.tolist()) == (torch.float32, [[0.5, 0.5], [0.5, 0.5]])
