"""python -m bench.gpu (bench/gpu.sh): what a GPU makes of an artifact's image tower.

One after the other, each as far as what is installed allows, and each with what the GPU did meanwhile:

- forward: ready pixels through our runners, in batches of each size, with and without CUDA graphs; copies included;
- embedding: JPEGs of 640 x 480 to vectors in this process, through the product's own pool, batcher and runners;
- HTTP: the product's own /embed-image under granian, without a catalogue, so that no database is needed;
- yardstick: the checkpoint's tower in torch.compile on the same GPU, on pixels that lie on it already.

`--device cpu` runs all of it on the CPU, to try the benchmark itself. No figure of that is a GPU's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu import forward, watch, yardstick
from bench.gpu.aims import aims
from bench.gpu.setting import Setting
from bench.gpu.watch import GpuWatch
from server.artifact.artifact import Artifact
from server.errors import TwinlensError
from server.inference.cuda import CudaUnusable

BATCHES = (1, 2, 4, 8, 16, 32, 64)
PARTS = ("forward", "embedding", "http", "yardstick")

_NOT_A_GPU = "*** This runs on the CPU, to try the benchmark. These are NOT figures of a GPU. ***"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down; the exit code is 2 when it could not begin."""
    parser = argparse.ArgumentParser("python -m bench.gpu", description=(__doc__ or "").split("\n\n")[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precisions", help="comma-separated (fp16 and fp32, of these what the artifact has)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu tries the benchmark itself")
    parser.add_argument("--gpu", type=int, default=0, help="which GPU; HTTP uses all that are visible (0)")
    parser.add_argument("--batches", type=_counts, default=BATCHES, help="batch sizes (1,2,4,8,16,32,64)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (2)")
    parser.add_argument("--callers", type=int, default=256, help="callers over HTTP at once (256)")
    parser.add_argument("--workers", type=_counts, help="worker processes over HTTP, to try in turn (1,2,4)")
    parser.add_argument("--generators", type=int, default=max(1, cores // 8), help="load generators (a core in eight)")
    parser.add_argument("--tensorrt", action="store_true", help="with TensorRT instead of CUDA graphs")
    parser.add_argument(
        "--cache", type=Path, help="folder for what may be kept, as TensorRT's engines (a temporary one)"
    )
    parser.add_argument("--checkpoint", type=Path, help="the artifact's checkpoint, for the yardstick")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="a Python with torch and transformers (this one)"
    )
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(given)
    parts = (asked.only or ",".join(PARTS)).split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    try:
        artifact = Artifact.read(asked.model)
        with tempfile.TemporaryDirectory(prefix="twinlens-bench-", ignore_cleanup_errors=True) as folder:
            setting = Setting(
                artifact=artifact,
                precisions=_precisions(artifact, asked.precisions),
                device=asked.device,
                gpu=asked.gpu,
                batches=asked.batches,
                seconds=asked.seconds,
                callers=asked.callers,
                workers=asked.workers or ((1, 2, 4) if asked.device == "cuda" else (1,)),
                generators=asked.generators,
                tensorrt=asked.tensorrt,
                cache=asked.cache or Path(folder),
                checkpoint=asked.checkpoint,
                torch_python=asked.torch_python,
            )
            report = measure(setting, parts, ["python", "-m", "bench.gpu", *given])
    except (TwinlensError, CudaUnusable) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(one) for one in text.split(",") if int(one) > 0}))


def _precisions(artifact: Artifact, given: str | None) -> list[str]:
    """Raises ArtifactInvalid for one that the artifact lacks."""
    if given is None:
        known = artifact.manifest.precisions
        return [name for name in ("fp16", "fp32") if name in known] or list(known)
    return [precision for precision in given.split(",") if artifact.variant(precision)]


def measure(setting: Setting, parts: Sequence[str], command: Sequence[str]) -> dict[str, Any]:
    """The report of all parts that can be measured, printed as it grows. Raises CudaUnusable, TwinlensError's kinds."""
    about = watch.about(setting.gpu) if setting.on_gpu else None
    artifact, precision = setting.artifact, setting.precisions[0]
    missing: dict[str, str] = {}
    report: dict[str, Any] = {
        "machine": machine.describe() | ({"gpu": about} if about else {}),
        "command": list(command),
        "artifact": {
            "name": artifact.manifest.name,
            "model": artifact.manifest.model,
            "precision": precision,
            "device": f"cuda:{setting.gpu}" if setting.on_gpu else "cpu",
            "space": artifact.space(precision).id,
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "tensorrt": setting.tensorrt,
        "missing": missing,
    }
    _show(machine.sentence() + (f"; {about}" if about else ""))
    _show(f"{artifact.manifest.model} ({', '.join(setting.precisions)})")
    if not setting.on_gpu:
        _show(_NOT_A_GPU)
    with GpuWatch(setting.gpu if setting.on_gpu else None) as gpu:
        if "forward" in parts:
            _show("forward, pixels to vectors, copies included:")
            report["forward"] = forward.measure(setting, gpu, _show)
        # What the next two need may not be installed.
        if "embedding" in parts:
            with _noting(missing, "embedding"):
                from bench.gpu import embedding

                report["embedding"] = embedding.measure(setting, gpu)
                _show(_line_of_embedding(report["embedding"], precision))
        if "http" in parts:
            with _noting(missing, "http"):
                from bench.gpu import over_http

                report["http"] = []
                for workers in setting.workers:
                    report["http"].append(over_http.measure(setting, workers, gpu))
                    _show(_line_of_http(report["http"][-1], precision))
        if "yardstick" in parts:
            with _noting(missing, "yardstick"):
                if setting.checkpoint is None:
                    raise RuntimeError("no --checkpoint was given")
                report["yardstick"] = yardstick.measure(setting, setting.checkpoint)
                for row in report["yardstick"]:
                    rate = f"{row['picturesPerSecond']:>9,.1f} pictures/s"
                    _show(f"yardstick, {row['how']}, batch {row['batch']:>3}: {rate}")
    for part, why in missing.items():
        _show(f"{part} was not measured: {why}")
    report["aims"] = aims(report, on_gpu=setting.on_gpu)
    _show("aims, on an H100:")
    for aim in report["aims"]:
        found = "" if aim["found"] is None else f"{aim['found']:,} - "
        _show(f"  {aim['about']}, at least {aim['aim']:,}: {found}{aim['verdict']}")
    if not setting.on_gpu:
        _show(_NOT_A_GPU)
    return report


def _show(line: str) -> None:
    print(line, flush=True)


def _line_of_embedding(row: Mapping[str, Any], precision: str) -> str:
    return (
        f"embedding, JPEGs to vectors ({precision}): {row['picturesPerSecond']:,.1f} pictures/s, "
        f"{row['coresBusy']:.1f} cores busy{watch.shown(row['gpu'])}"
    )


def _line_of_http(row: Mapping[str, Any], precision: str) -> str:
    return (
        f"HTTP, /embed-image ({precision}), {row['workers']} workers, {row['callers']} callers: "
        f"{row['picturesPerSecond']:,.1f} pictures/s, p50 {row['p50']:.0f}, p99 {row['p99']:.0f} ms, "
        f"{row['serverCoresBusy']:.1f} cores busy{watch.shown(row['gpu'])}"
    )


@contextlib.contextmanager
def _noting(missing: dict[str, str], part: str) -> Iterator[None]:
    """What keeps a part from being measured is noted, and the others go on."""
    try:
        yield
    except ImportError as exc:
        missing[part] = f"{exc.name} is not installed"
    except RuntimeError as exc:
        missing[part] = str(exc)
