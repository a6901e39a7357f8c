"""What all parts of a run share: the model of each client, the pictures, the counts, and when nothing can be late."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from bench import pictures
from bench.crash.checks import Fault
from bench.crash.model import Catalogue
from bench.crash.operations import CLIENTS, PRODUCTS, SLOTS, Operation
from bench.crash.talk import Answer

SLACK = 8.0
"""Seconds beyond its bound after which an answer counts as late: the machine is busy with what is started again."""

# Beyond the deadline: a statement may wait for its connection before it begins, and some time for a processor.
_STILL_CARRIED_OUT = 7.0
_MOST_FAULTS = 200


@dataclass(slots=True)
class Tally:
    """What was counted."""

    operations: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    repeated: int = 0
    acknowledged: int = 0
    """Writes that were answered as made."""
    unknown: int = 0
    """Writes of which the answer, or its absence, did not say whether they were made."""
    settled: int = 0
    """Products of which a later read showed how such a write had ended."""
    ingests: Counter[str] = field(default_factory=Counter)
    """Runs of `ingest`, by how each ended."""
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Others:
    catalogues: Sequence[Catalogue]

    def __contains__(self, media_id: object) -> bool:
        return any(media_id in catalogue.media for catalogue in self.catalogues)


class World:
    """One run. `deadline`: that of the server, in seconds."""

    def __init__(self, port: int, deadline: float, journal: Path | None = None) -> None:
        self.port = port
        self.deadline = deadline
        self.catalogues = {client: Catalogue(client) for client in CLIENTS}
        self.tally = Tally()
        self.began = perf_counter()
        self.ended = False
        """Whether no further operation shall begin."""
        self.changing_space = False
        """Whether pictures that are added now may lack their vector in the space that is searched next."""
        self.at_work = 0
        """Parts that are broken at this moment."""
        self._calm_since = self.began
        self._pictures = [one.data for one in pictures.demo()[: PRODUCTS * SLOTS]]
        self._journal: IO[str] | None = journal.open("w") if journal else None

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return perf_counter() - self.began

    def picture(self, product: int, slot: int) -> bytes:
        """The file of a place. Clients have the same ones, so that another's is as near as can be."""
        return self._pictures[product * SLOTS + slot]

    def slot_of(self, product: int, digest: bytes) -> int | None:
        """The place that the picture with this SHA-256 belongs to."""
        digests = [hashlib.sha256(self.picture(product, slot)).digest() for slot in range(SLOTS)]
        return digests.index(digest) if digest in digests else None

    def foreign(self, client: str) -> Container[str]:
        """The ids of all pictures that other clients ever had."""
        return _Others([catalogue for name, catalogue in self.catalogues.items() if name != client])

    # --- what is broken now -------------------------------------------------------------------------------------------

    def breaking(self) -> None:
        self.at_work += 1

    def mended(self) -> None:
        self.at_work -= 1
        self._calm_since = perf_counter()

    def surely_over(self, sent: float) -> bool:
        """Whether a write that was sent then, and that nobody answered, has been carried out by now if it ever will be.

        What PostgreSQL has not read when it is paused is carried out when it goes on, so a pause delays that.
        """
        last = max(sent, self._calm_since)
        return self.at_work == 0 and perf_counter() - last > self.deadline + _STILL_CARRIED_OUT

    # --- counting -----------------------------------------------------------------------------------------------------

    def fault(self, kind: str, text: str) -> None:
        self.tally.kinds[kind] += 1
        if len(self.tally.faults) < _MOST_FAULTS:
            self.tally.faults.append(Fault(kind, text, round(self.now, 2)))
        self.note("fault", kind=kind, text=text)

    def count(self, operation: Operation, answer: Answer, note: str = "") -> None:
        self.tally.operations[operation.kind] += 1
        self.tally.answers[answer.label] += 1
        self.note(
            "operation",
            client=operation.client,
            number=operation.number,
            kind=operation.kind,
            product=operation.product,
            slot=operation.slot,
            label=answer.label,
            seconds=round(answer.seconds, 3),
            **({"note": note} if note else {}),
        )

    def note(self, event: str, **what: Any) -> None:
        """A line of the journal, where one is kept."""
        if self._journal is not None:
            self._journal.write(json.dumps({"at": round(self.now, 3), "event": event, **what}) + "\n")

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
