"""Who reads a case rightly, and whether Twinlens keeps what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bench.decoders.case import Case, Should, on_white
from bench.decoders.worker import Answer

OURS = "Twinlens"
AMONG_READERS = 3
"""How far two readers of a lossy file may lie apart, of 255: they round and enlarge colours each in their way."""


class Verdict(Enum):
    """What a reader made of a case."""

    RIGHT = "right"
    DIFFERS = "differs"
    READ = "read"
    """And nobody knows whether rightly: there are neither samples to expect nor two other readers that agree."""
    REFUSED = "refused"
    FAILED = "failed"
    """It died, hung, or raised what is no refusal."""


@dataclass(frozen=True, slots=True)
class Row:
    """A case with what each reader made of it."""

    case: Case
    answers: Mapping[str, Answer]
    verdicts: Mapping[str, Verdict]
    distances: Mapping[str, int]
    """The largest difference of a sample from what is right, on white; 256 for other sides. Where that is known."""
    fault: str | None = None
    """What Twinlens does that it promises not to."""

    @property
    def named(self) -> str | None:
        """The sentence by which Twinlens declines it, if it does and names what it is."""
        ours = self.answers.get(OURS)
        return ours.text if ours is not None and ours.status == "refused" and ours.named else None


def judge(case: Case, answers: Mapping[str, Answer]) -> Row:
    """`answers` by reader; Twinlens need not be among them."""
    seen = {name: on_white(one.samples) for name, one in answers.items() if one.samples is not None}
    others = {name: samples for name, samples in seen.items() if name != OURS}
    lossy = case.near > AMONG_READERS
    among = AMONG_READERS if lossy else max(case.near, 1)
    agreed = _agreed(others, among)
    right, near = (on_white(case.expected), case.near) if case.expected is not None else (agreed, among)
    distances = {name: distance(samples, right) for name, samples in seen.items()} if right is not None else {}
    verdicts = {name: _verdict(answer, distances.get(name), near) for name, answer in answers.items()}
    fault = None
    if OURS in answers:
        # What most see counts where it is right: none but Twinlens turns a JPEG by its XMP.
        trusted = lossy and agreed is not None and (right is None or distance(agreed, right) <= near)
        apart = distance(seen[OURS], agreed) if trusted and agreed is not None and OURS in seen else 0
        readers = sum(verdicts[name] in (Verdict.RIGHT, Verdict.READ) for name in others)
        fault = _fault(case, answers[OURS], verdicts[OURS], readers, apart > among)
    return Row(case, answers, verdicts, distances, fault)


def distance(samples: NDArray[np.uint8], right: NDArray[np.uint8]) -> int:
    """The largest difference of a sample, of 255; 256 where the sides differ."""
    if samples.shape != right.shape:
        return 256
    return int(np.abs(samples.astype(np.int16) - right).max(initial=0))


def _agreed(others: Mapping[str, NDArray[np.uint8]], near: int) -> NDArray[np.uint8] | None:
    """What the most of the other readers see, two at least."""
    best: list[NDArray[np.uint8]] = []
    for samples in others.values():
        like = [one for one in others.values() if distance(one, samples) <= near]
        if len(like) > max(1, len(best)):
            best = like
    return best[0] if best else None


def _verdict(answer: Answer, apart: int | None, near: int) -> Verdict:
    if answer.status == "read":
        return Verdict.READ if apart is None else Verdict.RIGHT if apart <= near else Verdict.DIFFERS
    return Verdict.REFUSED if answer.status == "refused" else Verdict.FAILED


def _fault(case: Case, ours: Answer, verdict: Verdict, others: int, alone: bool) -> str | None:
    if verdict is Verdict.FAILED:
        return f"{ours.status}: {ours.text}"
    if ours.wrote:
        return f"wrote to standard error: {ours.wrote.splitlines()[0]}"
    if case.should is Should.BE_REFUSED:
        return None if verdict is Verdict.REFUSED else "read, though pixels are missing"
    if verdict is Verdict.DIFFERS:
        return "other pixels than expected"
    if alone:
        return "other pixels than the other readers see"
    if verdict is Verdict.REFUSED and not ours.named and (case.should is Should.BE_READ or others > 1):
        return f"refused: {ours.text}"
    if verdict is Verdict.REFUSED and case.should is Should.BE_READ:
        return f"refused by name, but promised: {ours.text}"
    return None
