"""Work that is a generator: it says what it wants and is told what came of it. Threads and coroutines are elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from twinlens.request import Request, Result

Wanted = TypeVar("Wanted")
Told = TypeVar("Told")

Task = Generator[Request[Any], Any, Result]
"""Work of one or several calls: it yields requests, is sent their answers, and is thrown their TwinlensErrors."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[Result]):
    """The work is done, and this is its result."""

    value: Result


def begun(work: Generator[Wanted, Told, Result]) -> Wanted | Finished[Result]:
    """The first thing that it wants."""
    try:
        return next(work)
    except StopIteration as done:
        return Finished(done.value)


def told(work: Generator[Wanted, Told, Result], what: Told) -> Wanted | Finished[Result]:
    """The next thing that it wants, once it was told what came of the last."""
    try:
        return work.send(what)
    except StopIteration as done:
        return Finished(done.value)


def failed(work: Generator[Wanted, Told, Result], error: Exception) -> Wanted | Finished[Result]:
    """The next thing that it wants, once it was told that the last failed."""
    try:
        return work.throw(error)
    except StopIteration as done:
        return Finished(done.value)
