"""The load test: callers that search by picture, and callers that embed, against a server that runs already.

    locust -f bench/locustfile.py --headless -u 16 -r 16 -t 30s --host http://127.0.0.1:8000

Every answer is checked, not only timed: a picture of the demo catalogue must find itself first, at 100 %. The summary
at the end comes from what was measured here, in one process; locust's own tables, which round, are printed as well.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
from locust import FastHttpUser, constant_throughput, events

from bench import machine, pictures
from bench.pictures import FORM_TYPE, Picture

SEARCH_DEMO = "search, demo picture"
SEARCH_OTHER = "search, other picture"
EMBED = "embed"
STAGES = ("decode", "queue", "encode", "search")

_PHOTOGRAPHS = 64


@dataclass(slots=True)
class Seen:
    """What came back under one name; times in milliseconds."""

    times: list[float] = field(default_factory=list)
    failures: int = 0
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class Load:
    """What is sent, dealt out in turn to all callers, and what was seen."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[tuple[Picture, bytes]]] = {}
        self.demo_share = 0.0
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.served = ""
        self.began = 0.0
        self.ended = 0.0
        self._turns: dict[str, count[int]] = defaultdict(count)

    def prepare(self, asked: argparse.Namespace) -> None:
        """Make the pictures and encode the forms. Raises ValueError or OSError when there are none."""
        other = pictures.folder(Path(asked.pictures)) if asked.pictures else pictures.photographs(_PHOTOGRAPHS)
        fields = {"clientId": asked.client, "limit": str(asked.limit)}
        self.demo_share = asked.demo_share
        self.bodies = {
            SEARCH_DEMO: [(one, pictures.form(one.data, fields)) for one in pictures.demo()],
            SEARCH_OTHER: [(one, pictures.form(one.data, fields)) for one in other],
            EMBED: [(one, pictures.form(one.data)) for one in other],
        }

    def next(self, kind: str) -> tuple[Picture, bytes]:
        bodies = self.bodies[kind]
        return bodies[next(self._turns[kind]) % len(bodies)]

    def next_search(self) -> str:
        """Demo or other, mixed evenly in the share that was asked for."""
        turn = next(self._turns["mix"])
        return SEARCH_DEMO if int((turn + 1) * self.demo_share) > int(turn * self.demo_share) else SEARCH_OTHER


load = Load()


# --- the callers -----------------------------------------------------------------------------------------------------


def search(user: Any) -> None:
    """POST /v1/search with a picture; a demo picture must come back first, at 100 %."""
    kind = load.next_search()
    picture, body = load.next(kind)
    with _post(user, "/v1/search", kind, body) as answer:
        if wrong := _status(answer) or wrong_search(picture, answer.content):
            answer.failure(wrong)
        else:
            note_stages(load.seen[kind].stages, answer.headers.get("server-timing", ""))


def embed(user: Any) -> None:
    """POST /embed-image; the vector must be of unit length."""
    _, body = load.next(EMBED)
    with _post(user, "/embed-image", EMBED, body) as answer:
        if wrong := _status(answer) or wrong_embedding(answer.content):
            answer.failure(wrong)


def wrong_search(picture: Picture, content: bytes) -> str | None:
    """What is wrong with a search's answer, in a few words; None when nothing is."""
    try:
        results = json.loads(content)["results"]
        if not results:
            return "no results"
        first, similarity = results[0]["productId"], results[0]["similarity"]
    except (ValueError, KeyError, TypeError, IndexError):
        return "the answer is not one of a search"
    # The names of products stay out of it: locust counts each different text as an error of its own.
    if picture.product is not None and first != picture.product:
        return "another product came first"
    if picture.product is not None and similarity != 100.0:
        return "the same picture came first, but below 100 %"
    return None


def wrong_embedding(content: bytes) -> str | None:
    try:
        vector = np.asarray(json.loads(content)["embedding"], dtype=np.float64)
    except (ValueError, KeyError, TypeError):
        return "the answer is not an embedding"
    return None if vector.ndim == 1 and abs(np.linalg.norm(vector) - 1) < 1e-3 else "the vector is not of unit length"


def _post(user: Any, path: str, name: str, body: bytes) -> Any:
    # Bytes that were encoded once: locust's own `files` would build the form anew for each request.
    return user.client.post(path, data=body, name=name, headers={"Content-Type": FORM_TYPE}, catch_response=True)


def _status(answer: Any) -> str | None:
    if answer.status_code == 200:
        return None
    if not answer.status_code:
        return "no answer"
    try:
        return f"{answer.status_code} {json.loads(answer.content)['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}"


def note_stages(stages: dict[str, list[float]], header: str) -> None:
    """`decode;dur=4.1, queue;dur=2.0`: the Server-Timing header, in milliseconds."""
    for entry in header.split(","):
        stage, _, duration = entry.strip().partition(";dur=")
        if stage in STAGES:
            stages[stage].append(float(duration))


