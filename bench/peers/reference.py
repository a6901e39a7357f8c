"""What the vectors must be: those of transformers and torch, which everybody's weights come from.

    python -m bench.peers.reference CHECKPOINT FOLDER FILE

embeds the pictures of a folder, in the order of their names, into a `.npy` of float32[N, D]. It is a process of its
own, so that torch with its threads and its memory is gone before anything is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.pictures import ROOT, Picture

Vectors = NDArray[np.float32]


def vectors(checkpoint: Path, sent: Sequence[Picture]) -> Vectors:
    """The pictures' vectors, float32[N, D], of unit length. Raises RuntimeError when torch cannot make them."""
    with tempfile.TemporaryDirectory(prefix="twinlens-bench-") as name:
        home = Path(name)
        (home / "pictures").mkdir()
        for number, picture in enumerate(sent):
            (home / "pictures" / f"{number:06}").write_bytes(picture.data)
        command = [sys.executable, "-m", "bench.peers.reference", str(checkpoint.resolve())]
        command += [str(home / "pictures"), str(home / "vectors.npy")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603 - this file
        if done.returncode:
            raise RuntimeError(f"there is no reference to compare with: {done.stderr.strip()[-2000:]}")
        found: Vectors = np.load(home / "vectors.npy")
    return found


def _main(checkpoint: str, folder: str, out: str) -> None:
    import torch
    from transformers import CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = CLIPImageProcessor.from_pretrained(checkpoint)
    made = []
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as image, torch.inference_mode():
            vector = model.get_image_features(**processor(images=image.convert("RGB"), return_tensors="pt"))[0]
        made.append((vector / vector.norm()).numpy())
    np.save(out, np.stack(made))


if __name__ == "__main__":
    _main(*sys.argv[1:])
