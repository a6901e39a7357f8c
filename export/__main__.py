"""The command line of the export, and its steps in order.

$ python -m export --source openai/clip-vit-base-patch32 --name clip-vit-b32
$ python -m export verify models/clip-vit-b32
"""

from __future__ import annotations

import argparse
import errno
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec

from export.errors import ExportRefused, is_out_of_memory
from export.place import destination, put, staging
from export.steps import step
from server.errors import TwinlensError

PRECISIONS = ("fp32",)

_TRACEBACK = "--traceback"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 refused or failed (standard error has a sentence), 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verifying = given[:1] == ["verify"]
    try:
        if verifying:
            _verify(given[1:])
        else:
            _export(given)
    except TwinlensError as exc:
        return _refuse(exc.sentence)
    except OSError as exc:
        if exc.errno in _FULL:
            return _refuse(f"There is no room left to write the artifact ({exc.strerror}); nothing was kept of it.")
        where = f"{exc.filename}: " if exc.filename else ""
        return _refuse(f"A file cannot be read or written: {where}{exc.strerror or exc}.")
    except KeyboardInterrupt:
        print(f"Interrupted; nothing was {'proved' if verifying else 'kept'}.", file=sys.stderr)
        return 130
    except Exception as exc:
        if is_out_of_memory(exc):
            return _refuse("This machine has too little memory for this model.")
        if _TRACEBACK in given:
            traceback.print_exc()
        return _refuse(
            f"This is a fault of ours, not of what was given: {type(exc).__name__}: {exc}. Run it again with "
            f"{_TRACEBACK} and report what it prints."
        )
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> int:
    print(f"export: {sentence}", file=sys.stderr)
    return 2


def _export(given: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Freeze a CLIP model with its preprocessing into an artifact that the server runs.",
        epilog="python -m export verify FOLDER proves an artifact again.",
    )
    parser.add_argument("--source", required=True, help="a hub id, a folder in Hugging Face format, or: starter")
    parser.add_argument("--name", required=True, help="the artifact's name, a folder below --models")
    parser.add_argument("--precision", action="append", metavar="P", help="fp32 (the default; others will follow)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where artifacts lie (default: models)")
    _add_traceback(parser)
    options = parser.parse_args(given)
    for precision in options.precision or []:
        if precision not in PRECISIONS:
            raise ExportRefused(f"The precision {precision} cannot be exported; this version makes fp32 only.")
    export(options.source, options.name, revision=options.revision, models=options.models)


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    # `main` looks for it itself: what goes wrong may do so before there are options.
    parser.add_argument(_TRACEBACK, action="store_true", help="show where an unforeseen error came from")


def _verify(given: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m export verify", description="Prove an artifact again.")
    parser.add_argument("folder", type=Path, help="the artifact's folder")
    _add_traceback(parser)
    folder = parser.parse_args(given).folder
    _need_the_extra()
    from export.verify import verify

    verify(folder)
    print(f"{folder} is whole and does what it did when it was exported.")


def export(source: str, name: str, *, revision: str | None = None, models: Path = Path("models")) -> Path:
    """Export a source to `models/name`, a printed line per step; the artifact's folder.

    Raises ExportRefused, and leaves no trace of itself, when any step refuses.
    """
    place = destination(models, name)
    _need_the_extra()
    # torch and transformers take seconds to import: a mistyped argument is told before.
    from export import parity, publish, trace
    from export.sources import open_source
    from server.artifact import Artifact
    from server.encoder import Encoder

    with staging(place) as folder:
        with step("source") as told:
            checkpoint = open_source(source, revision)
            manifest = publish.draft(checkpoint, name, "fp32")
            at = f" at {checkpoint.source.revision}" if checkpoint.source.revision else ""
            told(f"{checkpoint.model}{at}, {checkpoint.architecture}, {len(checkpoint.tensors)} tensors")
            told(f"space {manifest.space.id[:16]}")
        with step("pixels") as told:
            pictures = parity.gate_pictures(checkpoint.spec)
            equal = parity.prove_pixels(checkpoint.processor, pictures)
            told(f"{equal} of {len(pictures)} pictures equal the checkpoint's processor to the last bit")
        with step("trace") as told:
            traced = trace.trace(checkpoint, folder)
            told(f"optimum traced {len(traced.graph.node)} nodes at opset {trace.OPSET}")
        with step("compose") as told:
            graph = trace.compose(traced, checkpoint.spec, checkpoint.dimensions)
            files = trace.write_graph(graph, folder / publish.graph_name("fp32"))
            size = sum(file.stat().st_size for file in files) / 1e6
            told(f"pixels uint8[N, {checkpoint.spec.size}, {checkpoint.spec.size}, 3]")
            told(f"embedding float32[N, {checkpoint.dimensions}], unit length; {size:.1f} MB")
        with step("vectors") as told, Encoder(Artifact(folder, manifest), "fp32", "cpu") as encoder:
            measured = parity.prove_vectors(checkpoint, encoder, pictures)
            told(f"lowest cosine to torch {measured.image.min_cosine:.10f}, alone and in a batch")
            told(
                "bit-identical in any"
                if measured.image.batch_identical
                else "NOT bit-identical in batches on this machine"
            )
            chosen = publish.choose_goldens(pictures)
            vectors = dict(zip((one.name for one in chosen), parity.encode_alone(encoder, chosen), strict=True))
        with step("goldens") as told:
            goldens = publish.write_goldens(folder, chosen, vectors, "fp32")
            told(", ".join(golden.picture.removeprefix("goldens/") for golden in goldens))
        with step("publish") as told:
            if checkpoint.card is not None:
                (folder / "README.md").write_bytes(checkpoint.card)
            variant = msgspec.structs.replace(manifest.precisions["fp32"], parity={"cpu": measured})
            publish.write_manifest(
                folder,
                msgspec.structs.replace(
                    manifest, precisions={"fp32": variant}, goldens=goldens, files=publish.digests(folder)
                ),
            )
            lowest = publish.read_back(folder, "fp32")
            put(folder, place)
            told(f"read back (lowest golden cosine {lowest:.10f}), now {place}")
    return place


def _need_the_extra() -> None:
    try:
        for package in ("torch", "transformers", "safetensors", "onnx", "optimum.exporters.onnx"):
            importlib.import_module(package)
    except ImportError as exc:
        raise ExportRefused(
            f"The export needs packages that the server does without ({exc.name} is missing): "
            "run .venv/bin/python -m pip install -c constraints.txt -e '.[export]' in a checkout."
        ) from exc


if __name__ == "__main__":
    # A service manager's stop cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
