"""The image tower as the product opens it to serve: measured in this process, and behind HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from server.artifact.artifact import Artifact, Device
from server.inference.cores import plain
from server.inference.encoder import Encoder, Serving


@contextlib.contextmanager
def tower(artifact: Artifact, precision: str, device: Device, serving: Serving) -> Iterator[Encoder]:
    """The image tower, ready to run. Raises BadSetting, ArtifactInvalid."""
    with Encoder(artifact, precision, device, serving=serving) as encoder:
        if encoder.device == "cpu":
            encoder.lay_out(plain(encoder.threads, serving.most))
        yield encoder
