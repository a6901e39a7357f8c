"""python -m bench sideways: can a client tell, by answers or their times, what another client has sent or owns?

A server of its own has two clients. One adds pictures and products, searches, and sends pictures. The other then asks
about something that the first one has, and about the like that nobody has, in pairs, in a random order within each: the
same pixels with other bytes behind them, an id drawn in the same way. What a pair gets must be equal but for the ids of
its requests and the times in it; and of the times, neither may be the longer one more often than a coin would have it.

It shows differences that are large against the noise of this machine, and how large one could still be: the interval in
which the median of the paired differences lies, at 95 %. It cannot show that there is none. The last row is another
kind, to show that what is looked for would be seen: a client that sends what it has sent itself must be told apart.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from bench import machine, pictures
from bench.serving import serving

_TIMEOUT = 120.0
_ERROR = 0.01
"""Chance that a run finds a difference where there is none, all questions together."""

_OWNED = 20
_THEM, _US = "them", "us"
# What differs between any two answers.
_OWN = ("requestId", "timings", "embedding", "id", "createdAt", "updatedAt")

_Files = tuple[bytes, bytes, bytes]


class Asked(NamedTuple):
    """A request of the client that asks."""

    method: str
    path: str
    body: bytes = b""
    kind: str = "application/json"


class Pair(NamedTuple):
    """What another client has, and the like that nobody has; and what that client asks meanwhile, if anything."""

    known: Asked
    unknown: Asked
    beside_known: Asked | None = None
    beside_unknown: Asked | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, without what differs between any two; its milliseconds."""

    said: str
    ms: float


@dataclass(slots=True)
class Told:
    """What the pairs of a question got."""

    known: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def chance(self) -> float:
        """The chance that a coin falls at least as unevenly: a sign test, two-sided."""
        signs = np.sign(np.subtract(self.known, self.unknown))
        count, most = int(np.count_nonzero(signs)), max(int((signs > 0).sum()), int((signs < 0).sum()))
        ways = sum(math.comb(count, one) for one in range(most, count + 1))
        return min(1.0, float(2 * ways / 2**count))

    @property
    def interval(self) -> tuple[float, float, float]:
        """The median of the paired differences, known less unknown, and the bounds that it lies between at 95 %."""
        sorted_ = np.sort(np.subtract(self.known, self.unknown))
        count = len(sorted_)
        low = max(0, int(count / 2 - 0.98 * math.sqrt(count)))
        return float(np.median(sorted_)), float(sorted_[low]), float(sorted_[count - 1 - low])


class Caller:
    """A connection to the server that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)

    def ask(self, asked: Asked) -> tuple[int, http.client.HTTPMessage, bytes, float]:
        """Status, headers, body, milliseconds."""
        headers = {"Content-Type": asked.kind} if asked.body else {}
        started = perf_counter()
        self._connection.request(asked.method, asked.path, asked.body or None, headers)
        answer = self._connection.getresponse()
        body = answer.read()
        return answer.status, answer.headers, body, (perf_counter() - started) * 1000

    def answer(self, asked: Asked) -> Answer:
        status, headers, body, ms = self.ask(asked)
        kept = {name: value for name, value in json.loads(body).items() if name not in _OWN}
        stages = [stage.partition(";dur")[0] for stage in headers.get("Server-Timing", "").split(", ")]
        names = sorted(name.lower() for name in headers)
        return Answer(f"{status} {json.dumps(kept, sort_keys=True)} {stages} {names}", ms)

    def must(self, asked: Asked) -> dict[str, Any]:
        """The body of a successful answer. Raises RuntimeError."""
        status, _, body, _ = self.ask(asked)
        if status >= 300:
            raise RuntimeError(f"{asked.method} {asked.path} was answered {status}: {body.decode()[:300]}")
        found: dict[str, Any] = json.loads(body)
        return found


class Other:
    """The client that has things, and what is drawn in the same way and is nobody's."""

    def __init__(self, port: int, photographs: Iterator[_Files]) -> None:
        self._caller = Caller(port)
        self._photographs = photographs
        self.product = self._product()
        self.media = [self._media() for _ in range(_OWNED)]

    def picture(self) -> _Files:
        """Files with the same pixels, and bytes that nobody has sent."""
        return next(self._photographs)

    def _product(self) -> str:
        name = f"p-{uuid.uuid4().hex}"
        self._caller.must(Asked("PUT", f"/v1/products/{name}?clientId={_THEM}", b'{"name": "A thing"}'))
        return name

    def new_product(self) -> str:
        return self._product()

    def _media(self) -> str:
        return self.upload(self.picture()[0])

    def upload(self, data: bytes) -> str:
        path = f"/v1/products/{self.product}/media?clientId={_THEM}"
        return str(self._caller.must(Asked("POST", path, pictures.form(data), pictures.FORM_TYPE))["id"])

    def do(self, asked: Asked) -> None:
        self._caller.must(asked)


