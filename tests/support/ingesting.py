"""A feed that goes into a house: a real database and a real store, and a model that is a stand-in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.bulk import pruning
from server.database.pool import Pool
from server.database.runner import Runner
from server.ingest.feed import FileOf, PictureOf, Row
from server.ingest.feed_writer import FeedWriter
from server.ingest.fetch import Fetcher
from server.ingest.letting_go import LettingGo
from server.ingest.pictures import Pictures
from server.ingest.pipeline import Counts, Failed, Pipeline
from server.ingest.spool import Spool
from server.ingest.storage import MediaStore
from tests.support.databases import run_sql
from tests.support.house import House, picture

MOST = 1_000_000
LONG_AGO = 1_000_000_000
"""When files of tests were last changed, unless they say otherwise: a time that a run trusts."""


@dataclass
class Brought:
    """What came of a run."""

    counts: Counts
    failed: list[Failed] = field(default_factory=list)
    removed: tuple[int, int] = (0, 0)
    """Products and pictures."""

    @property
    def reasons(self) -> dict[str, str]:
        """Why rows failed, by the ids of their products."""
        return {one.placed.product.id: one.error.sentence for one in self.failed}


def row(product: str, where: PictureOf | Path | None = None, *, client: str = "acme", **facts: Any) -> Row:
    """A row, whose number its place in the feed gives it."""
    return Row(0, client, product, picture=FileOf(where) if isinstance(where, Path) else where, **facts)


def file(path: Path, grey: int, *, at: int = LONG_AGO, size: tuple[int, int] = (8, 6)) -> Path:
    """A picture of one grey in a file, last changed at that time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(grey, size))
    os.utime(path, (at, at))
    return path


async def bring(
    house: House,
    rows: Sequence[Row],
    *,
    feed: str = "feed",
    pool: Pool | None = None,
    bucket: MediaStore | None = None,
    hosts: Sequence[str] = (),
    prune: float | None = None,
    reread: bool = False,
    stop: asyncio.Event | None = None,
    now: float | None = None,
) -> Brought:
    """Bring these rows in, as a run of the command does. `pool`: for the rows of a client; `prune`: at most that share
    of what the feed brought; `now`: what the clock says."""
    brought = Brought(Counts())
    clock = time.time if now is None else lambda: now
    with closing(Spool()) as spool:
        for number, one in enumerate(rows, 1):
            spool.add(Row(number, *(getattr(one, name) for name in Row.__slots__[1:])))
        spool.finish()
        writer = FeedWriter(feed, house.catalogue.space, Runner(pool or house.pool), Runner(house.pool))
        if prune is not None:
            pruning.require(await pruning.look(writer, spool), prune)

        async def let_go(keys: Sequence[str]) -> None:
            await LettingGo(house.store).let_go(*keys)

        async with Fetcher(hosts, most=MOST, loopback=True) as fetcher:
            pipeline = Pipeline(
                writer=writer,
                embedder=house.embedder,
                store=house.store,
                pictures=Pictures(most=MOST, bucket=bucket or house.store, fetcher=fetcher, clock=clock),
                let_go=let_go,
                at_once=8,
                stop=stop or asyncio.Event(),
                on_failed=brought.failed.append,
                reread=reread,
            )
            brought.counts = await pipeline.run(spool.placed())
        if prune is not None:
            brought.removed = await pruning.prune(writer, spool, let_go)
        else:
            brought.removed = 0, await pruning.clear(writer, let_go)
    return brought


def pictures_of(url: str, client: str = "acme") -> dict[str, list[str]]:
    """The ids of the media of each product of a client."""
    found: dict[str, list[str]] = {}
    for product, media in run_sql(
        url,
        """SELECT coalesce(p."apiId", p.id), m.id FROM products p LEFT JOIN media m ON m."productId" = p.id
        WHERE p."clientId" = %s ORDER BY 1, m."createdAt", 2""",
        (client,),
    ):
        found.setdefault(product, []).extend([media] if media is not None else [])
    return found
