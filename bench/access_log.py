"""python -m bench access-log: what a line of the access log for each request costs.

Servers of its own, one without the access log and one for each form of it, answer the cheapest request that asks the
database: callers read a product again and again. The servers take turns in rounds, and the figures are compared within
the run. The log goes to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.closed_loop import Answer, request, run_http
from bench.serving import Serving, serving

_FORMS = ("text", "json")


@dataclass(slots=True)
class Figures:
    """Of one server's rounds, in order."""

    microseconds: list[float] = field(default_factory=list)
    """Of a core for each request, by all of the server's processes."""
    rates: list[float] = field(default_factory=list)
    """Requests answered a second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser("python -m bench access-log", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round (5)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of each server (6)")
    parser.add_argument("--callers", type=int, default=4, help="callers at once (4)")
    parser.add_argument("--form", action="append", choices=_FORMS, help="measure this form alone; may be given twice")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    flags = {"off": ("--access-log", "off"), **{form: ("--log", form) for form in asked.form or _FORMS}}
    with contextlib.ExitStack() as stack:
        servers = {way: stack.enter_context(serving(asked.model, arguments=given)) for way, given in flags.items()}
        for server in servers.values():
            _put(server)
            _round(server, Figures(), 1.0, asked.callers)  # warm
        found = {way: Figures() for way in servers}
        for number in range(asked.rounds):
            for way in sorted(servers, reverse=bool(number % 2)):
                _round(servers[way], found[way], asked.seconds, asked.callers)
        lines = {way: server.log().count("/v1/products/kettle") for way, server in servers.items()}
    print(machine.sentence())
    for way, one in found.items():
        print(
            f"access log {way}: {statistics.median(one.rates):,.0f} requests a second, "
            f"{statistics.median(one.microseconds):.0f} µs of a core each ({_ratio(one, found['off']):.3f} of off)"
        )
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(_report(asked, found, lines), indent=2) + "\n")
    return 0


def _ratio(one: Figures, off: Figures) -> float:
    """Median over the rounds, each of which is compared with the one beside it."""
    return statistics.median(a / b for a, b in zip(one.microseconds, off.microseconds, strict=True))


def _report(asked: argparse.Namespace, found: dict[str, Figures], lines: dict[str, int]) -> dict[str, object]:
    return {
        "machine": machine.describe(),
        "callers": asked.callers,
        "ways": {
            way: {
                "microseconds": one.microseconds,
                "rates": one.rates,
                "ratio": _ratio(one, found["off"]),
                "lines": lines[way],
            }
            for way, one in found.items()
        },
    }


def _put(server: Serving) -> None:
    """Raises RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("PUT", "/v1/products/kettle", b'{"name": "Kettle"}', {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 201:
        raise RuntimeError(f"the server answered {answer.status}: {answer.read(500).decode(errors='replace')}")
    connection.close()


def _round(server: Serving, found: Figures, seconds: float, callers: int) -> None:
    marks: list[float] = []
    count = 0

    def count_one(_: Answer, __: float) -> None:
        nonlocal count
        count += 1

    def mark() -> None:
        marks.append(server.cpu_seconds())

    get = request(server.port, "/v1/products/kettle", method="GET")
    answered, _ = asyncio.run(
        run_http(server.port, [get], seconds, callers, on_answer=count_one, on_begin=mark, on_end=mark)
    )
    found.microseconds.append((marks[1] - marks[0]) / max(count, 1) * 1e6)
    found.rates.append(answered.pictures_per_second)
