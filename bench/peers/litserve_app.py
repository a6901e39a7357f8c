"""LitServe with our fp32 graph and Pillow, as a competent engineer would write it in an afternoon.

It runs in an environment of its own (see `environments`), so it imports nothing of ours. The graph is the artifact's:
it normalises the pixels itself. The answer is the legacy service's.
"""

from __future__ import annotations

import argparse
from typing import Any

import litserve
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]


class Embedder(litserve.LitAPI):  # type: ignore[misc, unused-ignore]  # LitServe is not in our own environment
    """POST /embed-image, multipart `file`: decoded in the worker, embedded in batches."""

    def __init__(self, graph: str, threads: int, size: int, draft: bool, **batching: Any) -> None:
        super().__init__(api_path="/embed-image", **batching)
        self.graph, self.threads, self.size, self.draft = graph, threads, size, draft

    def setup(self, device: str) -> None:
        """Once in each worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        self.entry = self.session.get_inputs()[0].name

    # LitServe takes a parameter's annotation for the type of a JSON body: a form has none.
    def decode_request(self, request) -> Pixels:  # type: ignore[no-untyped-def]
        """The picture's middle as CLIP's own preprocessing cuts it: uint8[S, S, 3]."""
        with Image.open(request["file"].file) as image:
            if self.draft:  # JPEG decoded at a scale, twice the model's size at least
                image.draft("RGB", (2 * self.size, 2 * self.size))
            upright = ImageOps.exif_transpose(image).convert("RGB")
        edge = min(upright.size)
        width, height = (int(self.size * side / edge) for side in upright.size)
        resized = upright.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))

    def batch(self, inputs: list[Pixels]) -> Pixels:
        return np.stack(inputs)

    def predict(self, inputs: Pixels) -> Vectors:
        """uint8[N, S, S, 3] to float32[N, D] of unit length."""
        vectors: Vectors = self.session.run(None, {self.entry: inputs})[0]
        return vectors

    def unbatch(self, output: Vectors) -> list[Vectors]:
        return list(output)

    def encode_response(self, output: Vectors) -> dict[str, list[float]]:
        return {"embedding": output.tolist()}


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--graph", required=True, help="image.fp32.onnx of an artifact")
    parser.add_argument("--size", type=int, default=224, help="edge of the model's picture (224)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a session (1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each session")
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch at most")
    parser.add_argument("--window", type=float, default=0.0, help="seconds that a batch waits to be filled")
    parser.add_argument("--draft", action="store_true", help="decode large JPEGs at a scale")
    asked = parser.parse_args()
    embedder = Embedder(
        asked.graph, asked.threads, asked.size, asked.draft, max_batch_size=asked.batch, batch_timeout=asked.window
    )
    server = litserve.LitServer(embedder, accelerator="cpu", workers_per_device=asked.workers, timeout=120)
    server.run(host="127.0.0.1", port=asked.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
