"""One asking for many callers, none of whom gets an answer that is older than his question."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from server.database.shared import Shared

pytestmark = pytest.mark.anyio


class Question:
    """Answers with how many askings began before it, once it is let."""

    def __init__(self) -> None:
        self.begun = count()
        self.let = asyncio.Semaphore(0)

    async def __call__(self) -> int:
        number = next(self.begun)
        async with self.let:
            if number == 2:
                raise RuntimeError("the third")
        return number


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_while_one_is_under_way_shares_the_next_with_all_others_who_do() -> None:
    question = Question()
    shared = Shared(question)
    first = [asyncio.create_task(shared.get()) for _ in range(3)]
    await turns()
    later = [asyncio.create_task(shared.get()) for _ in range(3)]
    await turns()
    question.let.release()
    assert await asyncio.gather(*first) == [0, 0, 0]
    await turns()
    last = asyncio.create_task(shared.get())
    await turns()
    question.let.release()
    assert await asyncio.gather(*later) == [1, 1, 1]
    question.let.release()
    with pytest.raises(RuntimeError, match="the third"):
        await last


async def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    question = Question()
    shared = Shared(question)
    leaving, staying = (asyncio.create_task(shared.get()) for _ in range(2))
    await turns()
    leaving.cancel()
    question.let.release()
    assert await staying == 0
    assert leaving.cancelled()
    question.let.release()
    assert await shared.get() == 1


async def test_closing_ends_what_is_under_way() -> None:
    shared = Shared(Question())
    waiting = [asyncio.create_task(shared.get())]
    await turns()
    waiting.append(asyncio.create_task(shared.get()))
    await turns()
    shared.close()
    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)