# locust.User has no types that a strict checker could read: hence Any as a base.
class Searcher(FastHttpUser):  # type: ignore[misc]
    """Somebody who looks for a product by its picture."""

    weight = 3
    tasks = [search]  # noqa: RUF012 - locust's own way of naming what a user does


class Embedder(FastHttpUser):  # type: ignore[misc]
    """The older application, which asks for vectors."""

    weight = 1
    tasks = [embed]  # noqa: RUF012


# --- around the run --------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("twinlens")
    group.add_argument("--pictures", metavar="FOLDER", default="", help="pictures to send; else photographs, 640 x 480")
    group.add_argument("--demo-share", type=float, default=0.5, help="share of demo pictures among searches (0.5)")
    group.add_argument("--client", default="demo", help="clientId to search as (demo)")
    group.add_argument("--limit", type=int, default=24, help="matches to ask for (24)")
    group.add_argument("--rate", type=float, default=0.0, help="requests a second, of all callers together (no pause)")
    group.add_argument("--allow-remote", action="store_true", help="load a server that is not on this machine")


def begin(environment: Any, **_: Any) -> None:
    """Refuse what could harm somebody, make the pictures, set the pace."""
    asked = environment.parsed_options
    if asked is None:
        return
    if refusal := refused(environment.host or "", asked):
        sys.exit(f"bench: {refusal}")
    try:
        load.served = ready(environment.host)
        load.prepare(asked)
    except (ValueError, OSError) as error:
        sys.exit(f"bench: {error}")
    if asked.rate > 0:
        for kind in environment.user_classes:
            kind.wait_time = constant_throughput(asked.rate / (asked.num_users or 1))


def ready(host: str) -> str:
    """What the server runs, in a few words. Raises OSError when it is not ready, ValueError when it is not ours."""
    try:
        with urlopen(f"{host.rstrip('/')}/health/ready", timeout=10) as answer:  # noqa: S310 - http, see `refused`
            told = json.loads(answer.read())
        return f"{told['model']} ({told['precision']}) on {told['device']}, space {told['space'][:12]}"
    except OSError as exc:
        raise OSError(f"no server is ready at {host}: {exc}") from exc
    except (HTTPException, ValueError, KeyError, TypeError) as exc:
        raise ValueError(f"what answers at {host} is no Twinlens: /health/ready tells of no model") from exc


def refused(host: str, asked: argparse.Namespace) -> str | None:
    """Why this run is not made; None when it may be."""
    name = urlsplit(host).hostname
    if name is None or urlsplit(host).scheme not in ("http", "https"):
        return "say which server, such as --host http://127.0.0.1:8000"
    if not asked.allow_remote and not _is_loopback(name):
        return f"{name} is not this machine; --allow-remote loads it all the same, and somebody may be using it"
    if not asked.headless or not asked.run_time:
        return "run it with --headless and an end, such as -t 30s"
    if not 0 <= asked.demo_share <= 1:
        return "--demo-share takes 0 to 1"
    return None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def started(**_: Any) -> None:
    load.began = perf_counter()


def answered(name: str, response_time: float, exception: Exception | None, **_: Any) -> None:
    """Called by locust for each request, after the checks above."""
    load.ended = perf_counter()
    if exception is None:
        load.seen[name].times.append(response_time)
    else:
        load.seen[name].failures += 1


def report(environment: Any, **_: Any) -> None:
    """The summary. Failures make the exit code 1, as locust itself does."""
    if not load.seen:
        return
    for line in summary(load):
        print(line)


def summary(done: Load) -> Iterable[str]:
    seconds = max(done.ended - done.began, 1e-9)
    yield ""
    yield machine.sentence()
    yield done.served
    yield f"{'':24}{'answered':>9}{'failed':>8}{'per s':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}"
    for name, seen in sorted(done.seen.items()):
        yield _row(name, seen.times, seen.failures, seconds)
    everything = [one for seen in done.seen.values() for one in seen.times]
    yield _row("all", everything, sum(seen.failures for seen in done.seen.values()), seconds)
    for name, seen in sorted(done.seen.items()):
        if seen.stages:
            means = ", ".join(f"{stage} {np.mean(seen.stages[stage]):.1f}" for stage in STAGES if seen.stages[stage])
            yield f"mean ms by stage ({name}): {means}"


def _row(name: str, times: list[float], failures: int, seconds: float) -> str:
    percentiles = np.percentile(times, (50, 95, 99)) if times else (float("nan"),) * 3
    figures = "".join(f"{value:9.0f}" for value in percentiles)
    return f"{name:24}{len(times):9}{failures:8}{len(times) / seconds:8.1f}{figures}"


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(begin)
events.test_start.add_listener(started)
events.request.add_listener(answered)
events.quitting.add_listener(report)
