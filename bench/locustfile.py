"""The load test: callers that search by picture and by words, embed, and put products in, against a running server.

    locust -f bench/locustfile.py --headless -u 16 -r 16 -t 30s --host http://127.0.0.1:8000

Every answer is checked, not only timed: a picture of the demo catalogue must find itself first, at 100 %. The summary
at the end comes from what was measured here, in one process; locust's own tables, which round, are printed as well.

`-u 16` is a closed loop: each caller asks again when it is answered. `--rps 20` is an open one: requests leave at that
pace whatever becomes of those before them, and the time of each is counted from when it should have left.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, events

from bench import cpu, machine
from bench.load import traffic
from bench.load.figures import STAGES, Answer, Outcome, Window, figures, read_stages
from bench.load.traffic import KEY_VARIABLE, Request, Traffic

_MOST_IN_FLIGHT = 1000
# Longer than the server's own deadline, so that each request is answered or refused before we give it up.
_PATIENCE = 40.0
_LONGEST_REST = 10.0
_CLEANERS = 8


class Load:
    """What this run is, and what was seen of it."""

    def __init__(self) -> None:
        self.traffic: Traffic
        self.mix: dict[str, int] = {}
        self.served: dict[str, Any] = {}
        self.key = ""
        self.rps = 0.0
        self.warm_up = 0.0
        self.server_pid = 0
        self.answers: list[Answer] = []
        self.began = 0.0
        self.ended: float | None = None
        self.cpu = 0.0
        self.server_cpu = 0.0
        self.left_behind: list[str] = []

    def mark(self) -> None:
        """The warm-up is over."""
        self.began, self.cpu = perf_counter(), process_time()
        self.server_cpu = cpu.tree_seconds(self.server_pid) if self.server_pid else 0.0

    def window(self) -> Window:
        return Window(self.began, self.ended or perf_counter(), self.cpu, self.server_cpu if self.server_pid else None)

    def end(self) -> None:
        """Nothing more is sent; what is on its way is still waited for."""
        self.ended = perf_counter()
        self.cpu = process_time() - self.cpu
        if self.server_pid:
            self.server_cpu = cpu.tree_seconds(self.server_pid) - self.server_cpu


load = Load()


# --- the callers -----------------------------------------------------------------------------------------------------


def ask_again(user: Any) -> None:
    """Closed loop: one request, and then the next. A caller that is refused rests as long as the server asked it to."""
    gevent.sleep(send(user, perf_counter()))


def keep_pace(user: Any) -> None:
    """Open loop: each request leaves when it is due, whatever became of those before it."""
    pool = Pool()
    try:
        for due in _pace(load.rps * user.share):
            gevent.sleep(max(0.0, due - perf_counter()))
            if load.ended is not None and due >= load.ended:
                break
            pool.spawn(send, user, due)
        pool.join()
    finally:
        pool.kill()  # what is not answered by now has failed, and is counted as that


def _pace(rate: float) -> Iterator[float]:
    began = perf_counter()
    return (began + turn / rate for turn in count())


def send(user: Any, due: float) -> float:
    """Send what is next, check the answer, record it; gives the seconds that the server asks callers to stay away."""
    request = load.traffic.next(next(user.turns))
    headers = {"Content-Type": request.content_type, **_authorization()}
    sent, rest = perf_counter(), 0.0
    outcome: Outcome = "failed"
    reason, cached = "no answer", False
    stages: dict[str, float] = {}
    try:
        # Bytes that were encoded once: locust's own `files` would build the form again for each request.
        with user.client.request(
            request.method, request.path, name=request.name, data=request.body, headers=headers, catch_response=True
        ) as answer:
            came = perf_counter()
            # Locust's own tables are to show what a caller waited, too.
            answer.request_meta["response_time"] = (came - due) * 1000
            outcome, reason = _judged(request, answer)
            if outcome == "answered":
                stages, cached = read_stages(answer.headers.get("server-timing", ""))
                if request.product is not None:
                    load.traffic.is_there(request.product)
                answer.success()
            else:
                rest = _rest(answer) if outcome == "refused" else 0.0
                answer.failure(f"{outcome}: {reason}")
    except gevent.GreenletExit:
        came = perf_counter()
        raise
    finally:
        load.answers.append(Answer(request.name, due, sent, came, outcome, reason, stages, cached))
    return rest


def _judged(request: Request, answer: Any) -> tuple[Outcome, str]:
    if answer.status_code in (200, 201):
        wrong = request.wrong(answer.content)
        return ("failed", wrong) if wrong else ("answered", "")
    if not answer.status_code:
        return "failed", "no answer"
    try:
        reason = f"{answer.status_code} {json.loads(answer.content)['code']}"
    except (ValueError, KeyError, TypeError):
        reason = f"{answer.status_code}"
    return ("refused" if answer.status_code in (429, 503) else "failed"), reason


def _rest(answer: Any) -> float:
    try:
        return min(max(0.0, float(answer.headers.get("retry-after", ""))), _LONGEST_REST)
    except ValueError:
        return 0.0


def _authorization() -> dict[str, str]:
    return {"Authorization": f"Bearer {load.key}"} if load.key else {}


# locust.User has no types that a strict checker could read: hence Any as a base.
class Caller(FastHttpUser):  # type: ignore[misc]
    """Somebody who does everything, in the shares of --mix. Runs alone where no class is named."""

    kinds: tuple[str, ...] = traffic.KINDS
    share = 1.0
    tasks = [ask_again]  # noqa: RUF012 - locust's own way of naming what a user does
    turns: Iterator[str]

    # One user of the open loop has them all on its way; connections are made as they are needed, and used again.
    concurrency = _MOST_IN_FLIGHT
    network_timeout = _PATIENCE
    connection_timeout = _PATIENCE
    # A key goes only to the server that was named, and over a connection that is what it says.
    insecure = False

    def on_start(self) -> None:
        # A redirect would load a server that nobody named: it is an answer like any other, and a wrong one.
        self.client.client.redirect_response_codes = frozenset()


class Searcher(Caller):
    """Somebody who looks for a product by its picture."""

    kinds = ("search",)


class Wordsmith(Caller):
    """Somebody who looks for a product by words."""

    kinds = ("words",)


class Embedder(Caller):
    """The legacy application, which asks for vectors."""

    kinds = ("embed",)


class Ingester(Caller):
    """Somebody who fills a catalogue: products with pictures, under a client of its own, taken out at the end."""

    kinds = ("ingest",)


# --- around the run --------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("twinlens")
    traffic.add_options(group)
    group.add_argument("--rps", type=float, default=0.0, help="requests a second, open loop (closed: -u callers)")
    group.add_argument("--warm-up", type=traffic.read_seconds, default=0.0, help="time at the start not counted (0s)")
    group.add_argument("--key", default=os.environ.get(KEY_VARIABLE, ""), help=f"API key (better: {KEY_VARIABLE})")
    group.add_argument("--write", metavar="FILE", default="", help="write the figures here as JSON")
    group.add_argument("--server-pid", type=int, default=0, help="process of the server, if here: its CPU is reported")
    group.add_argument("--allow-remote", action="store_true", help="load a server that is not on this machine")


def begin(environment: Any, **_: Any) -> None:
    """Refuse what could harm somebody, make the pictures, set the pace."""
    asked = environment.parsed_options
    if asked is None:
        return
    if refusal := refused(environment.host or "", asked):
        sys.exit(f"bench: {refusal}")
    load.mix, load.rps, load.warm_up = traffic.read_mix(asked.mix), asked.rps, asked.warm_up
    load.key, load.server_pid = asked.key.strip(), asked.server_pid
    try:
        load.served = ready(environment.host)
        load.traffic = Traffic.read(asked)
    except (ValueError, OSError) as error:
        sys.exit(f"bench: {error}")
    classes = environment.user_classes if asked.user_classes else [Caller]
    if "words" in load.mix and not load.served["text"]:
        del load.mix["words"]
        print("bench: the server's model reads no words, so nobody searches by them")
    load.mix = {kind: share for kind, share in load.mix.items() if any(kind in one.kinds for one in classes)}
    environment.user_classes = [one for one in classes if any(kind in load.mix for kind in one.kinds)]
    if not environment.user_classes:
        sys.exit("bench: nothing is left to send")
    environment.stop_timeout = _PATIENCE + 5
    Caller.host = environment.host  # `clean_up` makes a Caller, also where no user of that class runs
    for one in environment.user_classes:
        one.weight = sum(load.mix.get(kind, 0) for kind in one.kinds)
        one.share = one.weight / sum(load.mix.values())
        one.turns = traffic.deal({kind: load.mix[kind] for kind in one.kinds if kind in load.mix})
        if load.rps:
            one.tasks, one.fixed_count = [keep_pace], 1
    if load.rps:
        asked.num_users = asked.spawn_rate = len(environment.user_classes)
    # Timers count from when the loop last looked at the clock, which was before the pictures were made.
    gevent.get_hub().loop.update_now()


def ready(host: str) -> dict[str, Any]:
    """What /health/ready answers. Raises OSError when the server is not ready, ValueError when it is not ours."""
    try:
        with urlopen(f"{host.rstrip('/')}/health/ready", timeout=10) as answer:  # noqa: S310 - http, see `refused`
            status = json.loads(answer.read())
        return {name: status[name] for name in ("model", "precision", "device", "space", "text")}
    except OSError as exc:
        raise OSError(f"no server is ready at {host}: {exc}") from exc
    except (HTTPException, ValueError, KeyError, TypeError) as exc:
        raise ValueError(f"what answers at {host} is no Twinlens: its /health/ready names no model") from exc


def refused(host: str, asked: argparse.Namespace) -> str | None:
    """Why this run is not made; None when it may be."""
    if refusal := traffic.refused_host(host, asked.allow_remote) or traffic.refused(asked):
        return refusal
    if not asked.headless or not asked.run_time:
        return "run it with --headless and an end, such as -t 30s"
    if asked.warm_up >= asked.run_time:
        return "--warm-up must be shorter than -t"
    if not 0 <= asked.rps <= 100_000:
        return "--rps takes a number of requests a second"
    return None


def started(**_: Any) -> None:
    load.mark()
    if load.warm_up:
        gevent.spawn_later(load.warm_up, load.mark)


def stopping(**_: Any) -> None:
    load.end()


def clean_up(environment: Any, **_: Any) -> None:
    """Take out every product that was put in, or may have been; whatever will not go is named."""
    products = getattr(load, "traffic", None) and load.traffic.products
    if not products:
        return
    user = Caller(environment)
    pool = Pool(_CLEANERS)
    for product in products:
        pool.spawn(_take_out, user.client, product)
    pool.join()


def _take_out(client: Any, product: str) -> None:
    path = f"/v1/products/{product}?clientId={traffic.INGEST_CLIENT}"
    for _ in range(3):
        # Around locust's own statistics: this is not part of the load.
        try:
            answer = client.client.urlopen(f"{client.base_url}{path}", method="DELETE", headers=_authorization())
            status = answer.status_code
        except Exception as exc:  # of whatever kind: it is tried again, and then reported
            status = getattr(exc, "code", 0)
        if status in (200, 404):
            return
        gevent.sleep(1)
    load.left_behind.append(product)


def report(environment: Any, **_: Any) -> None:
    """The summary. Failures make the exit code 1, as locust itself does; refusals alone do not."""
    if not load.mix or not load.began:
        return
    environment.runner.stop()  # after Ctrl-C it still runs
    found = figures(load.answers, load.window(), shared=traffic.is_loopback(urlsplit(environment.host).hostname or ""))
    for line in summary(found):
        print(line)
    environment.process_exit_code = 1 if found["failed"] or load.left_behind else 0
    if environment.parsed_options.write:
        run = {
            "served": load.served,
            "mix": load.mix,
            "traffic": load.traffic.described(),
            "leftBehind": load.left_behind,
            **found,
        }
        Path(environment.parsed_options.write).write_text(json.dumps(run, indent=2) + "\n")


def summary(found: dict[str, Any]) -> Iterable[str]:
    served = load.served
    yield ""
    yield machine.sentence()
    yield f"{served['model']} ({served['precision']}) on {served['device']}, space {served['space'][:12]}"
    heads = ("answered", "refused", "failed", "per s", "p50 ms", "p95 ms", "p99 ms")
    yield f"{'':24}" + "".join(f"{head:>9}" for head in heads)
    for name, row in found["rows"].items():
        yield _row(name, row)
    yield _row("all", found)
    for name, row in found["rows"].items():
        for stage in (one for one in STAGES if one in row["stages"]):
            times = row["stages"][stage]
            yield f"{f'{name}: {stage}':42}{_times(times)}   mean {times['mean']:.1f}"
        if row["cached"]:
            yield f"{name}: {row['cached']:.0%} came from the cache of vectors"
    for reason, times_ in found["reasons"].items():
        yield f"{times_} x {reason}"
    generator = found["generator"]
    yield f"the load generator used {generator['ofOneCore']:.0%} of one core, {generator['ofAllCores']:.0%} of all"
    yield from (f"warning: {one}" for one in generator["warnings"])
    if load.traffic.products:
        gone = len(load.traffic.products) - len(load.left_behind)
        yield f"{gone} products that were put in as {traffic.INGEST_CLIENT} have been taken out"
    for product in load.left_behind:
        yield f"warning: product {product} of client {traffic.INGEST_CLIENT} could not be taken out"


def _row(name: str, row: dict[str, Any]) -> str:
    counts = "".join(f"{row[outcome]:9}" for outcome in ("answered", "refused", "failed"))
    return f"{name:24}{counts}{row['throughput']:9.1f}{_times(row['latency'])}"


def _times(times: dict[str, float | None]) -> str:
    shown = (times["p50"], times["p95"], times["p99"])
    return "".join(f"{'-' if value is None else f'{value:.0f}':>9}" for value in shown)


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(begin)
events.test_start.add_listener(started)
events.test_stopping.add_listener(stopping)
events.test_stop.add_listener(clean_up)
events.quitting.add_listener(report)
