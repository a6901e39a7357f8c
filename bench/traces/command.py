"""python -m bench trace: a real trace of one search by picture, recorded and drawn; or what making traces costs.

A server of its own sends its traces to a collector on loopback. Some searches come at once, so that they share a batch,
and the one whose trace holds the batch's span is drawn.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench import machine, pictures
from bench.serving import UNCACHED, serving
from bench.traces import cost
from bench.traces.collector import Collector, Span
from bench.traces.drawing import draw

_WARM_UP = 8
_ROUNDS = 40
_SECONDS = 30.0
# Of a span: what is the same for all.
_LEFT_OUT = ("trace", "state", "resource")


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, draw and write down; or measure."""
    parser = argparse.ArgumentParser("python -m bench trace", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--server", default="", metavar="FLAGS", help='more flags of the server, such as "--threads 1"')
    parser.add_argument("--callers", type=int, default=8, help="searches at once (8)")
    parser.add_argument("--from", type=Path, dest="kept", metavar="FILE", help="draw this one; record nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the trace here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it here")
    parser.add_argument("--cost", action="store_true", help="measure instead what traces cost, on and off")
    asked = parser.parse_args(arguments)
    try:
        if asked.cost:
            report = cost.measure(asked.model)
        elif asked.kept is not None:
            report = json.loads(asked.kept.read_text())
        else:
            report = record(asked.model, asked.callers, shlex.split(asked.server))
    except (OSError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(report["about"])
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    if asked.svg is not None and not asked.cost:
        asked.svg.write_text(draw(report))
    return 0


def record(model: Path, callers: int, flags: Sequence[str] = ()) -> dict[str, Any]:
    """The trace of one of some searches that came at once. Raises RuntimeError, TimeoutError, OSError.

    Which of them share a batch is left to chance: a round in which none does is followed by another.
    """
    sent = [pictures.form(data) for data in pictures.distinct(_WARM_UP + _ROUNDS * callers)]
    with Collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with serving(model, demo=True, arguments=[*UNCACHED, *flags], environment=variables) as server:
            for body in sent[:_WARM_UP]:
                _search(server.port, body)
            for number in range(_ROUNDS):
                bodies = sent[_WARM_UP + number * callers :][:callers]
                with ThreadPoolExecutor(callers) as crowd:
                    traces = set(crowd.map(lambda body: _search(server.port, body), bodies))
                if found := _shared(collector.wait(partial(_complete, traces), _SECONDS), traces):
                    break
            else:
                raise RuntimeError(f"in {_ROUNDS} rounds of {callers} searches no two shared a batch")
    found_on = machine.describe()
    on = f"{found_on['processor']}, {found_on['cores']} cores"
    about = f"One of {callers} searches at once for a JPEG of 640 x 480, on {on} (python -m bench trace)"
    kept = [{name: value for name, value in asdict(span).items() if name not in _LEFT_OUT} for span in found]
    return {"about": about, "machine": found_on, "spans": kept}


def _search(port: int, body: bytes) -> str:
    """Search by picture; the id of the trace that this began. Raises RuntimeError for any answer but matches."""
    trace = secrets.token_hex(16)
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        headers = {"Content-Type": pictures.FORM_TYPE, "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        connection.request("POST", "/v1/search", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"a search was answered with {answer.status}: {said[:300]!r}")
    finally:
        connection.close()
    return trace


def _complete(traces: set[str], spans: Sequence[Span]) -> bool:
    """Whether all requests of these traces are over, and all batches that they were in."""
    ours = [span for span in spans if span.trace in traces]
    over = {span.trace for span in ours if span.kind == "server"}
    batched = {place for span in spans if span.name == "batch" for place in span.links}
    return over == traces and batched >= {span.place for span in ours if span.name == "embed"}


def _shared(spans: Sequence[Span], traces: set[str]) -> list[Span]:
    """The trace with the batch of most requests, where that is more than one; otherwise nothing."""
    batches = [span for span in spans if span.name == "batch" and span.trace in traces]
    most = max(batches, key=lambda span: len(span.links))
    return [span for span in spans if span.trace == most.trace] if len(most.links) > 1 else []
