"""Graphs optimised for this very machine: ONNX Runtime makes them once, and they are kept in the data folder.

The graphs in an artifact are portable. Before ONNX Runtime runs a graph, it fuses operators and arranges the weights
for the processor at hand. That costs time at every start, and memory in every session, as each would hold its own copy.
Kept in a file, the arranged weights are mapped, so that the sessions of all processes share them, page by page.

The copies are a cache: keyed by the graph's digest, the runtime and the processor, and made when missing. They are
trusted no further than the goldens, which run through them at every start. Deleting the folder costs nothing but time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import time

import onnxruntime as ort

# Copies for other artifacts and precisions stay for a while: an operator may go back to one.
_KEPT = 6

_LONGEST_MAKING_SECONDS = 3600.0

_WEIGHTS = "weights.bin"
_GRAPH = "graph.onnx"

_log = logging.getLogger(__name__)


def key(digest: str) -> str:
    """What an optimised copy depends on, as a short name: the graph's digest, the runtime and this processor."""
    parts = ("twinlens graphs 1", digest, ort.__version__, platform.machine(), _processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def optimised(graph: Path, digest: str, folder: Path, check: Callable[[], None]) -> Path | None:
    """The copy of a graph for the CPU at hand, made when it is missing; None when it cannot be made.

    `digest`: what identifies the graph. `check` is called before a copy is made, and raises where the graph's file is
    not the one with that digest. Other processes may do the same at the same time.
    """
    place = folder / key(digest)
    if not (place / _GRAPH).exists():
        check()
        try:
            _make(graph, place)
        except Exception as exc:  # no room, no permission, a graph that ONNX Runtime cannot write out
            _log.warning("The optimised graph cannot be kept in %s, so each start makes it again: %s", folder, exc)
            return None
        _prune(folder, place)
    return place / _GRAPH


def forget(copy: Path) -> None:
    """Delete a copy that does not load."""
    shutil.rmtree(copy.parent, ignore_errors=True)


def _make(graph: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # it would warn that the copy is for this machine only, as it should be
        options.optimized_model_filepath = str(partial / _GRAPH)
        for entry, value in (
            ("session.optimized_model_external_initializers_file_name", _WEIGHTS),
            ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
            # The weights as the kernels need them, rather than as the graph has them.
            ("session.save_external_prepacked_constant_initializers", "1"),
        ):
            options.add_session_config_entry(entry, value)
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for file in partial.iterdir():  # on the disk before it has its name: a crash must not leave half a copy
            with file.open("rb") as written:
                os.fsync(written.fileno())
        try:
            partial.rename(place)
        except OSError:
            if not (place / _GRAPH).exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _prune(folder: Path, latest: Path) -> None:
    """Keep the copies that were made last. A copy that a session uses stays mapped after its file is deleted."""
    others = [one for one in folder.iterdir() if one.is_dir() and one != latest]
    copies = sorted((one for one in others if "." not in one.name), key=_age, reverse=True)
    # A copy that is being made has a dot in its name; after so long, the process that made it has died.
    left = [one for one in others if "." in one.name and _age(one) < time() - _LONGEST_MAKING_SECONDS]
    for old in (*copies[_KEPT - 1 :], *left):
        shutil.rmtree(old, ignore_errors=True)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _processor() -> str:
    """Model and instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))))
