"""The end of work that does not end at once."""

from __future__ import annotations

import asyncio

import pytest

from server.database import cancelling

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_PATIENCE_SECONDS", 0.05)


async def reluctant(times: int) -> None:
    """Ends when it is cancelled for so many times, and with an error."""
    for _ in range(times):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    raise RuntimeError("nobody asks for this")


async def test_work_is_cancelled_until_it_ends_and_its_error_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    tasks = [asyncio.create_task(reluctant(times)) for times in (1, 2, 3)]
    await asyncio.sleep(0)
    assert await cancelling.end(*tasks) == set()
    assert all(task.done() for task in tasks)
    del tasks
    assert not caplog.records


async def test_work_that_cannot_be_ended_is_named() -> None:
    task = asyncio.create_task(reluctant(100))
    await asyncio.sleep(0)
    assert await cancelling.end(task) == {task}
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await task


async def test_work_that_is_done_is_left_as_it_is() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "done"))
    await task
    assert await cancelling.end(task) == set()
    assert task.result() == "done"
