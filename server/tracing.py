"""Spans: which part of a request took how long. What makes traces of them, if anything does, is `operations.otel`.

A span lies below the span of the block around it, also in the tasks that the block begins. Where a request is not
traced there is no span, and all that is called here does nothing:

>>> with span("decode", {"twinlens.bytes": len(data)}) as decoding:
...     picture = decode(data)
...     decoding.set("twinlens.width", picture.width)

All times are those of `time.perf_counter`, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from time import perf_counter
from types import TracebackType
from typing import Protocol

Value = str | int | float | bool
Attributes = Mapping[str, Value]


class Span(Protocol):
    """Something that took, or takes, some time."""

    @property
    def traceparent(self) -> str | None:
        """What another program is told so that its spans belong to this one, as W3C's Trace Context has it."""

    def __bool__(self) -> bool:
        """Whether there is a trace that it belongs to."""

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        began: float | None = None,
        outgoing: bool = False,
        links: Iterable[Span] = (),
    ) -> Span:
        """A new span below this one. `began`: now, unless it is given; `outgoing`: it waits for another program;
        `links`: spans of other requests that it has to do with."""

    def rename(self, name: str) -> None: ...

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def link(self, other: Span) -> None:
        """Name a span, of this or another trace, that this one has to do with."""

    def fail(self, error: BaseException | str) -> None:
        """Mark it as failed: by this error, or for the reason of this code."""

    def end(self, at: float | None = None) -> None:
        """End it: now, unless a time is given. Nothing that is called on it later changes anything."""


class Tracer(Protocol):
    """Begins the first span of each request."""

    def begin(self, name: str, headers: Iterable[tuple[bytes, bytes]], attributes: Attributes, *, began: float) -> Span:
        """The span of a request with these headers, which may say which trace it belongs to. NOTHING where this request
        is not to be traced."""


class _Nothing:
    """No span."""

    __slots__ = ()

    traceparent = None

    def __bool__(self) -> bool:
        return False

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        began: float | None = None,
        outgoing: bool = False,
        links: Iterable[Span] = (),
    ) -> Span:
        return self

    def rename(self, name: str) -> None: ...

    def set(self, name: str, value: Value) -> None: ...

    def link(self, other: Span) -> None: ...

    def fail(self, error: BaseException | str) -> None: ...

    def end(self, at: float | None = None) -> None: ...

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None: ...


NOTHING = _Nothing()

_current: ContextVar[Span] = ContextVar("span", default=NOTHING)


def current() -> Span:
    """The span of the block around; NOTHING where there is none."""
    return _current.get()


def span(
    name: str, attributes: Attributes | None = None, *, outgoing: bool = False
) -> AbstractContextManager[Span, None]:
    """A span for a block, below the one around it; it fails with what the block raises. Otherwise as `Span.child`."""
    around = _current.get()
    return _Block(around.child(name, attributes, outgoing=outgoing)) if around else NOTHING


def within(root: Span) -> AbstractContextManager[Span, None]:
    """A block in which this is the span around; it ends with the block, and fails with what the block raises."""
    return _Block(root) if root else NOTHING


def record(name: str, began: float, ended: float | None = None, attributes: Attributes | None = None) -> None:
    """A span of what is over, below the one around; it ended just now, unless it is said when."""
    if around := _current.get():
        around.child(name, attributes, began=began).end(perf_counter() if ended is None else ended)


class _Block:
    __slots__ = ("_span", "_token")

    def __init__(self, of: Span) -> None:
        self._span = of
        self._token: Token[Span] | None = None

    def __enter__(self) -> Span:
        self._token = _current.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if error is not None:
            self._span.fail(error)
        self._span.end()
