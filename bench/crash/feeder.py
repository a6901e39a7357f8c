"""A lane's feed: `python -m server ingest` is run on it, ended in the middle now and then, and run until all is in."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench import pictures
from bench.crash.checks import AWAY, LATE, TRACEBACK, WRONG
from bench.crash.database import Connection
from bench.crash.feeds import Brought, Run, run
from bench.crash.operations import PRODUCTS, Feed, FeedRow, Operation, named, product_id, product_of
from bench.crash.settling import settle
from bench.crash.talk import Answer
from bench.crash.waiting import until
from bench.crash.world import World

_MOST_TRIES = 60
_LONGEST_RUN = 240.0
_LONGEST_LOOK = 240.0
_PAUSE = 1.0
_EVERY = frozenset(range(PRODUCTS))
_COLUMNS = ("productId", "name", "sku", "isActive", "category", "price", "file")


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a run ended. `failed`: products of which a row did not go in, all of them where nobody knows."""

    label: str
    failed: frozenset[int]


class Feeder:
    """Brings one lane's feeds in, all of them as one feed that changes from night to night."""

    def __init__(
        self,
        world: World,
        folder: Path,
        command: Callable[..., list[str]],
        environment: Mapping[str, str],
        turns: asyncio.Semaphore,
    ) -> None:
        """`folder`: for the feed and its pictures. `command`: makes a command line of the server's of arguments.
        `turns`: how many run at one time."""
        self._world = world
        self._folder = folder
        self._command = command
        self._environment = environment
        self._turns = turns
        self._brought: dict[int, Brought] = {}

    async def bring(self, operation: Operation, feed: Feed, database: Connection) -> None:
        """Bring a feed in, in as many runs as that takes; then exactly what it says must be there.

        What is not certain of a product's state is not mixed with this: such a product is not in the feed, and where
        one was in it before, the run takes nothing out.
        """
        world, client = self._world, operation.client
        entries = world.catalogues[client].entries
        certain = {at for at, entry in enumerate(entries) if entry.unsure_since is None}
        rows = {row.product: row for row in feed.rows if row.product in certain}
        if not rows:
            world.tally.skipped += 1
            return
        prune = feed.prune and self._brought.keys() <= certain
        touched = sorted(rows.keys() | self._brought.keys() if prune else rows.keys())
        runs = {product: self._expect(client, product, rows.get(product), prune=prune) for product in touched}
        flags = await asyncio.to_thread(self._write, client, list(rows.values()))
        flags += ["--prune", "--prune-at-most", "100%"] if prune else []
        for attempt in range(_MOST_TRIES):
            async with self._turns:
                for product, one in runs.items():
                    world.catalogues[client].set(product, entries[product].possible | one.meanwhile)
                ended = await self._run(operation, flags, feed if attempt == 0 else None)
            await self._settle(client, runs, ended, database)
            runs = {product: one for product, one in runs.items() if product in ended.failed}
            if not runs:
                return
            await asyncio.sleep(_PAUSE)
        world.fault(AWAY, f"the feed of {client} did not go in in {_MOST_TRIES} runs")

    def _expect(self, client: str, product: int, row: FeedRow | None, *, prune: bool) -> Run:
        entry = self._world.catalogues[client].entries[product]
        brought = self._brought.get(product)
        return run(client, entry.state, brought and brought.as_of(entry, entry.state), row, prune=prune)

    async def _settle(self, client: str, runs: Mapping[int, Run], ended: _Ended, database: Connection) -> None:
        """Hold what is there against what must be, of the products that are in."""
        world = self._world
        for product, one in runs.items():
            entry = world.catalogues[client].entries[product]
            if product in ended.failed:
                entry.unsure_since, entry.pending = perf_counter(), None
                continue
            world.catalogues[client].set(product, [one.after])
            await until(
                lambda product=product: settle(database, world, client, product),
                _LONGEST_LOOK,
                "the database could not be read",
            )
            state = entry.state if len(entry.possible) == 1 else None
            if one.brought is None or state is None:
                self._brought.pop(product, None)
            else:
                self._brought[product] = Brought(one.brought.made, entry.gone, state.media, one.brought.pictures)

    # --- the feed -----------------------------------------------------------------------------------------------------

    def _write(self, client: str, rows: Sequence[FeedRow]) -> list[str]:
        """Write the feed, and those of its pictures that are others than before; the flags that name it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "feed.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(_COLUMNS)
            for row in rows:
                facts = [named(client, row.product, row.number), f"sku-{row.product}", row.active, row.category]
                cells = [self._picture(row.product, at, slot) for at, slot in enumerate(row.slots)] or [""]
                table.writerows([product_id(row.product), *facts, row.price, cell] for cell in cells)
        return ["--client", client, "--feed", self._folder.name, "--number", "price"]

    def _picture(self, product: int, at: int, slot: int) -> str:
        """The name of the file of a product's how-manyth picture; as in a shop, another picture has the same name."""
        path = self._folder / f"{product_id(product)}-{at}"
        data = self._world.picture(product, slot)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        return path.name

    # --- a run --------------------------------------------------------------------------------------------------------

    async def _run(self, operation: Operation, flags: Sequence[str], feed: Feed | None) -> _Ended:
        """One run of the command; `feed`: says when it is ended from outside."""
        world, began = self._world, perf_counter()
        failures = self._folder / "failures.jsonl"
        command = self._command("ingest", self._folder / "feed.csv", *flags, "--failures", failures, "--json")
        # Into files: a process that it leaves behind may hold on to them for longer than it lives.
        out, err = self._folder / "said", self._folder / "log"
        with out.open("wb") as said, err.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--threads", "1", "--batch", "8"),
                cwd=pictures.ROOT,
                env=dict(self._environment),
                stdout=said,
                stderr=log,
            )
        try:
            ending = await self._wait(process, feed)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        complaints = err.read_text(errors="replace")
        ended = self._judge(process.returncode or 0, out.read_text(), complaints, ending, failures)
        world.tally.ingests[ended.label] += 1
        world.tally.acknowledged += not ended.failed
        world.tally.unknown += bool(ended.failed)
        answer = Answer(f"ingest {ended.label}", b"", perf_counter() - began)
        last = complaints.strip().splitlines()[-1:] if ended.failed else []
        world.count(operation, answer, " ".join(last))
        return ended

    async def _wait(self, process: asyncio.subprocess.Process, feed: Feed | None) -> bool:
        """Wait until it has ended; whether it was ended from outside, or told to end."""
        if feed is not None and feed.ended_after is not None:
            try:
                await asyncio.wait_for(process.wait(), feed.ended_after)
                return False
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    process.send_signal(signal.SIGKILL if feed.killed else signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _LONGEST_RUN)
        except TimeoutError:
            self._world.fault(LATE, f"ingest did not end in {_LONGEST_RUN:g} s")
        return feed is not None and feed.ended_after is not None

    def _judge(self, code: int, out: str, err: str, ending: bool, failures: Path) -> _Ended:
        world = self._world
        if "Traceback (most recent call last)" in err:
            world.fault(TRACEBACK, f"of ingest: {err[-800:]}")
        if code in (0, 1):
            report = json.loads(out.splitlines()[-1])
            failed = _products_in(failures)
            if report["wrong"] or (code == 1) != bool(report["failed"]) or (code == 1) != bool(failed):
                world.fault(WRONG, f"ingest ended with {code} and said {report}, and of failures {sorted(failed)}")
            return _Ended("in" if code == 0 else "in, but for some rows", failed)
        if code == 2:
            if "twinlens: " not in err:
                world.fault(WRONG, f"ingest ended with 2 and did not say why: {err[-800:]}")
            return _Ended("not in", _EVERY)
        if not ending or code not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            world.fault(WRONG, f"ingest ended with {code}: {err[-800:]}")
        return _Ended("ended from outside", _EVERY)


def _products_in(failures: Path) -> frozenset[int]:
    """The products of which a row failed."""
    ids = [json.loads(line).get("productId", "") for line in failures.read_text().splitlines()]
    return frozenset(one for one in map(product_of, ids) if one is not None)
