"""What the frozen backbone sees in a view of each picture, once, kept on disk in half precision."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from export.checkpoints.starter import POOLS, SPEC, Backbone, read_backbone
from models.starter import sources, views
from server.preprocessing.media import to_pixels

MEASURED = tuple(views.MEASURED)


def part(name: str) -> slice:
    """Where one of the backbone's pools is among all of them."""
    start = 0
    for key, size in POOLS.items():
        if key == name:
            return slice(start, start + size)
        start += size
    raise KeyError(name)


class _Pools(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pools = self.backbone((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        return torch.cat([pools[name] for name in POOLS], 1)


def write_model(cache: Path) -> Path:
    """The backbone as a graph for ONNX Runtime, which runs it three times as fast as torch: its path."""
    path = cache / "backbone.onnx"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        module = _Pools(read_backbone()[0]).eval()
        sample = torch.zeros(2, SPEC.size, SPEC.size, 3, dtype=torch.uint8)
        axes = {"pixels": {0: "N"}, "pools": {0: "N"}}
        names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["pools"], "dynamic_axes": axes}
        torch.onnx.export(module, (sample,), path, opset_version=17, dynamo=False, **names)
    return path


def view(data: Path, item: sources.Item, kind: str) -> Image.Image:
    """An item's picture: `clean`, `near`, `strong`, or as one of views.MEASURED alters it; the same every time."""
    if kind in views.MEASURED:
        return views.MEASURED[kind](views.on(sources.open_picture(data, item)))
    rng = random.Random(f"{item.set}/{item.key}/{kind}")  # noqa: S311  # to be the same every time
    if kind == "strong":
        red, green, blue = (rng.randrange(150) for _ in range(3))
        colour = "#000000" if rng.random() < 0.5 else f"#{red:02x}{green:02x}{blue:02x}"
        return views.strong(sources.open_picture(data, item, colour), rng)
    image = views.on(sources.open_picture(data, item))
    return image if kind == "clean" else views.near_duplicate(image, rng)


_session: Any = None


def _start(model: str) -> None:
    import onnxruntime

    global _session
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    _session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _look(batch: Sequence[sources.Item], data: Path, kind: str) -> NDArray[np.float16]:
    pixels = np.stack([to_pixels(view(data, item, kind), SPEC) for item in batch])
    pools: NDArray[np.float16] = _session.run(["pools"], {"pixels": pixels})[0].astype(np.float16)
    return pools


def look(data: Path, items: Sequence[sources.Item], kind: str, cache: Path, model: Path) -> NDArray[np.float16]:
    """float16[N, P]: the backbone's pools of one view of each item, from the cache, or computed by every core."""
    digest = hashlib.sha256(repr([(item.set, item.key) for item in items]).encode()).hexdigest()[:12]
    path = cache / f"pools.{''.join(c if c.isalnum() else '-' for c in kind)}.{digest}.npy"
    if not path.exists():
        batches = [items[at : at + 16] for at in range(0, len(items), 16)]
        seen = []
        started = time.monotonic()
        with multiprocessing.get_context("fork").Pool(os.cpu_count(), _start, (str(model),)) as pool:
            for number, pools in enumerate(pool.imap(partial(_look, data=data, kind=kind), batches), 1):
                seen.append(pools)
                if number % 100 == 0:
                    rate = number * 16 / (time.monotonic() - started)
                    print(f"{kind}: {number * 16} of {len(items)}, {rate:.0f} a second", flush=True)
        np.save(path, np.concatenate(seen))
    found: NDArray[np.float16] = np.load(path)
    return found
