"""python -m bench flood: what one caller's flood costs the searches of another.

A server of its own answers one client's searches, which arrive at a steady rate, while another client sends nothing, as
much as its limit allows, or many times that: refused by its limit, held back by the fair shares alone, or without a
good key. The ways take turns in rounds, and the figures are compared within the run. Everything is bounded in count and
time, and stays on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from bench import cpu, machine, pictures
from bench.closed_loop import request
from bench.serving import UNCACHED, Serving, serving
from server.access import stored_keys
from server.access.keys import new_key
from server.database.queries import Queries
from server.postgres.server import EmbeddedPostgres

_HEEDED_SECONDS = 5.0  # within which servers heed a change
_MOST_WAITING = 2000  # of a flood's requests that are not answered yet; more are not sent
_LONGEST = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """How the other client behaves in a round."""

    name: str
    times: float
    """Of its limit."""
    limited: bool = True
    """Whether the limit holds."""
    key: bool = True
    """Whether its key is good."""


@dataclass(slots=True)
class Figures:
    """What became of one way's requests; latencies in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    flood: Counter[int] = field(default_factory=Counter)
    not_sent: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0

    def latency(self, share: int) -> float:
        return float(np.percentile(self.latencies, share))


class Connections:
    """Keep-alive connections to the server, as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, sent: bytes) -> int:
        """Send a request; the status of its answer, 0 where the connection broke."""
        try:
            async with asyncio.timeout(_LONGEST):
                reader, writer = (
                    self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
                )
                writer.write(sent)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = [line.lower() for line in head.split(b"\r\n")]
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return 0
        if b"connection: close" in lines:
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser("python -m bench flood", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--rate", type=float, default=10.0, help="searches a second (10)")
    parser.add_argument("--limit", type=float, default=4.0, help="the other client's limit, requests a second (4)")
    parser.add_argument("--times", type=float, default=50.0, help="how many times its limit it sends (50)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a round (8)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each way (4)")
    parser.add_argument("--only", metavar="NAMES", help="only these ways, by the beginnings of their names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    ways = [
        Way("calm", 0),
        Way("at its limit", 1),
        Way("flood, limited", asked.times),
        Way("flood, no good key", asked.times, key=False),
        Way("flood, fair shares alone", asked.times, limited=False),
    ]
    if asked.only:
        ways = [way for way in ways if way.name.startswith(tuple(asked.only.split(",")))]
    found = {way: Figures() for way in ways}
    print(machine.sentence())
    print(
        f"{asked.rate:g} searches a second beside a client with a limit of {asked.limit:g} a second, {asked.rounds} "
        f"rounds of {asked.seconds:g} s"
    )
    with serving(asked.model, arguments=UNCACHED, demo=True) as server:
        asyncio.run(_measure(server, asked, ways, found))
    _print(found)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(_report(asked, found), indent=2) + "\n")
    return 0


async def _measure(server: Serving, asked: argparse.Namespace, ways: Sequence[Way], found: dict[Way, Figures]) -> None:
    url = EmbeddedPostgres(server.data).url
    own, other, unknown = _new_key(url, "demo"), _new_key(url, "crowd"), new_key()[1]
    await asyncio.sleep(_HEEDED_SECONDS)
    forms = [pictures.form(one, {"limit": "5"}) for one in pictures.distinct(64)]
    searches, floods, refused = ([_search(server.port, form, key) for form in forms] for key in (own, other, unknown))
    await _round(server, Figures(), searches, [], asked.rate, 0, 3.0)  # warm
    for number in range(asked.rounds):
        for way in ways if number % 2 else list(reversed(ways)):
            _limit(url, "crowd", asked.limit if way.limited else None)
            await asyncio.sleep(_HEEDED_SECONDS)
            sent = floods if way.key else refused
            await _round(server, found[way], searches, sent, asked.rate, asked.limit * way.times, asked.seconds)
            if not way.key and found[way].flood[200]:
                raise RuntimeError("Requests without a good key were answered: keys are off.")


async def _round(
    server: Serving,
    found: Figures,
    searches: Sequence[bytes],
    flood: Sequence[bytes],
    rate: float,
    flood_rate: float,
    seconds: float,
) -> None:
    connections, others = Connections(server.port), Connections(server.port)
    waiting = 0

    async def search(number: int, due: float) -> None:
        found.statuses[await connections.ask(searches[number % len(searches)])] += 1
        found.latencies.append((perf_counter() - due) * 1000)

    async def one_of_many(number: int, _: float) -> None:
        nonlocal waiting
        if waiting >= _MOST_WAITING:
            found.not_sent += 1
            return
        waiting += 1
        found.flood[await others.ask(flood[number % len(flood)])] += 1
        waiting -= 1

    before, began = cpu.tree_seconds(server.pid), perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(_steadily(one_of_many, flood_rate, seconds + 0.5))
        await asyncio.sleep(0.5)
        group.create_task(_steadily(search, rate, seconds))
    found.seconds += perf_counter() - began
    found.core_seconds += cpu.tree_seconds(server.pid) - before
    connections.close()
    others.close()


async def _steadily(send, rate: float, seconds: float) -> None:  # type: ignore[no-untyped-def]
    """Begin so many a second, whatever becomes of those before."""
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(send(number, due))


def _search(port: int, form: bytes, key: str) -> bytes:
    return request(
        port, "/v1/search", form, headers={"Content-Type": pictures.FORM_TYPE, "Authorization": f"Bearer {key}"}
    )


def _new_key(url: str, client_id: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        return stored_keys.create(connection, stored_keys.Wanted(client_id, ("search",))).key


def _limit(url: str, client_id: str, rate: float | None) -> None:
    statement = "set_client_limits" if rate is not None else "clear_client_limits"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            Queries.read("limits.sql")[statement],
            {"client_id": client_id, "limits": Jsonb({"requestsPerSecond": rate})},
        )


def _print(found: dict[Way, Figures]) -> None:
    calm = next(iter(found.values()))
    for way, one in found.items():
        sent = f"{one.flood.total() / one.seconds:.0f} a second came: {_counted(one.flood)}" if one.flood else "nothing"
        print(
            f"{way.name}: searches {_counted(one.statuses)}; p50 {one.latency(50):.1f} ms "
            f"({one.latency(50) / calm.latency(50):.2f} of {next(iter(found)).name}), p95 {one.latency(95):.1f} ms "
            f"({one.latency(95) / calm.latency(95):.2f}); {one.core_seconds / one.seconds:.2f} cores; beside it {sent}"
            + (f"; {one.not_sent} not sent" if one.not_sent else "")
        )


def _counted(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


def _report(asked: argparse.Namespace, found: dict[Way, Figures]) -> dict[str, object]:
    return {
        "machine": machine.describe(),
        "rate": asked.rate,
        "limit": asked.limit,
        "times": asked.times,
        "ways": {
            way.name: {
                "searches": dict(one.statuses),
                "p50": one.latency(50),
                "p95": one.latency(95),
                "flood": dict(one.flood),
                "not_sent": one.not_sent,
                "cores": one.core_seconds / one.seconds,
            }
            for way, one in found.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
