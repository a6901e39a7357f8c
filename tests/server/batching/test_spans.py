"""Batches in traces: who waits for how long, and who was in a batch with whom."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.batching.batcher import Batcher, Encoded
from server.batching.embedder import Embedder
from server.batching.fair_queue import Caller
from server.errors import EncoderFailed
from server.tracing import span
from tests.support.pictures import in_format
from tests.support.stand_ins import Model
from tests.support.traces import Traced, below, named, traced

pytestmark = pytest.mark.anyio


def pixels(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, np.uint8)


async def encode(batcher: Batcher, traces: Traced | None, value: int) -> Encoded:
    """One picture, for a request of its own."""
    if traces is None:
        return await batcher.encode(pixels(value))
    with traces.request(f"request {value}"):
        return await batcher.encode(pixels(value))


async def together(batcher: Batcher, model: Model, *requests: tuple[Traced | None, int]) -> list[object]:
    """What these requests get, whose pictures are encoded in one batch."""
    model.gate.clear()
    held = asyncio.create_task(batcher.encode(pixels(1)))
    await asyncio.to_thread(model.entered.wait, 10)
    tasks = [asyncio.create_task(encode(batcher, *one)) for one in requests]
    while batcher.waiting < len(tasks):
        await asyncio.sleep(0)
    model.gate.set()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_span_of_a_batch_links_the_spans_of_all_requests_in_it() -> None:
    model = Model()
    with traced() as traces:
        async with Batcher([model]) as batcher:
            await together(batcher, model, (traces, 10), (traces, 11), (traces, 12))
        spans = traces.spans(10)
    requests = [named(spans, f"request {value}") for value in (10, 11, 12)]
    assert len({request.trace for request in requests}) == 3
    batch = named(spans, "batch")
    assert batch.links == tuple(request.place for request in requests)
    assert batch.attributes == {"twinlens.batch.size": 3}
    # It lies below the first one's; each other one has a span of its own for that time, which links it.
    assert below(spans, requests[0]) == ["queue", "batch"]
    assert below(spans, batch) == ["encode"]
    for request in requests[1:]:
        assert below(spans, request) == ["queue", "encode"]
    linked = [one.links for one in spans if one.name == "encode" and one.parent != batch.id]
    assert linked == [(batch.place,)] * 2
    assert len(spans) == 10


async def test_entries_of_requests_that_are_not_traced_count_in_the_batch_and_are_not_linked() -> None:
    model = Model()
    with traced() as traces:
        async with Batcher([model]) as batcher:
            await together(batcher, model, (None, 10), (traces, 11), (None, 12))
        spans = traces.spans(4)
    batch = named(spans, "batch")
    assert batch.links == (named(spans, "request 11").place,)
    assert batch.attributes == {"twinlens.batch.size": 3}
    assert {one.trace for one in spans} == {batch.trace}


async def test_a_batch_that_fails_shows_each_entry_that_was_tried_again() -> None:
    model = Model()
    with traced() as traces:
        async with Batcher([model]) as batcher:
            first, poison = await together(batcher, model, (traces, 10), (traces, 66))
        spans = traces.spans(9)
    assert isinstance(first, Encoded)
    assert isinstance(poison, EncoderFailed)
    batch = named(spans, "batch")
    tries = [one for one in spans if one.parent == batch.id]
    assert [one.failed for one in sorted(tries, key=lambda one: one.began)] == [True, False, True]
    assert [named(spans, f"request {value}").failed for value in (10, 66)] == [False, True]


async def test_whoever_leaves_the_queue_has_waited_there_and_was_in_no_batch() -> None:
    model = Model()
    with traced() as traces:
        async with Batcher([model]) as batcher:
            model.gate.clear()
            held = asyncio.create_task(batcher.encode(pixels(1)))
            await asyncio.to_thread(model.entered.wait, 10)
            leaver = asyncio.create_task(encode(batcher, traces, 10))
            while not batcher.waiting:
                await asyncio.sleep(0)
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
            model.gate.set()
            await held
        spans = traces.spans(2)
    assert below(spans, named(spans, "request 10")) == ["queue"]
    assert named(spans, "queue").failed
    assert len(spans) == 2


async def test_a_request_that_shares_what_is_being_embedded_links_the_request_that_asked_first() -> None:
    spec = PreprocessingSpec(
        size=2, resize="squash", edge=2, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
    )
    model, data = Model(), in_format(Image.new("L", (4, 3), 9), "PNG")
    with traced() as traces:

        async def ask(name: str) -> None:
            with traces.request(name):
                await embedder.embed(data, within=60, caller=Caller("shop"))

        async with Batcher([model]) as batcher:
            embedder = Embedder(batcher, spec, max_pixels=10_000, threads=1, cache=10_000)
            model.gate.clear()
            first = asyncio.create_task(ask("first"))
            await asyncio.to_thread(model.entered.wait, 10)
            second = asyncio.create_task(ask("second"))
            while not embedder.known["image"].joined:
                await asyncio.sleep(0)
            model.gate.set()
            await asyncio.gather(first, second)
            embedder.close()
        spans = traces.spans(10)
    (made,) = [one for one in spans if one.parent == named(spans, "first").id]
    (shared,) = [one for one in spans if one.parent == named(spans, "second").id]
    assert below(spans, made) == ["wait", "decode", "resize", "queue", "batch"]
    assert below(spans, shared) == []
    assert shared.links == (made.place,)


async def test_without_a_trace_a_batch_has_no_span() -> None:
    model = Model()
    with traced() as traces:
        async with Batcher([model]) as batcher:
            await batcher.encode(pixels(10))
        with traces.request("only"), span("inner"):
            pass
        assert {one.name for one in traces.spans(2)} == {"only", "inner"}
