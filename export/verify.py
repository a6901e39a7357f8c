"""An artifact, proved again without its checkpoint: every byte, every golden, and the gate's pictures once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.errors import ExportRefused
from export.parity import batch_identical, encode_alone, gate_pictures, prove_pixels
from export.preprocessing import processor_of
from export.publish import self_test
from export.steps import step
from server.artifact import SEAL, Artifact, seal
from server.encoder import Encoder


def verify(folder: Path) -> None:
    """Prove the artifact in the folder, a printed line per step.

    Files: the seal, every digest, and nothing that the manifest does not list (a README.md apart). Goldens: as at every
    start of the server. Pictures: pixels against a processor made from the spec, vectors alone against in batches. What
    needs the checkpoint itself, the cosine to torch, is read from the manifest and not repeated.

    Raises ExportRefused or ArtifactInvalid, which name what is wrong.
    """
    with step("files") as told:
        artifact = Artifact.read(folder)
        _check_seal(folder)
        artifact.check_files()
        _check_unlisted(artifact)
        manifest = artifact.manifest
        size = sum(file.bytes for file in manifest.files.values())
        told(f"{len(manifest.files)} files, {size / 1e6:.1f} MB, as exported; space {manifest.space.id[:16]}")
    for precision, variant in manifest.precisions.items():
        with Encoder(artifact, precision, "cpu") as encoder:
            with step("goldens") as told:
                lowest = self_test(artifact, encoder)
                told(f"{precision}: {len(manifest.goldens)} pictures give their pixels; lowest cosine {lowest:.10f}")
            with step("gate") as told:
                pictures = gate_pictures(artifact.spec)
                equal = prove_pixels(processor_of(artifact.spec), pictures)
                alone = encode_alone(encoder, pictures)
                lengths = np.linalg.norm(alone.astype(np.float64), axis=1)
                if not np.abs(lengths - 1).max() < 1e-5:
                    raise ExportRefused(
                        f"The {precision} graph gives vectors of length {lengths.min()} to {lengths.max()}."
                    )
                told(f"{equal} of {len(pictures)} pictures equal to the last bit; vectors are of unit length")
                identical = batch_identical(encoder, pictures, alone)
                told(f"alone and in batches: {'bit-identical' if identical else 'NOT bit-identical on this machine'}")
                for device, parity in variant.parity.items():
                    told(f"cosine to the checkpoint when exported, on {device}: {parity.image.min_cosine}")


def _check_seal(folder: Path) -> None:
    # `Artifact.read` compares a seal that is there; here it must be.
    path = folder / SEAL
    if not path.is_file() or path.read_bytes() != seal((folder / "manifest.json").read_bytes()):
        raise ExportRefused(f"{path} is missing or damaged: nothing says that manifest.json is the one exported.")


def _check_unlisted(artifact: Artifact) -> None:
    known = {*artifact.manifest.files, "manifest.json", SEAL, "README.md"}
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in known:
            raise ExportRefused(f"{path} is not a file of this artifact: its manifest does not list it.")
