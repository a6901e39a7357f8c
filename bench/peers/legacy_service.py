"""The legacy service, rebuilt from its description: `http.server` around sentence-transformers.

A thread for each request, one model that the first request loads, one picture at a time through it, and `POST
/embed-image` with a multipart `file`. It runs in an environment of its own (see `environments`) and imports nothing of
ours.
"""

from __future__ import annotations

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from PIL import Image


class Model:
    """CLIP, loaded when it is first wanted."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._loading = Lock()
        self._loaded: Any = None

    def encode(self, picture: bytes) -> list[float]:
        """The picture's vector, of unit length."""
        with self._loading:
            if self._loaded is None:
                from sentence_transformers import SentenceTransformer, models  # seconds: not before it is wanted

                self._loaded = SentenceTransformer(modules=[models.CLIPModel(self._folder)], device="cpu")
        with Image.open(io.BytesIO(picture)) as image:
            vector = self._loaded.encode(image.convert("RGB"), normalize_embeddings=True, show_progress_bar=False)
        return [float(number) for number in vector]


class Handler(BaseHTTPRequestHandler):
    model: Model

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        picture = _file_of(self.headers.get("Content-Type", ""), body)
        if self.path != "/embed-image":
            self._answer(404, {"error": "not found"})
        elif picture is None:
            self._answer(400, {"error": "no file"})
        else:
            self._answer(200, {"embedding": self.model.encode(picture), "model": "clip-ViT-B-32", "device": "cpu"})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: a line for each request would cost it time."""


def _file_of(content_type: str, body: bytes) -> bytes | None:
    """The part `file` of a multipart form, or None."""
    _, _, boundary = content_type.partition("boundary=")
    for part in body.split(b"\r\n--" + boundary.strip('"').encode()) if boundary else ():
        head, found, content = part.partition(b"\r\n\r\n")
        if found and b'name="file"' in head:
            return content
    return None


class Service(ThreadingHTTPServer):
    # With the standard library's 5, connections were reset at 32 callers, and there was nothing to compare with.
    request_queue_size = 128


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, help="folder of a CLIP in Hugging Face format, with tokenizer")
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    Handler.model = Model(asked.checkpoint)
    Service(("127.0.0.1", asked.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
