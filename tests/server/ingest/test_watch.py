"""A store that goes away and comes back, and one that hangs as a network drive does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from server.errors import StoreUnavailable
from server.ingest.storage import MARK, Mark, MediaStore
from server.ingest.watch import watch

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> MediaStore:
    store = MediaStore.at(None, tmp_path / "media")
    store.make()
    await store.write_mark(Mark("a" * 32))
    store.expected = "a" * 32
    return store


@asynccontextmanager
async def watched(store: MediaStore) -> AsyncIterator[None]:
    task = asyncio.create_task(watch(store, each=0.05))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_store_that_goes_away_and_comes_back_costs_two_lines(
    store: MediaStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    mark, kept = tmp_path / "media" / MARK, tmp_path / "kept"
    async with watched(store):
        await store.put("media/acme/abc.webp", b"bytes")
        mark.rename(kept)
        await until(lambda: store.trouble)
        with pytest.raises(StoreUnavailable):
            store.require()
        await asyncio.sleep(0.3)  # some looks more, none of which is a line
        kept.rename(mark)
        await until(lambda: store.trouble is None)
        store.require()
        assert await store.get("media/acme/abc.webp") == b"bytes"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "lacks its mark" in caplog.records[0].getMessage()


async def test_a_store_that_hangs_is_away_and_holds_nobody_up(
    store: MediaStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "media" / MARK
    mark.rename(tmp_path / "kept")
    os.mkfifo(mark)  # whoever opens it to read waits for a writer, as for a server that is gone
    async with watched(store):
        await until(lambda: store.trouble)
        async with asyncio.timeout(1):  # they would wait for ever
            for call in (store.put("media/acme/abc.webp", b"bytes"), store.get("media/acme/abc.webp")):
                with pytest.raises(StoreUnavailable, match="cannot be used"):
                    await call
        assert "has not answered" in caplog.records[0].getMessage()
        # The server of the drive is back: the look that hung ends, and the next one finds the mark.
        (tmp_path / "kept").rename(tmp_path / "media" / "new")
        writer = os.open(mark, os.O_RDWR)
        os.write(writer, (tmp_path / "media" / "new").read_bytes())
        os.close(writer)
        (tmp_path / "media" / "new").replace(mark)
        await until(lambda: store.trouble is None)
