"""Entries to vectors on the CPU: a session, and the memory into which its batches are copied.

A runner runs a batch for the encoder. It belongs to one thread at a time, since its buffers are used again for the next
batch; several runners, each with a session of its own, run side by side. `server.inference.cuda` has runners for CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.artifact.artifact import Vectors

OUTPUT = "embedding"
"""What every tower's graph calls its vectors."""

_DTYPES: dict[str, type[np.generic]] = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Session(Protocol):
    """The part of an ONNX Runtime session that is used here."""

    def run(self, outputs: Sequence[str], given: dict[str, NDArray[Any]], /) -> Sequence[Any]: ...

    def get_inputs(self) -> Sequence[Any]: ...


class Runner(Protocol):
    """Runs batches, for one thread at a time."""

    @property
    def most(self) -> int:
        """How many entries a batch may have."""

    def __call__(self, entries: Sequence[NDArray[Any]], /) -> Vectors:
        """N entries of one shape, uint8[S, S, 3] or int64[L], to float32[N, D]; 1 <= N <= most.

        The array is the caller's own. Raises ValueError for another N or shape, and whatever ONNX Runtime raises.
        """

    def close(self) -> None:
        """Free what the runner holds; it can run nothing any more. A second call does nothing."""


class PlainRunner:
    """A session's own `run`. Pictures go straight into a buffer that is kept; texts, of any length, are stacked."""

    def __init__(self, session: Session, most: int) -> None:
        """`most`: how many entries a batch may have."""
        self.most = most
        self._session: Session | None = session
        (self._name, shape, dtype) = signature(session)
        sizes = [size for size in shape if size is not None]
        # The graph itself says whether all entries have one shape.
        self._buffer = np.empty((most, *sizes), dtype) if len(sizes) == len(shape) else None

    def __call__(self, entries: Sequence[NDArray[Any]], /) -> Vectors:
        check(entries, self.most)
        if self._buffer is None:
            batch = np.stack(entries)
        else:
            batch = self._buffer[: len(entries)]
            lay(entries, batch)
        if self._session is None:
            raise RuntimeError("the runner is closed")
        (vectors,) = self._session.run([OUTPUT], {self._name: batch})
        found: Vectors = vectors
        return found

    def close(self) -> None:
        self._session = None


def signature(session: Session) -> tuple[str, tuple[int | None, ...], type[np.generic]]:
    """Name, shape without N and dtype of a tower's one input; None is a size that the caller chooses."""
    (node,) = session.get_inputs()
    return node.name, tuple(size if isinstance(size, int) else None for size in node.shape[1:]), _DTYPES[node.type]


def check(entries: Sequence[NDArray[Any]], most: int) -> None:
    """Raises ValueError unless there are 1 to `most` entries."""
    if not 1 <= len(entries) <= most:
        raise ValueError(f"a batch has 1 to {most} entries, not {len(entries)}")


def lay(entries: Sequence[NDArray[Any]], rows: NDArray[Any]) -> None:
    """Copy each entry into its row. Raises ValueError for one of another shape, and TypeError for another dtype."""
    for row, entry in zip(rows, entries, strict=True):
        if entry.shape != row.shape:  # `copyto` would repeat a smaller one over the entire row
            raise ValueError(f"an entry has the shape {row.shape}, not {entry.shape}")
        np.copyto(row, entry)
