"""The spans of batches. A batch serves many requests, and a span lies below one other: links say the rest.

A batch's span lies below that of its first entry that is traced, and links those of all of them. Below each other one
lies a span `encode` of its own for the same time, which links the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter

from server.tracing import NOTHING, Span, current, within


@dataclass(slots=True)
class Turn:
    """What a trace says of one entry: how long it waits, and in which batch it is encoded."""

    span: Span
    """Of what asks for the entry's vector."""
    queued_at: float
    began: float | None = None
    """When its batch began; set by the runner's thread, as is `batch`."""
    batch: Span = NOTHING
    first: bool = False
    """Whether the batch's span lies below this one's."""

    @classmethod
    def begin(cls, queued_at: float) -> Turn | None:
        """None where nothing is traced."""
        around = current()
        return cls(around, queued_at) if around else None

    def end(self, seconds: float | None) -> None:
        """It has its vector, after so many seconds of its batch; or, without them, it has none and waits no more."""
        now = perf_counter()
        began = now if self.began is None else self.began
        queue = self.span.child("queue", began=self.queued_at)
        if self.began is None:
            queue.fail("left")
        queue.end(began)
        if self.batch and not self.first:
            encode = self.span.child("encode", began=began, links=[self.batch])
            encode.end(now if seconds is None else began + seconds)


def batch(turns: Sequence[Turn | None], began: float) -> AbstractContextManager[Span, None]:
    """A span for the block in which these entries are encoded; None is one that is not traced."""
    traced = [turn for turn in turns if turn is not None]
    if not traced:
        return NOTHING
    of_all = [turn.span for turn in traced]
    made = of_all[0].child("batch", {"twinlens.batch.size": len(turns)}, began=began, links=of_all)
    traced[0].first = True
    for turn in traced:
        turn.began, turn.batch = began, made
    return within(made)
