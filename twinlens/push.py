"""A feed into a catalogue over HTTP: each row's product, then its picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from twinlens.calls import adding, adding_by_url, changing, creating
from twinlens.errors import NotFound, PreconditionFailed, TwinlensError
from twinlens.feed import Row, Wrong, agreed
from twinlens.journal import Journal, mark_of
from twinlens.steps import Task
from twinlens.uploads import HOPELESS

BAD_ROW = "bad_row"
"""The code of a line that is no row, or whose product can have no such id."""

Outcome = Literal["created", "changed", "added", "there", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of one thing: of a product, or of a picture."""

    number: int
    """Of the row."""
    product_id: str | None
    what: Literal["line", "product", "picture"]
    outcome: Outcome
    where: str = ""
    """Of a picture: its path or URL."""
    reason: str | None = None
    """Where it failed: a sentence."""
    code: str | None = None


@dataclass(slots=True)
class PushReport:
    """What came of a feed so far."""

    rows: int = 0
    """How many are dealt with."""
    products: dict[Outcome, int] = field(default_factory=dict)
    pictures: dict[Outcome, int] = field(default_factory=dict)
    failures: list[Pushed] = field(default_factory=list)

    def note(self, pushed: Iterable[Pushed], rows: int) -> None:
        self.rows += rows
        for one in pushed:
            if one.outcome == "failed":
                self.failures.append(one)
            else:
                counts = self.products if one.what == "product" else self.pictures
                counts[one.outcome] = counts.get(one.outcome, 0) + 1


def tasks(rows: Iterable[Row | Wrong], journal: Journal) -> Iterator[Task[tuple[list[Pushed], int]]]:
    """The work of a feed, in pieces that can be done side by side. Each gives what came of it, and of how many rows.

    Rows that follow one another and are of one product are one piece: the product must be there before its pictures.
    """
    together: list[Row] = []
    counted: set[str] = set()

    def piece() -> Task[tuple[list[Pushed], int]]:
        product_id = together[0].product_id
        first = product_id not in counted
        counted.add(product_id)
        return _piece(tuple(together), journal, first=first)

    for row in agreed(rows):
        if isinstance(row, Wrong):
            yield _wrong(row)
            continue
        if together and row.product_id != together[0].product_id:
            yield piece()
            together = []
        together.append(row)
    if together:
        yield piece()


def _wrong(line: Wrong) -> Task[tuple[list[Pushed], int]]:
    yield from ()
    return [Pushed(line.number, None, "line", "failed", reason=line.reason, code=BAD_ROW)], 1


def _piece(rows: Sequence[Row], journal: Journal, *, first: bool) -> Task[tuple[list[Pushed], int]]:
    """Rows of one product; `first`: of this feed, so that the product is counted once."""
    at = rows[0]
    said = {name: value for row in rows for name, value in row.says.items()}
    try:
        outcome = yield from _product(at.product_id, said, journal)
    except HOPELESS:
        raise
    except (TwinlensError, ValueError) as exc:
        # Without its product, no picture can go in.
        failed = [_failure(row, "picture", exc) for row in rows if row.where]
        return failed or [_failure(at, "product", exc)], len(rows)
    done = [Pushed(at.number, at.product_id, "product", outcome)] if first else []
    for row in rows:
        if row.where:
            done += [(yield from _picture(row, journal))]
    return done, len(rows)


def _product(product_id: str, said: dict[str, Any], journal: Journal) -> Task[Outcome]:
    """The product is there and is what the feed says; what that does not say stays as it is."""
    mark = mark_of("product", product_id, json.dumps(said, sort_keys=True))
    if mark in journal:
        return "skipped"
    outcome = yield from (_written(product_id, said) if said else _made(product_id, said))
    journal.add(mark)
    return outcome


def _written(product_id: str, said: dict[str, Any]) -> Task[Outcome]:
    try:
        yield changing(product_id, said)
    except NotFound:
        made = yield from _made(product_id, said)
        if made == "created":
            return made
        yield changing(product_id, said)  # somebody else has made it meanwhile
    return "changed"


def _made(product_id: str, said: dict[str, Any]) -> Task[Outcome]:
    try:
        yield creating(product_id, {"name": product_id, **said})
    except PreconditionFailed:
        return "there"
    return "created"


def _picture(row: Row, journal: Journal) -> Task[Pushed]:
    try:
        if row.picture is not None:
            data = row.picture.read_bytes()
            mark, request = mark_of(row.product_id, data), adding(row.product_id, data)
        else:
            mark, request = mark_of(row.product_id, "url", row.where), adding_by_url(row.product_id, row.where)
        if mark in journal:
            return Pushed(row.number, row.product_id, "picture", "skipped", row.where)
        _, added = yield request
    except HOPELESS:
        raise
    except (TwinlensError, OSError, ValueError) as exc:
        return _failure(row, "picture", exc)
    journal.add(mark)
    return Pushed(row.number, row.product_id, "picture", "added" if added else "there", row.where)


def _failure(row: Row, what: Literal["product", "picture"], error: Exception) -> Pushed:
    if isinstance(error, TwinlensError):
        reason, code = error.sentence, error.code
    elif isinstance(error, OSError):
        reason, code = f"The file cannot be read: {error.strerror}.", "file_unreadable"
    else:
        reason, code = str(error), BAD_ROW
    return Pushed(row.number, row.product_id, what, "failed", row.where, reason, code)
