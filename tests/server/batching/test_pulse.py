"""Whether the model answers: a run that hangs, a model that fails, and a picture that fails on a sound model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.batching import pulse as pulse_module
from server.batching.batcher import Batcher, Lanes
from server.batching.fair_queue import Caller
from server.batching.pulse import Pulse
from server.errors import EncoderFailed, ModelFailing, ModelStuck
from tests.support.stand_ins import Model

pytestmark = pytest.mark.anyio

LONG = 60.0
POISON = 66


def pixels(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, np.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "_LOOK_SECONDS", 0.01)


@asynccontextmanager
async def watched(batcher: Batcher | Lanes, longest: float = LONG) -> AsyncIterator[Pulse]:
    pulse = Pulse({"image": batcher}, {"image": pixels(0)}, longest)
    task = asyncio.create_task(pulse.run())
    yield pulse
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


class Broken(Model):
    """Fails on everything until it is mended."""

    broken = True

    def __call__(self, entries: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        if self.broken:
            raise EncoderFailed
        return super().__call__(entries)


async def test_a_run_that_lasts_too_long_is_trouble_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", pulse_module.__name__)
    model = Model()
    async with Batcher([model]) as batcher, watched(batcher, longest=0.05) as pulse:
        assert pulse.trouble is None
        model.gate.clear()
        stuck = asyncio.create_task(batcher.encode(pixels(1)))
        await until(lambda: isinstance(pulse.trouble, ModelStuck))
        assert pulse.longest_run() > 0.05
        await until(lambda: caplog.records)
        model.gate.set()
        await stuck
        await until(lambda: pulse.trouble is None)
        assert pulse.longest_run() == 0
        await until(lambda: len(caplog.records) == 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


async def test_an_idle_model_is_asked_for_nothing() -> None:
    model = Model()
    async with Batcher([model]) as batcher, watched(batcher):
        await asyncio.sleep(0.1)  # some looks
    assert model.batches == []


async def test_a_model_that_fails_is_trouble_until_it_encodes_again() -> None:
    model = Broken()
    async with Batcher([model]) as batcher, watched(batcher) as pulse:
        with pytest.raises(EncoderFailed):
            await batcher.encode(pixels(1))
        await until(lambda: isinstance(pulse.trouble, ModelFailing))
        model.broken = False
        await until(lambda: pulse.trouble is None)
    assert model.batches == [[0]]  # the entry of our own, and once it has answered no other


async def test_a_picture_that_fails_on_a_sound_model_is_no_trouble() -> None:
    model = Model()
    async with Batcher([model]) as batcher, watched(batcher) as pulse:
        for _ in range(5):
            with pytest.raises(EncoderFailed):
                await batcher.encode(pixels(POISON))
            await until(lambda: not batcher.failing)
            assert pulse.trouble is None
    assert [0] in model.batches


async def test_an_entry_of_our_own_that_hangs_is_trouble() -> None:
    model = Broken()
    async with Batcher([model]) as batcher, watched(batcher, longest=0.05) as pulse:
        with pytest.raises(EncoderFailed):
            await batcher.encode(pixels(1))
        model.broken = False
        model.gate.clear()
        await until(lambda: isinstance(pulse.trouble, ModelStuck))
        model.gate.set()
        await until(lambda: pulse.trouble is None)


async def test_the_batchers_of_both_lanes_are_looked_after() -> None:
    model, for_bulk = Model(), Broken()
    async with (
        Batcher([model]) as interactive,
        Batcher([for_bulk]) as bulk,
        watched(Lanes(interactive, bulk)) as pulse,
    ):
        with pytest.raises(EncoderFailed):
            await bulk.encode(pixels(1), Caller(lane="bulk"))
        await until(lambda: isinstance(pulse.trouble, ModelFailing))
        for_bulk.broken = False
        await until(lambda: pulse.trouble is None)
    assert model.batches == []
