"""The client that is awaited: the same calls, and many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from inspect import signature

import pytest

import twinlens
from tests.support.scripted import CLOSED, Reply, scripted
from tests.support.served import ABACUS, KEYBOARD, VIOLIN, Served
from twinlens import AsyncClient, Client, Upload, UploadReport
from twinlens.calls import Calls
from twinlens.methods import call, listing

pytestmark = pytest.mark.anyio


@pytest.fixture
async def aclient(served: Served, client_id: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.url, key=served.admin, client=client_id) as client:
        yield client


async def test_many_searches_run_at_once(aclient: AsyncClient) -> None:
    paths = (ABACUS, KEYBOARD, VIOLIN)
    for path in paths:
        await aclient.put_product(path.stem, name=path.stem)
        await aclient.add_media(path.stem, path)
    answers = await asyncio.gather(*(aclient.search(path, limit=1) for path in paths))
    assert [answer.results[0].product_id for answer in answers] == ["abacus", "keyboard", "violin"]
    with pytest.raises(twinlens.NotFound):
        await aclient.with_options(client="other").get_product("violin")


async def test_it_has_every_method_of_the_other_with_the_same_parameters(aclient: AsyncClient, client: Client) -> None:
    calls = [name for name, value in vars(Calls).items() if isinstance(value, call | listing)]
    assert len(calls) > 10
    for name in calls:
        assert signature(getattr(client, name)) == signature(getattr(aclient, name))
        assert getattr(client, name).__doc__ == getattr(aclient, name).__doc__
    assert signature(client.upload_many).parameters.keys() == signature(aclient.upload_many).parameters.keys()


async def test_lists_are_iterated_with_async_for(aclient: AsyncClient) -> None:
    for number in range(3):
        await aclient.put_product(f"p{number}", name="P")
    assert [one.id async for one in aclient.list_products(page_size=2)] == ["p0", "p1", "p2"]


async def test_what_passes_is_tried_again() -> None:
    found = Reply(body=b'{"results": [], "space": "s", "plan": "exact", "timings": {}}')
    with scripted(CLOSED, Reply(503, headers={"Retry-After": "0"}), found) as server:
        async with AsyncClient(server.url) as client:
            assert (await client.search(b"picture")).plan == "exact"
        assert len(server.asked) == 3


async def test_an_answer_that_does_not_come_is_given_up() -> None:
    never = threading.Event()
    with scripted(Reply(after=never)) as server:
        async with AsyncClient(server.url, deadline=0.2, retries=0) as client:
            with pytest.raises(twinlens.DeadlinePassed):
                await client.search(text="shoe")
        never.set()


async def test_many_pictures_are_uploaded(aclient: AsyncClient) -> None:
    await aclient.put_product("p", name="P")
    seen: list[int] = []
    uploads = [Upload("p", ABACUS), Upload("p", KEYBOARD), Upload("none", VIOLIN), Upload("p", "missing.jpg")]
    report = await aclient.upload_many(uploads, progress=lambda _, report: seen.append(report.done))
    assert (report.added, report.there, len(report.failures)) == (2, 0, 2)
    assert {type(one.error) for one in report.failures} == {twinlens.NotFound, FileNotFoundError}
    assert seen == [1, 2, 3, 4]
    again: UploadReport = await aclient.upload_many(iter(uploads[:2]), concurrency=1)
    assert (again.total, again.there) == (None, 2)


async def test_what_would_befall_every_upload_ends_them(served: Served) -> None:
    async with AsyncClient(served.url, key="wrong") as client:
        with pytest.raises(twinlens.Unauthorized):
            await client.upload_many([Upload("p", KEYBOARD)] * 5)
