"""How many pictures and texts a second an artifact embeds here: each precision, device and batch size.

All graphs are loaded first and measured in turns, so that other work on the machine slows all of them alike.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np

from export.errors import ExportRefused
from export.proof.devices import device, devices
from export.table import columns
from server.artifact.artifact import Artifact, Device, Precision, Tokens
from server.errors import BadSetting, EncoderFailed
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.text import Tokenizer

BATCHES = (1, 8)
SECONDS = 2.0
_ROUNDS = 5

TEXTS = (
    "red shoe",
    "black leather handbag",
    "wooden chair",
    "a photo of a cat on a sofa",
    "running shoes for men, size 42",
    "usb-c cable 2 m",
    "white ceramic teapot with a bamboo handle",
    "lamp",
    "blue children's bicycle",
    "stainless steel kitchen knife, 20 cm blade, dishwasher safe",
)
"""Texts such as people type into a shop's search box."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How quick one tower is: the median of the rounds, the slowest and the fastest."""

    artifact: str
    """The artifact's name in a comparison; empty where there is only one."""
    tower: str
    """`pictures` or `texts`"""
    precision: str
    device: str
    batch: int
    per_second: float
    slowest: float
    fastest: float
    milliseconds: float
    """One call with its batch: the median."""


@dataclass(slots=True)
class _Task:
    artifact: str
    tower: str
    precision: str
    device: str
    batch: int
    call: Callable[[], object]
    rates: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        calls, start = 0, perf_counter()
        while True:
            self.call()
            calls += 1
            if (passed := perf_counter() - start) >= seconds:
                break
        self.rates.append(calls * self.batch / passed)

    def rate(self) -> Rate:
        median = statistics.median(self.rates)
        return Rate(
            self.artifact,
            self.tower,
            self.precision,
            self.device,
            self.batch,
            round(median, 2),
            round(min(self.rates), 2),
            round(max(self.rates), 2),
            round(1000 * self.batch / median, 2),
        )


def bench(
    folder: Path,
    precisions: Sequence[str] = (),
    on: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    *,
    as_json: bool = False,
) -> str:
    """Measure an artifact: a table, or JSON. By default all its precisions, on every device here (`on` names devices).

    `seconds` is spent on each line of the table. Raises ExportRefused and ArtifactInvalid.
    """
    rates = measure({"": Artifact.read(folder)}, precisions, on, batches, seconds)
    return json.dumps([asdict(rate) for rate in rates], indent=2) if as_json else table(rates)


def measure(
    artifacts: Mapping[str, Artifact],
    precisions: Sequence[str] = (),
    on: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
) -> list[Rate]:
    """Measure artifacts, given by name, against each other, in turns; by default every precision on every device.

    Raises ExportRefused and ArtifactInvalid.
    """
    if not batches or any(not 1 <= batch <= 1024 for batch in batches):
        raise ExportRefused("A batch holds 1 to 1024 pictures or texts.")
    if not 0 < seconds <= 600:
        raise ExportRefused("Each line is measured for more than 0 and at most 600 seconds.")
    with ExitStack() as opened:
        tasks = []
        for name, artifact in artifacts.items():
            for asked in precisions or artifact.manifest.precisions:
                artifact.variant(asked)
                precision = next(one for one in artifact.manifest.precisions if one == asked)
                for place in [device(one) for one in on] or devices(artifact, precision):
                    tasks += _tasks(name, artifact, precision, place, batches, opened)
        for task in tasks:
            _warm(task)
        for _ in range(_ROUNDS):
            for task in tasks:
                task.run(seconds / _ROUNDS)
    return [task.rate() for task in tasks]


def _warm(task: _Task) -> None:
    # Twice: the first call allocates, and CUDA also chooses its kernels then.
    try:
        task.call()
        task.call()
    except EncoderFailed as exc:
        raise ExportRefused(
            f"The {task.precision} graph for {task.tower} does not run on {task.device} in batches "
            f"of {task.batch}: {exc.__cause__ or exc.sentence}"
        ) from exc


def _tasks(
    name: str, artifact: Artifact, precision: Precision, place: Device, batches: Sequence[int], opened: ExitStack
) -> list[_Task]:
    try:
        pictures = opened.enter_context(Encoder(artifact, precision, place))
        words = None
        if artifact.manifest.text is not None and artifact.variant(precision).text is not None:
            words = opened.enter_context(TextEncoder(artifact, precision, place))
    except BadSetting as exc:  # its own sentence names the server's settings
        raise ExportRefused(f"The {precision} graphs of {artifact.manifest.name} do not load on {place} here.") from exc
    tasks = [
        _Task(name, "pictures", precision, place, batch, _of_pictures(artifact, pictures, batch)) for batch in batches
    ]
    if words is not None:
        tasks += [_Task(name, "texts", precision, place, batch, _of_texts(artifact, words, batch)) for batch in batches]
    return tasks


def _of_pictures(artifact: Artifact, encoder: Encoder, batch: int) -> Callable[[], object]:
    """Encode a golden's pixels, over and over."""
    golden = artifact.folder / artifact.manifest.goldens[0].pixels
    try:
        pixels = np.load(golden, allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise ExportRefused(f"{golden} cannot be read: {exc}.") from exc
    together = np.repeat(pixels[None], batch, axis=0)
    return lambda: encoder.encode(together)


def _of_texts(artifact: Artifact, encoder: TextEncoder, batch: int) -> Callable[[], object]:
    """Encode short texts, each at its own length, one after the other; they are tokenised before."""
    tower = artifact.manifest.text
    if tower is None:
        raise ExportRefused(f"{artifact.manifest.name} has no text tower.")
    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    rows: list[Tokens] = [np.repeat(tokenizer.tokens(text)[None], batch, axis=0) for text in TEXTS]
    turn = cycle(rows)
    # One text a call, in turn: callers send texts of different lengths.
    return lambda: encoder.encode(next(turn))


def table(rates: Sequence[Rate]) -> str:
    """A line for each rate; the artifact is named where there are several."""
    several = len({rate.artifact for rate in rates}) > 1
    head = ["tower", "precision", "device", "batch", "a second", "slowest", "fastest", "ms a call"]
    rows = [
        [
            rate.tower,
            rate.precision,
            rate.device,
            str(rate.batch),
            f"{rate.per_second:.1f}",
            f"{rate.slowest:.1f}",
            f"{rate.fastest:.1f}",
            f"{rate.milliseconds:.1f}",
        ]
        for rate in rates
    ]
    if several:
        head = ["artifact", *head]
        rows = [[rate.artifact, *row] for rate, row in zip(rates, rows, strict=True)]
    return "\n".join(columns([head, *rows], right=range(len(head) - 5, len(head))))
