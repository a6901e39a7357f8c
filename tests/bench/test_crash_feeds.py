"""What the crasher expects of a feed, on plain values, its draws; and that it sees an ingest that does not do that."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest

from bench.crash.checks import LOST, REMOVED, TRACEBACK, WRONG
from bench.crash.database import Connection
from bench.crash.feeder import Feeder
from bench.crash.feeds import Brought, Run, run
from bench.crash.model import UNKNOWN_ID, Entry, Product, State
from bench.crash.operations import PRODUCTS, Feed, FeedRow, Filter, Operation, operations
from bench.crash.world import World

ROW = FeedRow(3, 9, True, "lamps", 7, (2, 0))
HAT = Product("alfa product 3 v1", False, "hats", 20, ("m0", "m1", None, None))
LAMP = Product("alfa product 3 v9", True, "lamps", 7, ("m0", "m1", UNKNOWN_ID, None))
FEED = Feed((ROW,), prune=False, ended_after=None, killed=True)
INGEST = Operation(9, "ingest", "alfa", 3, 0, True, "", 0, 1, Filter(), True, 0.0, FEED)


def expected(before: State, brought: Brought | None = None, row: FeedRow | None = ROW, *, prune: bool = False) -> Run:
    return run("alfa", before, brought, row, prune=prune)


def test_a_feed_makes_products_and_adds_pictures_and_leaves_what_others_have_added() -> None:
    made = expected(None)
    assert made.after == replace(LAMP, media=(UNKNOWN_ID, None, UNKNOWN_ID, None))
    assert made.brought == Brought(True, pictures={0: (2, True), 1: (0, True)})
    found = expected(HAT)
    assert found.after == LAMP
    assert found.brought == Brought(False, pictures={0: (2, True), 1: (0, False)})


def test_another_picture_in_a_row_replaces_the_one_that_the_feed_made() -> None:
    brought = Brought(False, pictures={0: (1, True), 1: (0, False)})
    assert expected(HAT, brought).within == LAMP
    assert expected(HAT, brought).after == replace(LAMP, media=("m0", None, UNKNOWN_ID, None))


def test_pictures_that_change_places_stay_and_remain_the_feeds() -> None:
    there = replace(HAT, media=("m0", None, "m2", None))
    after = expected(there, Brought(True, pictures={0: (0, True), 1: (2, True)}))
    assert after.after == replace(LAMP, media=there.media)
    assert after.brought == Brought(True, pictures={0: (2, True), 1: (0, True)})


def test_fewer_pictures_than_before_stay_unless_the_feed_is_pruned() -> None:
    there = replace(HAT, media=("m0", "m1", "m2", "m3"))
    brought = Brought(True, pictures={0: (2, True), 1: (0, True), 2: (3, True), 3: (1, False)})
    kept = expected(there, brought)
    assert (kept.after, kept.brought) == (replace(LAMP, media=there.media), brought)
    pruned = expected(there, brought, prune=True)
    assert pruned.after == replace(LAMP, media=("m0", "m1", "m2", None))
    assert pruned.brought == Brought(True, pictures={0: (2, True), 1: (0, True)})


def test_what_has_left_the_feed_goes_where_it_is_pruned_and_the_feed_made_it() -> None:
    whole = Brought(True, pictures={0: (0, True), 1: (1, True)})
    assert expected(HAT, whole, None).after == HAT
    assert (expected(HAT, whole, None, prune=True).after, expected(HAT, whole, None, prune=True).brought) == (
        None,
        None,
    )
    part = Brought(True, pictures={0: (0, True)})
    assert expected(HAT, part, None, prune=True).after == replace(HAT, media=(None, "m1", None, None))
    found = Brought(False, pictures={0: (0, True), 1: (1, True)})
    assert expected(HAT, found, None, prune=True).after == replace(HAT, media=(None,) * 4)


def test_what_somebody_has_deleted_since_is_the_feeds_no_more() -> None:
    brought = Brought(True, 0, HAT.media, {0: (0, True), 1: (1, True)})
    assert brought.as_of(Entry(), HAT) == brought
    another = HAT.holding(1, "m9")
    assert brought.as_of(Entry(), another) == replace(brought, pictures={0: (0, True)})
    assert brought.as_of(Entry(gone=1), HAT) is brought.as_of(Entry(), None) is None


def test_a_run_that_is_under_way_may_have_left_any_part_of_its_work() -> None:
    states = expected(HAT, Brought(True, pictures={0: (1, True)})).meanwhile
    facts = [HAT, LAMP]
    media = [("m0", one, two, None) for one in ("m1", None) for two in (UNKNOWN_ID, None)]
    assert states == {replace(one, media=held) for one in facts for held in media}
    assert None in expected(None).meanwhile
    gone = expected(HAT, Brought(True, pictures={0: (0, True), 1: (1, True)}), None, prune=True).meanwhile
    assert {HAT, replace(HAT, media=(None,) * 4), None} <= gone


def test_feeds_are_of_all_kinds_and_repeat_what_they_said() -> None:
    drawn = [one.feed for one in islice(operations(1, "alfa", 1, 2), 20_000) if one.feed is not None]
    assert len(drawn) > 20
    assert {row.product % 2 for feed in drawn for row in feed.rows} == {1}
    assert {feed.prune for feed in drawn} == {feed.killed for feed in drawn} == {True, False}
    assert {feed.ended_after is None for feed in drawn} == {True, False}
    both = [set(one.rows) & set(other.rows) for one, other in pairwise(drawn)]
    assert any(both), "a row that says the same in two nights"
    assert {len(row.slots) for feed in drawn for row in feed.rows} == {0, 1, 2, 3}


def pretended(code: int, said: str = "", *, failures: str = "") -> list[str]:
    """A command that does nothing but say something, as an ingest that the crasher runs."""
    script = f"""
