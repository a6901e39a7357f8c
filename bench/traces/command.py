"""python -m bench trace: a real trace of one search by picture, recorded and drawn; or what making traces costs.

A server of its own sends its traces to a collector on loopback. A search for a photograph comes among searches of
another client for tiny pictures, which are decoded so quickly that the model has a queue. Its trace is drawn once it
shares a batch with some of them, and holds the span of the batch.
"""

from __future__ import annotations

import argparse
import io
import json
import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from PIL import Image

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
    parser.add_argument("--beside", type=int, default=12, help="searches beside it, of another client (12)")
    parser.add_argument("--of", type=int, default=10, metavar="N", help="draw the quickest of so many such traces (10)")
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
            report = record(asked.model, asked.beside, asked.of, shlex.split(asked.server))
    except (OSError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(report["about"])
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    if asked.svg is not None and not asked.cost:
        asked.svg.write_text(draw(report))
    return 0


def record(model: Path, beside: int, of: int, flags: Sequence[str] = ()) -> dict[str, Any]:
    """The quickest of some traces of a search among others. Raises RuntimeError, TimeoutError, OSError.

    Whether it is the first in a batch with others is left to chance: a round in which it was not does not count.
    """
    found: list[list[Span]] = []
    photographs = [pictures.form(data) for data in pictures.distinct(_WARM_UP + _ROUNDS)]
    with Collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with serving(model, demo=True, arguments=[*UNCACHED, *flags], environment=variables) as server:
            search = partial(_search, server.port)
            for body in photographs[:_WARM_UP]:
                search(body)
            with ThreadPoolExecutor(beside + 1) as crowd:
                for number, body in enumerate(photographs[_WARM_UP:]):
                    ours = crowd.submit(search, body)
                    others = list(crowd.map(search, _tiny(beside, number)))
                    ended = partial(_ended, {ours.result(), *others})
                    if shared := _shared(collector.wait(ended, _SECONDS), ours.result()):
                        found.append(shared)
                    if len(found) == of:
                        break
    if not found:
        raise RuntimeError(f"in {_ROUNDS} rounds of {beside + 1} searches it never led a batch of several")
    found_on = machine.describe()
    on = f"{found_on['processor']}, {found_on['cores']} cores"
    about = (
        f"For a JPEG of 640 x 480, beside {beside} searches for tiny pictures, the quickest of {len(found)}, on {on} "
        "(python -m bench trace)"
    )
    quickest = min(found, key=_took)
    kept = [{name: value for name, value in asdict(span).items() if name not in _LEFT_OUT} for span in quickest]
    return {"about": about, "machine": found_on, "spans": kept}


def _tiny(count: int, number: int) -> Iterator[bytes]:
    """So many requests of another client, for pictures that no other `number` gives."""
    for one in range(count):
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (number, one, 128)).save(out, "PNG")
        yield pictures.form(out.getvalue(), {"clientId": "beside"})


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


def _ended(traces: set[str], spans: Sequence[Span]) -> bool:
    """Whether all requests of these traces are over, and all batches that they were in."""
    ours = [span for span in spans if span.trace in traces]
    over = {span.trace for span in ours if span.kind == "server"}
    batched = {place for span in spans if span.name == "batch" for place in span.links}
    return over == traces and batched >= {span.place for span in ours if span.name == "embed"}


def _shared(spans: Sequence[Span], trace: str) -> list[Span]:
    """The spans of this trace, where a batch of several requests is among them; otherwise nothing."""
    ours = [span for span in spans if span.trace == trace]
    return ours if any(span.name == "batch" and len(span.links) > 1 for span in ours) else []


def _took(spans: Sequence[Span]) -> int:
    return max(span.ended for span in spans) - min(span.began for span in spans)
