"""The crasher at work on a real server: it sees what is lost behind its back, and two minutes of it find nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest

from bench.crash import command
from bench.crash.audit import look_up
from bench.crash.checks import INACTIVE, LOST, REMOVED
from bench.crash.database import Connection
from bench.crash.feeder import Feeder
from bench.crash.lanes import Lane
from bench.crash.operations import CLIENTS, Operation, operations
from bench.crash.talk import NOT_SENT, ask
from bench.crash.world import World
from tests import STARTER
from tests.support.databases import run_sql
from tests.support.process import Process, free_port
from tests.support.serving import Shop


@dataclass(frozen=True, slots=True)
class Served:
    """A server of these tests' own, and its database."""

    port: int
    url: str
    data: Path


@pytest.fixture(scope="module")
def served(new_shop: Callable[[], AbstractContextManager[Shop]]) -> Iterator[Served]:
    with new_shop() as shop:
        process = Process(shop.data, "--database-url", shop.database_url)
        try:
            yield Served(process.ready().port, shop.database_url, shop.data)
        finally:
            process.stop()


async def work(served: Served, world: World, count: int, seed: int) -> None:
    """So many operations of one lane of each client, without pauses."""

    async def at_once(_: object) -> None:
        await asyncio.sleep(0)

    lanes = [Lane(world, islice(operations(seed, client, 0, 1), count), served.url, at_once) for client in CLIENTS]
    await asyncio.gather(*(lane.run() for lane in lanes))


async def looked_up(served: Served, world: World) -> int:
    connection = Connection(served.url)
    try:
        return await look_up(connection, world)
    finally:
        await connection.close()


def test_nothing_is_found_where_nothing_breaks_and_what_is_taken_away_is_seen(served: Served) -> None:
    run_sql(served.url, "DELETE FROM products WHERE \"clientId\" <> 'demo'")
    world = World(served.port, 30.0)
    asyncio.run(work(served, world, 120, 5))
    assert asyncio.run(looked_up(served, world)) > 30
    assert not world.tally.faults
    assert world.tally.unknown == 0
    assert world.tally.acknowledged > 50
    # One picture is taken away, one product is switched off, one picture comes back, all behind the model.
    held = [
        (client, product, media_id)
        for client, catalogue in world.catalogues.items()
        for product, entry in enumerate(catalogue.entries)
        for media_id in (entry.state.media if entry.state is not None and entry.state.active else ())
        if media_id is not None
    ]
    (_, first, taken), (client, second, _) = held[0], next(one for one in held if one[1] != held[0][1])
    run_sql(served.url, 'DELETE FROM media WHERE coalesce("apiId", id) = %s', (taken,))
    asyncio.run(looked_up(served, world))
    assert world.tally.kinds[LOST] > 0
    assert any(taken in fault.text for fault in world.tally.faults)
    catalogue = world.catalogues[client]
    known = catalogue.entries[second].state
    catalogue.set(second, [None])
    before = world.tally.kinds[REMOVED]
    asyncio.run(looked_up(served, world))
    assert world.tally.kinds[REMOVED] > before
    assert known is not None
    catalogue.set(second, [type(known)(known.name, False, known.category, known.price, known.media)])
    asyncio.run(looked_up(served, world))
    assert world.tally.kinds[INACTIVE] > 0
    assert first != second


def fed(seed: int, client: str, feeds: int) -> Iterator[Operation]:
    """The operations of a lane up to so many feeds: of those between two feeds, some. One run of a feed is killed."""
    since, so_far = 0, 0
    for one in operations(seed, client, 0, 1):
        since += 1
        if one.feed is not None:
            so_far, since = so_far + 1, 0
            yield replace(one, feed=replace(one.feed, ended_after=2.0 if so_far == 2 else None, killed=True))
        elif since <= 25:
            yield one
        if so_far == feeds:
            return


async def feed(served: Served, world: World, folder: Path) -> None:
    """Feeds among other operations, brought in by the command."""

    def command(*arguments: str | Path) -> list[str]:
        settings = ("--data", served.data, "--database-url", served.url, "--model", STARTER, "--device", "cpu")
        return [sys.executable, "-m", "server", *map(str, (*arguments, *settings))]

    async def at_once(_: object) -> None:
        await asyncio.sleep(0)

    here = {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}
    turns = asyncio.Semaphore(2)
    lanes = [
        Lane(
            world,
            fed(11, client, 4),
            served.url,
            at_once,
            Feeder(world, folder / client, command, here, turns),
        )
        for client in CLIENTS[:2]
    ]
    await asyncio.gather(*(lane.run() for lane in lanes))


def test_feeds_go_in_beside_all_else_and_one_that_is_killed_goes_on(served: Served, tmp_path: Path) -> None:
    run_sql(served.url, "DELETE FROM products WHERE \"clientId\" <> 'demo'")
    world = World(served.port, 30.0)
    asyncio.run(feed(served, world, tmp_path))
    looked = asyncio.run(looked_up(served, world))
    assert not world.tally.faults
    assert world.tally.ingests == {"in": 8, "ended from outside": world.tally.unknown}
    assert looked > 30
    # A picture of a feed is there twice, behind the model.
    ((media_id,),) = run_sql(
        served.url, 'SELECT "mediaId" FROM twinlens_feed_rows WHERE place > 0 ORDER BY "clientId", 1 LIMIT 1'
    )
    run_sql(
        served.url,
        """INSERT INTO media (id, "productId", "clientId", "s3Key", "contentDigest")
        SELECT 'double', p.id, p."clientId", m."s3Key", m."contentDigest"
        FROM media m JOIN products p ON p."clientId" = m."clientId" AND p.id <> m."productId"
        WHERE m.id = %s LIMIT 1""",
        (media_id,),
    )
    asyncio.run(looked_up(served, world))
    assert world.tally.kinds[REMOVED] > 0


def test_a_request_to_nobody_was_not_sent() -> None:
    assert asyncio.run(ask(free_port(), "GET", "/")).label == NOT_SENT


def test_a_fault_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        command.main(["--only", "earthquake"])
    assert refusal.value.code == 2
    assert "earthquake" in capsys.readouterr().err


@pytest.mark.slow
def test_two_minutes_of_faults_lose_nothing(tmp_path: Path) -> None:
    file, log = tmp_path / "crash.json", tmp_path / "server.log"
    code = command.main(["--minutes", "2", "--seed", "17", "--json", str(file), "--log", str(log)])
    report = json.loads(file.read_text())
    assert report["promises"] == dict.fromkeys(report["promises"], 0), report["faults"][:10]
    assert code == 0
    assert report["acknowledged"] > 100
    assert sum(one["failed"] is None for one in report["struck"]) >= 5
    assert report["looked_up"] > 100
    assert report["ingests"]["in"] > 0
