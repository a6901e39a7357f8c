"""Requests at random, sent to a server with keys: each is done or refused, in the words of /schema, and none is let in
that may not.

The same seed makes the same requests, as far as there is time. Nothing is shrunk: a fault is printed with its bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

import twinlens
from bench.fuzz import shop as shops
from bench.fuzz.contract import Schema
from bench.fuzz.shop import ATTRIBUTES, Shop
from bench.fuzz.strategies import JSON, KINDS, Strategy, bearer, dumped, keys
from bench.fuzz.talk import Answered, Asked, ask
from bench.serving import UNCACHED, serving
from server.postgres.server import EmbeddedPostgres

_LOGGED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_SHOWN = 600
_REFUSED = (0, 400, 401, 431)
"""Statuses of a key that is none: our own, and those of the HTTP layer for what is no header."""


@dataclass
class Tally:
    """What came of many requests, by kind."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.statuses.values())

    @property
    def table(self) -> str:
        lines = []
        for kind, counts in self.statuses.items():
            said = ", ".join(f"{count:,} x {status or 'closed'}" for status, count in sorted(counts.items()))
            lines.append(f"{kind:8}{sum(counts.values()):8,}  {said}")
        return "\n".join(lines)

    def add(self, kind: str, asked: Asked, answered: Answered, faults: Sequence[str]) -> None:
        self.statuses.setdefault(kind, Counter())[answered.status] += 1
        self.faults += [f"{asked.title}: {fault}\n    {asked.wire[:_SHOWN]!r}" for fault in faults]


def run(model: Path, count: int, seconds: float, chosen: int) -> Tally:
    """So many requests of each kind, or as many as there is time for, to a server that is started for it.

    `seconds`: for all kinds together; `chosen`: the seed. Raises RuntimeError where the server does not start.
    """
    with serving(model, arguments=UNCACHED) as server:
        logged = len(server.log())
        tally = send_all(server.port, EmbeddedPostgres(server.data).url, count, seconds, chosen)
        for line in server.log()[logged:].splitlines():
            if not _LOGGED.match(line):
                tally.faults.append(f"the server's log has a bare line: {line[:200]}")
    return tally


def send_all(port: int, url: str, count: int, seconds: float, chosen: int) -> Tally:
    """As `run`, to a server that runs on the database at `url`, whose callers need no key yet. Raises RuntimeError."""
    tally = Tally()
    shop = shops.fill(url, port)
    schema = Schema(ask(port, Asked("schema", "GET", b"/schema/openapi.json")).json)
    derived = search_key(shop.searcher)
    before = _steady(port, shop)
    kinds = {name: make(shop) for name, make in KINDS.items()} | {"keys": keys(shop, derived)}
    looks: dict[str, Callable[[Asked, Answered], list[str]]] = {"filters": _unmet, "keys": _let_in}
    for name, requests in kinds.items():

        def look(asked: Asked, kind: str = name) -> None:
            try:
                answered = ask(port, asked)
            except OSError as exc:
                tally.faults.append(f"{asked.title}: no answer: {exc}\n    {asked.wire[:_SHOWN]!r}")
                return
            faults = [*schema.faults(asked, answered)]
            if kind in looks:
                faults += looks[kind](asked, answered)
            tally.add(kind, asked, answered, faults)

        _send(requests, look, count, seconds / len(kinds), chosen)
    if derived is not None:
        _flip_each_bit(derived, port, tally)
    if _steady(port, shop) != before:
        tally.faults.append("a search of a client that nobody wrote to has another answer than before")
    return tally


def _send(requests: Strategy, look: Callable[[Asked], None], count: int, seconds: float, chosen: int) -> None:
    until = perf_counter() + seconds

    @seed(chosen)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def send(asked: Asked) -> None:
        if perf_counter() < until:
            look(asked)

    send()


def _steady(port: int, shop: Shop) -> Any:
    """What the steady client's search says, but for its time."""
    body = dumped({"text": "a keyboard", "limit": 3})
    headers = [JSON, bearer(shop.searcher)]
    answered = ask(port, Asked("steady", "POST", b"/v1/search", "/v1/search", headers, body))
    found = answered.json
    return answered.status, {name: value for name, value in found.items() if name not in ("timings", "requestId")}


def _unmet(asked: Asked, answered: Answered) -> list[str]:
    """A filter must not find what does not meet it, whatever its keys and values mean to a layer below."""
    if answered.status != 200 or not answered.json["results"]:
        return []
    conditions = json.loads(asked.body)["filter"]["attributes"]
    if all(_may_be_met(name, condition) for name, condition in conditions.items()):
        return []
    return [f"a filter that the product does not meet has found it: {conditions!r}"]


def _may_be_met(name: str, condition: Any) -> bool:
    """Whether the product may meet a condition; a range is taken as met where there is a number."""
    if name not in ATTRIBUTES:
        return False
    have = ATTRIBUTES[name]
    if isinstance(condition, dict):
        return isinstance(have, int) and not isinstance(have, bool)
    wanted = condition if isinstance(condition, list) else [condition]
    return any((type(one) is type(have) and one == have) or _same_number(one, have) for one in wanted)


def _same_number(one: Any, other: Any) -> bool:
    return (
        all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)) and one == other
    )


def _let_in(_asked: Asked, answered: Answered) -> list[str]:
    return [] if answered.status in _REFUSED else [f"{answered.status} for a key that nobody was given"]


def search_key(parent: str) -> str | None:
    """A search key that is derived from this key; None where this version has none."""
    derive: Callable[..., str] | None = getattr(twinlens, "derive_search_key", None)
    if derive is None:
        return None
    return derive(parent, filter={"attributes": {"colour": "red"}}, limit=5, expires=timedelta(hours=1))


def _flip_each_bit(derived: str, port: int, tally: Tally) -> None:
    """No search key is good that differs in a bit of what is said or of its signature."""
    good = ask(port, _searching(derived.encode()))
    tally.add(
        "bits", _searching(derived.encode()), good, [] if good.status == 200 else ["a good search key is refused"]
    )
    for part, text in enumerate(derived.split(".")):
        if not part:
            continue  # the prefix
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            parts: list[str] = derived.split(".")
            parts[part] = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
            asked = _searching(".".join(parts).encode())
            answered = ask(port, asked)
            tally.add("bits", asked, answered, _let_in(asked, answered))


def _searching(key: bytes) -> Asked:
    return Asked("bits", "POST", b"/v1/search", "/v1/search", [JSON, bearer(key)], b'{"text":"a"}')