def _search(data: bytes, client: str) -> Asked:
    return Asked("POST", f"/v1/search?clientId={client}", pictures.form(data), pictures.FORM_TYPE)


def _embed(data: bytes, client: str) -> Asked:
    return Asked("POST", f"/embed-image?clientId={client}", pictures.form(data), pictures.FORM_TYPE)


def _words(text: str, client: str) -> Asked:
    return Asked("POST", "/v1/search", json.dumps({"text": text, "clientId": client}).encode())


def _uploaded(other: Other) -> Pair:
    known, unknown, _ = other.picture()
    other.upload(known)
    return Pair(_search(known, _US), _search(unknown, _US))


def _searched(other: Other) -> Pair:
    known, unknown, _ = other.picture()
    other.do(_search(known, _THEM))
    return Pair(_embed(known, _US), _embed(unknown, _US))


def _typed(other: Other) -> Pair:
    known, unknown = (f"red shoes {uuid.uuid4().int % 10**12:012}" for _ in range(2))
    other.do(_words(known, _THEM))
    return Pair(_words(known, _US), _words(unknown, _US))


def _under_way(other: Other) -> Pair:
    known, unknown, third = other.picture()
    return Pair(_embed(known, _US), _embed(unknown, _US), _embed(known, _THEM), _embed(third, _THEM))


def _own(other: Other) -> Pair:
    known, unknown, _ = other.picture()
    other.do(_embed(known, _US))
    return Pair(_embed(known, _US), _embed(unknown, _US))


def _of_media(method: str, path: str) -> Callable[[Other], Pair]:
    def pair(other: Other) -> Pair:
        ids = (random.choice(other.media), uuid.uuid4().hex)  # noqa: S311 - no secret
        known, unknown = (Asked(method, f"/v1/media/{one}{path}?clientId={_US}") for one in ids)
        return Pair(known, unknown)

    return pair


def _like_media(other: Other) -> Pair:
    ids = (random.choice(other.media), uuid.uuid4().hex)  # noqa: S311 - no secret
    bodies = (json.dumps({"mediaId": one, "clientId": _US}).encode() for one in ids)
    known, unknown = (Asked("POST", "/v1/search", body) for body in bodies)
    return Pair(known, unknown)


def _of_product(method: str) -> Callable[[Other], Pair]:
    def pair(other: Other) -> Pair:
        ids = (other.product, f"p-{uuid.uuid4().hex}")
        known, unknown = (Asked(method, f"/v1/products/{one}?clientId={_US}") for one in ids)
        return Pair(known, unknown)

    return pair


def _put_product(other: Other) -> Pair:
    ids = (other.new_product(), f"p-{uuid.uuid4().hex}")
    known, unknown = (Asked("PUT", f"/v1/products/{one}?clientId={_US}", b'{"name": "Ours"}') for one in ids)
    return Pair(known, unknown)


def _add_to_product(other: Other) -> Pair:
    form = pictures.form(other.picture()[0])
    ids = (other.product, f"p-{uuid.uuid4().hex}")
    paths = (f"/v1/products/{one}/media?clientId={_US}" for one in ids)
    known, unknown = (Asked("POST", path, form, pictures.FORM_TYPE) for path in paths)
    return Pair(known, unknown)