import sys
open(sys.argv[sys.argv.index("--failures") + 1], "w").write({failures!r})
print({said!r}, file=sys.stdout if {code} in (0, 1) else sys.stderr)
sys.exit({code})
"""
    return [sys.executable, "-c", script]


async def bring(world: World, folder: Path, url: str, command: Sequence[str]) -> None:
    feeder = Feeder(world, folder, lambda *arguments: [*command, *map(str, arguments)], {}, asyncio.Semaphore(1))
    database = Connection(url)
    try:
        await feeder.bring(INGEST, FEED, database)
    finally:
        await database.close()


def test_an_ingest_that_says_that_all_is_in_and_has_done_nothing_is_seen(database_url: str, tmp_path: Path) -> None:
    world = World(0, 5.0)
    asyncio.run(bring(world, tmp_path, database_url, pretended(0, '{"wrong": 0, "failed": 0}')))
    assert world.tally.kinds == {LOST: 1}
    assert "alfa product 3 v9" in world.tally.faults[0].text
    assert world.catalogues["alfa"].entries[3].state is None, "what is there is what is expected from now on"


def test_a_row_that_failed_is_not_looked_for(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.crash.feeder._MOST_TRIES", 1)
    world = World(0, 5.0)
    failing = pretended(1, '{"wrong": 0, "failed": 1}', failures='{"productId": "product-3"}\n')
    asyncio.run(bring(world, tmp_path, database_url, failing))
    assert LOST not in world.tally.kinds
    assert REMOVED not in world.tally.kinds
    assert world.catalogues["alfa"].entries[3].unsure_since is not None
    assert len(world.catalogues["alfa"].entries) == PRODUCTS


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (3, "twinlens: what is this?", WRONG),
        (2, "ended without a sentence of ours", WRONG),
        (0, '{"wrong": 0, "failed": 1}', WRONG),
        (2, "Traceback (most recent call last)\ntwinlens: It failed.", TRACEBACK),
    ],
    ids=["an unknown exit code", "no reason", "failed rows, and all is well", "a traceback"],
)
def test_an_ingest_that_ends_badly_is_seen(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, kind: str
) -> None:
    monkeypatch.setattr("bench.crash.feeder._MOST_TRIES", 1)
    world = World(0, 5.0)
    asyncio.run(bring(world, tmp_path, database_url, pretended(code, said)))
    assert world.tally.kinds[kind] == 1
