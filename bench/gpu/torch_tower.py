"""python -m bench.gpu.torch_tower: a checkpoint's image tower in torch.compile, which bench.gpu is measured against.

Pixels lie on the GPU already, in half precision, as the tower takes them: nothing is copied, nothing is normalised.
The last line that it prints is JSON. On the CPU it runs eagerly, to try the benchmark.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import AutoConfig, CLIPVisionModelWithProjection, SiglipVisionModel

# Kernel by kernel, and recorded as CUDA graphs: the better of the two is the yardstick.
_MODES = ("default", "reduce-overhead")


def load(checkpoint: Path) -> Any:
    """The image tower, in evaluation. Raises OSError when there is none."""
    kind = AutoConfig.from_pretrained(checkpoint).model_type
    tower: Any = SiglipVisionModel if kind.startswith("siglip") else CLIPVisionModelWithProjection
    return tower.from_pretrained(checkpoint).eval()


def rate(run: Callable[[], object], device: torch.device, batch: int, seconds: float) -> float:
    """Pictures a second, with the GPU's queue kept full."""
    for _ in range(4):  # compiles, and records what there is to record
        run()
    _wait(device)
    started, runs = perf_counter(), 0
    while perf_counter() - started < seconds:
        for _ in range(8):
            run()
        runs += 8
        _wait(device)
    return runs * batch / (perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu.torch_tower", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--batches", required=True, help="comma-separated")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--device", default="cuda:0")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32
    tower = load(given.checkpoint).to(device, dtype)
    size = tower.config.image_size
    rows = []
    with torch.inference_mode():
        for mode in _MODES if on_gpu else ("eager",):
            torch.compiler.reset()
            compiled = torch.compile(tower, mode=mode) if on_gpu else tower
            for batch in map(int, given.batches.split(",")):
                pixels = torch.rand((batch, 3, size, size), dtype=dtype, device=device)
                found = rate(lambda pixels=pixels, compiled=compiled: compiled(pixels), device, batch, given.seconds)  # type: ignore[misc]
                how = f"torch {torch.__version__}, {mode}, {str(dtype).removeprefix('torch.')}"
                rows.append({"how": how, "batch": batch, "picturesPerSecond": round(found, 1)})
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
