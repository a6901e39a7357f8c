"""What passes between the stages: batches of rows, each a record of its own, so that one is lost and done again alone.

A record is one row of an Arrow table: the number of the batch, the batch as a pickle, and the pixels of its pictures as
they are, which are not copied on their way through the object store.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server import errors
from server.errors import TwinlensError
from server.ingest.making import Made


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error of ours, in a form that passes between processes: its class, and what it has."""

    kind: str
    sentence: str
    about: dict[str, Any]

    @classmethod
    def of(cls, error: TwinlensError) -> Trouble:
        return cls(type(error).__name__, error.sentence, dict(vars(error)))

    def error(self) -> TwinlensError:
        """The error again."""
        kind = cast("type[TwinlensError]", getattr(errors, self.kind))
        made = kind.__new__(kind)
        made.args = (self.sentence,)
        vars(made).update(self.about)
        return made


@dataclass(frozen=True, slots=True)
class Told:
    """What has become of a row. `at`: its place in the feed."""

    at: int
    what: Literal["unchanged", "written", "failed"]
    embedded: bool = False
    added: bool = False
    replaced: bool = False
    trouble: Trouble | None = None
    """Why it failed."""


@dataclass(slots=True)
class ToEmbed:
    """A row whose picture waits for its vector."""

    made: Made
    otherwise: Made | None
    """What is written of the row where the model fails on the picture."""


@dataclass(slots=True)
class Batch:
    """Rows on their way."""

    number: int
    to_embed: list[ToEmbed] = field(default_factory=list)
    """In the order of the pixels."""
    to_write: list[Made] = field(default_factory=list)
    embedded: set[int] = field(default_factory=set)
    """The places in the feed of the rows whose pictures the model has seen."""
    unneeded: list[str] = field(default_factory=list)
    """Keys of objects that were stored for rows which have failed since."""
    told: list[Told] = field(default_factory=list)
    products_made: int = 0
    trouble: Trouble | None = None
    """What is no row's fault, and ends the run."""


def packed(batch: Batch, pixels: NDArray[np.uint8] | None = None) -> pa.Table:
    """A record; `pixels`: uint8[N, S, S, 3]."""
    columns = {
        "number": pa.array([batch.number], pa.int64()),
        "batch": pa.array([pickle.dumps(batch, protocol=5)], pa.large_binary()),
        "pixels": pa.array([b"" if pixels is None else pixels.tobytes()], pa.large_binary()),
    }
    return pa.table(columns)


def batch_of(record: pa.Table) -> Batch:
    batch: Batch = pickle.loads(record.column("batch")[0].as_py())  # noqa: S301 - packed by a worker of this very run
    return batch


def pixels_of(record: pa.Table, count: int, size: int) -> NDArray[np.uint8]:
    """The pixels of so many pictures of this size: uint8[N, S, S, 3], to be read only."""
    return np.frombuffer(record.column("pixels")[0].as_buffer(), np.uint8).reshape(count, size, size, 3)


def numbered(numbers: range) -> pa.Table:
    """Records that say no more than a number: that of a batch whose rows are still to be asked for."""
    return pa.table({"number": pa.array(numbers, pa.int64())})


def number_of(record: pa.Table) -> int:
    return int(record.column("number")[0].as_py())
