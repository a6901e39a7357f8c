"""The model of a bulk run: opened once, by the first picture, and closed however the run ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.artifact.artifact import Artifact
from server.batching.embedder import Embedded
from server.batching.fair_queue import Caller
from server.bulk.on_demand import OnDemand
from server.engine import Engine, open_engine
from server.errors import ArtifactInvalid
from server.settings import Settings
from tests import STARTER
from tests.support.house import picture

pytestmark = pytest.mark.anyio


class Watched:
    """The starter's engine, and what became of it."""

    def __init__(self, data: Path, *, breaks: bool = False) -> None:
        self._settings = Settings(data=data, model=STARTER, device="cpu", threads=1, batch=1)
        self._breaks = breaks
        self.events: list[str] = []
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Engine]:
        self.events.append("opening")
        self.begun.set()
        if self._breaks:
            raise ArtifactInvalid("It does not load.")
        async with open_engine(self._settings, Artifact.read(STARTER), words=False, aside=True) as engine:
            self.events.append("open")
            yield engine
        self.events.append("closed")


async def embed(model: OnDemand, grey: int) -> Embedded:
    data = picture(grey)
    return await model.embed(data, within=60.0, thumbnail=False, caller=Caller("acme", "bulk"), digest=bytes([grey]))


async def test_without_a_picture_nothing_is_opened(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with OnDemand(watched.opened) as model:
        pass
    assert (watched.events, model.seconds) == ([], 0.0)


async def test_pictures_that_come_together_open_it_once(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with OnDemand(watched.opened) as model:
        made = await asyncio.gather(*(embed(model, grey) for grey in range(5)))
        assert watched.events == ["opening", "open"]
    assert [one.digest for one in made] == [bytes([grey]) for grey in range(5)]
    assert watched.events == ["opening", "open", "closed"]
    assert model.seconds > 0


async def test_everyone_who_waits_is_told_why_it_does_not_open(tmp_path: Path) -> None:
    watched = Watched(tmp_path, breaks=True)
    async with OnDemand(watched.opened) as model:
        for _ in range(2):
            told = await asyncio.gather(embed(model, 1), embed(model, 2), return_exceptions=True)
            assert [type(one) for one in told] == [ArtifactInvalid] * 2
    assert watched.events == ["opening"]


async def test_it_is_closed_also_where_all_have_left_while_it_opened(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with OnDemand(watched.opened) as model:
        waiting = asyncio.create_task(embed(model, 1))
        await watched.begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert "closed" not in watched.events
    assert watched.events == ["opening", "open", "closed"]


async def test_others_go_on_while_it_is_loaded(tmp_path: Path) -> None:
    watched, turns = Watched(tmp_path), 0
    async with OnDemand(watched.opened) as model:
        waiting = asyncio.create_task(embed(model, 1))
        while "open" not in watched.events:
            await asyncio.sleep(0.001)
            turns += 1
        await waiting
    assert turns > 3  # 2, where loading holds up the event loop: until it begins, and when it has ended
