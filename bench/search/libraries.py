"""Libraries beside the databases: each runs in a process and an environment of its own, `library_app.py` in it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import environments
from bench.search.systems import Turn
from bench.search.workload import LIMIT, Query, Workload


@dataclass(frozen=True)
class Library:
    """One that runs in a process and an environment of its own, and measures itself on request."""

    name: str
    title: str
    about: str
    requirements: tuple[str, ...]
    most_rows: int


LIBRARIES = (
    Library(
        "faiss",
        "faiss, in the process",
        "faiss-cpu on one thread for each connection, an index for each client and no database: HNSW (M 16, "
        "efSearch 200) from 4,000 vectors on, flat below. The limit of what can be had.",
        ("faiss-cpu==1.15.1", "numpy"),
        10**9,
    ),
    Library(
        "milvus-lite",
        "Milvus Lite",
        "One collection, HNSW (M 16, ef 200), the client as a filter; each connection a thread. Meant by its makers "
        "for trying things out: Milvus proper is a server of its own.",
        ("milvus-lite==3.2.2", "pymilvus==3.0.2", "setuptools<82", "numpy"),
        200_000,
    ),
)


class Peer:
    """A library that runs."""

    def __init__(self, library: Library, process: subprocess.Popen[str], queries: dict[int, list[Query]]) -> None:
        self.name, self.title, self.about = library.name, library.title, library.about
        self._process = process
        self._sizes = {id(asked): size for size, asked in queries.items()}

    def measure(self, queries: Sequence[Query], connections: int, seconds: float, least: int) -> Turn:
        task = {"size": self._sizes[id(queries)], "connections": connections, "seconds": seconds, "least": least}
        answer = exchange(self._process, task)
        return Turn(answer["milliseconds"], answer["seconds"], [(n, rows) for n, rows in answer["answers"]])


def exchange(process: subprocess.Popen[str], message: dict[str, Any]) -> dict[str, Any]:
    """One line there, one back. Raises RuntimeError when the process has ended instead."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise RuntimeError(f"it ended with status {process.wait(30)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextlib.contextmanager
def _ends(process: subprocess.Popen[str]) -> Any:
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_library(
    stack: contextlib.ExitStack,
    library: Library,
    workload: Workload,
    queries: dict[int, list[Query]],
    cache: Path,
    *,
    install: bool,
) -> Peer | str:
    """The library at work, or the reason why it is left out."""
    if workload.rows > library.most_rows:
        return f"left out above {library.most_rows:,} rows: filling it takes too long"
    folder = cache / library.name
    python = folder / "bin" / "python"
    if not install and not (folder / "installed.txt").exists():
        return "not installed; --install-peers does that"
    try:
        python = environments.make(folder, library.requirements)
        asked = workload.folder / f"asked-{library.name}.npz"
        arrays: dict[str, Any] = {"owner": workload.owner}
        for size, some in queries.items():
            arrays[f"clients-{size}"] = np.array([one.client for one in some])
            arrays[f"vectors-{size}"] = np.stack([one.vector for one in some])
        np.savez(asked, **arrays)
        stack.callback(asked.unlink, missing_ok=True)
        process = subprocess.Popen(  # noqa: S603 - the environment's own interpreter and our script
            [str(python), str(Path(__file__).parent / "library_app.py"), library.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        stack.enter_context(_ends(process))
        shape = [workload.rows, workload.dimensions]
        exchange(process, {"vectors": str(workload.path), "shape": shape, "asked": str(asked), "limit": LIMIT})
    except (RuntimeError, OSError) as exc:
        return " ".join(str(exc).split())[-300:]
    return Peer(library, process, queries)
