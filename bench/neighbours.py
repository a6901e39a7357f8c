"""python -m bench neighbours: what one client's bulk calls cost the searches of another.

A server of its own answers one client's searches, which arrive at a steady rate, while another client sends no bulk
calls, one at a time, or several at once: each embeds 256 pictures of its own, and is followed by the next as soon as it
is answered or refused. The three ways take turns in rounds, and the figures are compared within the run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep

import numpy as np

from bench import machine, pictures
from bench.serving import UNCACHED, serving

_FEWEST_REFUSED_PAUSE = 1.0  # seconds, as `Retry-After` says at least
_TIMEOUT = 120.0


@dataclass(slots=True)
class Figures:
    """What the searches of one way of working met; latencies in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bulk: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def latency(self, share: int) -> float:
        return float(np.percentile(self.latencies, share))

    @property
    def refused(self) -> int:
        return self.statuses.total() - self.statuses[200]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser("python -m bench neighbours", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--rate", type=float, default=5.0, help="searches a second (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round (10)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way (3)")
    parser.add_argument("--calls", type=int, default=4, help="bulk calls at once in the third way (4)")
    parser.add_argument("--size", type=int, default=256, help="pictures of a bulk call (256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    ways = {0: Figures(), 1: Figures(), asked.calls: Figures()}
    with serving(asked.model, arguments=UNCACHED, demo=True) as server:
        searches = [pictures.form(one, {"clientId": "demo", "limit": "5"}) for one in pictures.distinct(64)]
        many = _bulk(asked.size, asked.calls)
        print(machine.sentence())
        print(
            f"{asked.rate:g} searches a second beside bulk calls of {asked.size} pictures, {asked.seconds:g} s a round"
        )
        _run(server.port, Figures(), searches, many, 0, asked.rate, 3.0)  # warm
        for number in range(asked.rounds):
            for calls in sorted(ways, reverse=bool(number % 2)):
                _run(server.port, ways[calls], searches, many, calls, asked.rate, asked.seconds)
    alone = ways[0].latency(95)
    for calls, found in ways.items():
        print(
            f"beside {calls} bulk calls: {found.statuses.total()} searches, {found.refused} refused; p50 "
            f"{found.latency(50):.0f} ms, p95 {found.latency(95):.0f} ms ({found.latency(95) / alone:.2f} of alone); "
            f"{found.bulk[200] * asked.size / found.seconds:.1f} pictures/s in bulk, "
            f"{found.bulk.total() - found.bulk[200]} bulk calls refused"
        )
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(_report(asked, ways), indent=2) + "\n")
    return 0


def _report(asked: argparse.Namespace, ways: dict[int, Figures]) -> dict[str, object]:
    return {
        "machine": machine.describe(),
        "rate": asked.rate,
        "size": asked.size,
        "ways": {
            str(calls): {
                "searches": dict(found.statuses),
                "p50": found.latency(50),
                "p95": found.latency(95),
                "bulk": dict(found.bulk),
                "bulk_pictures_per_second": found.bulk[200] * asked.size / found.seconds,
            }
            for calls, found in ways.items()
        },
    }


def _bulk(size: int, calls: int) -> list[bytes]:
    """The forms of so many bulk calls. Their pictures differ: equal ones are embedded once."""
    part = f'--{pictures.BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n\r\n'.encode()
    chunks = [part + one + b"\r\n" for one in pictures.distinct(size * calls)]
    end = f"--{pictures.BOUNDARY}--\r\n".encode()
    return [b"".join([*chunks[call * size :][:size], end]) for call in range(calls)]


def _run(
    port: int, found: Figures, searches: Sequence[bytes], many: Sequence[bytes], calls: int, rate: float, seconds: float
) -> None:
    """One round: so many bulk calls at once for so long, and searches that arrive meanwhile."""
    ended = threading.Event()

    def send_bulk(body: bytes) -> None:
        while not ended.is_set():
            status = _post(port, "/v1/embeddings?clientId=crowd", body)
            found.bulk[status] += 1
            if status != 200:
                ended.wait(_FEWEST_REFUSED_PAUSE)

    def search(number: int) -> None:
        started = perf_counter()
        found.statuses[_post(port, "/v1/search", searches[number % len(searches)])] += 1
        found.latencies.append((perf_counter() - started) * 1000)

    started = perf_counter()
    with ThreadPoolExecutor(calls + 64) as threads:
        bulk = [threads.submit(send_bulk, many[call]) for call in range(calls)]
        sleep(1.0 if calls else 0.0)  # by then the first bulk call is being embedded
        begin = perf_counter()
        asked = []
        for number in range(int(rate * seconds)):
            sleep(max(0.0, begin + number / rate - perf_counter()))
            asked.append(threads.submit(search, number))
        for one in asked:
            one.result()
        ended.set()
        for one in bulk:
            one.result()
    found.seconds += perf_counter() - started


def _post(port: int, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("POST", path, body, {"Content-Type": pictures.FORM_TYPE})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
