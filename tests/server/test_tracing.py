"""Spans where nothing is traced, and what becomes of the span around."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from server.tracing import NOTHING, current, record, span, within
from tests.support.traces import below, named, traced


def test_where_nothing_is_traced_every_call_does_nothing() -> None:
    with within(NOTHING) as request, span("decode", {"twinlens.bytes": 1}, outgoing=True) as decoding:
        record("wait", perf_counter())
        decoding.set("twinlens.width", 2)
        decoding.link(request)
        decoding.fail(ValueError())
        decoding.rename("other")
        decoding.end()
        assert current() is decoding is decoding.child("inner", links=[request]) is NOTHING
        assert not decoding
        assert decoding.traceparent is None


def test_what_a_block_raises_goes_on() -> None:
    with pytest.raises(ValueError, match="this"), span("decode"):
        raise ValueError("this")


def test_a_block_that_raises_leaves_the_span_around_as_it_was_and_says_only_what_kind_of_error_it_was() -> None:
    with traced() as traces, traces.request("request"):
        around = current()
        with pytest.raises(ValueError, match="password"), span("decode"):
            raise ValueError("password")
        assert current() is around
        with span("resize"):
            pass
        decode = named(traces.spans(2), "decode")
        assert (decode.failed, decode.attributes["error.type"], decode.said) == (True, "ValueError", "")
        assert not named(traces.spans(2), "resize").failed


@pytest.mark.anyio
async def test_tasks_and_threads_that_a_block_begins_lie_below_its_span() -> None:
    async def work(name: str) -> None:
        with span(name):
            await asyncio.sleep(0)
            await asyncio.to_thread(record, f"in {name}", perf_counter())

    with traced() as traces:
        with traces.request("request"):
            await asyncio.gather(work("one"), work("other"))
        spans = traces.spans(5)
    request = named(spans, "request")
    assert sorted(below(spans, request)) == ["one", "other"]
    for name in ("one", "other"):
        assert below(spans, named(spans, name)) == [f"in {name}"]