QUESTIONS: dict[str, Callable[[Other], Pair]] = {
    "search: a picture that it has uploaded": _uploaded,
    "embed: a picture that it has just searched with": _searched,
    "embed: a picture that it is sending now": _under_way,
    "search: words that it has just typed": _typed,
    "search: its media": _like_media,
    "GET its media": _of_media("GET", ""),
    "GET its media's thumbnail": _of_media("GET", "/thumbnail"),
    "GET its media's file": _of_media("GET", "/file"),
    "GET its media's duplicates": _of_media("GET", "/duplicates"),
    "DELETE its media": _of_media("DELETE", ""),
    "GET its product": _of_product("GET"),
    "DELETE its product": _of_product("DELETE"),
    "PUT its product's id": _put_product,
    "POST a picture to its product": _add_to_product,
}
CONTROL = "embed: a picture of one's own, again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down. The exit code is 0 where nothing could be told apart but the control."""
    parser = argparse.ArgumentParser("python -m bench sideways", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of each question (200)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only questions with these words in them")
    parser.add_argument("--seed", type=int, default=0, help="of what comes first in each pair (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    draw = random.Random(asked.seed)  # noqa: S311 - no secret
    questions = {question: pair for question, pair in QUESTIONS.items() if asked.only in question}
    questions[CONTROL] = _own
    told = {question: Told() for question in questions}
    with serving(asked.model) as server:
        other, us, beside = Other(server.port, _photographs()), Caller(server.port), Caller(server.port)
        for number in range(-3, asked.pairs):  # the first few warm up
            for question, pair in questions.items():
                known, unknown = _ask_both(us, beside, pair(other), draw)
                if number >= 0:
                    _note(told[question], known, unknown)
    return _report(told, asked)


def _ask_both(us: Caller, beside: Caller, pair: Pair, draw: random.Random) -> tuple[Answer, Answer]:
    answers: dict[bool, Answer] = {}
    for is_known in draw.sample((True, False), 2):
        with _doing(beside, pair.beside_known if is_known else pair.beside_unknown):
            answers[is_known] = us.answer(pair.known if is_known else pair.unknown)
    return answers[True], answers[False]


@contextmanager
def _doing(caller: Caller, asked: Asked | None) -> Iterator[None]:
    """Have the other client ask at the same time."""
    if asked is None:
        yield
        return
    thread = threading.Thread(target=caller.ask, args=(asked,))
    thread.start()
    yield
    thread.join()


def _photographs() -> Iterator[_Files]:
    """Three files of the same pixels: a photograph with other bytes behind its end, which decoders ignore."""
    found = [one.data for one in pictures.photographs(32)]
    while True:
        for data in found:
            yield data + uuid.uuid4().bytes, data + uuid.uuid4().bytes, data + uuid.uuid4().bytes


def _note(told: Told, known: Answer, unknown: Answer) -> None:
    told.known.append(known.ms)
    told.unknown.append(unknown.ms)
    if known.said != unknown.said:
        told.differences.append(f"{known.said[:200]} / {unknown.said[:200]}")


def _report(told: dict[str, Told], asked: argparse.Namespace) -> int:
    least = _ERROR / len(QUESTIONS)
    print(f"{asked.pairs} pairs of each; told apart where answers differ, or below a chance of {least:.5f}.\n")
    print(f"{'':49}{'its':>8}{'nobodys':>9}  {'difference, ms (95 %)':28}{'chance':>7}")
    apart = []
    for question, one in told.items():
        middle, low, high = one.interval
        told_apart = bool(one.differences) or one.chance < least
        apart += [question] if told_apart else []
        row = f"{question:49}{np.median(one.known):8.2f}{np.median(one.unknown):9.2f}"
        print(f"{row}  {middle:+7.3f} ({low:+.3f} to {high:+.3f})   {one.chance:7.4f}{'  APART' if told_apart else ''}")
        for difference in one.differences[:1]:
            print(f"    {len(one.differences)} answers differ: {difference}")
    if asked.json is not None:
        written = {
            "machine": machine.describe(),
            "pairs": asked.pairs,
            "questions": {
                question: {"its": one.known, "nobodys": one.unknown, "differ": len(one.differences)}
                for question, one in told.items()
            },
        }
        asked.json.write_text(json.dumps(written, indent=1) + "\n")
    if apart != [CONTROL]:
        print(f"\nTold apart: {', '.join(apart) or 'not even the control, so that this run shows nothing'}")
        return 1
    print("\nNothing of the other client could be told apart; what one has sent oneself could.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
