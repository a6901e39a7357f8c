"""A closed loop of callers: each has a connection of its own and asks again as soon as it is answered.

It speaks just enough HTTP/1.1 for any server on this machine, and costs little beside it: requests are bytes that were
made before, and of an answer only what is needed is read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np

_SETTLE = 1.0


@dataclass(frozen=True, slots=True)
class Http:
    """One round over HTTP; latencies in milliseconds."""

    pictures_per_second: float
    p50: float
    p95: float
    p99: float
    generator_cpu: float
    """Share of all cores that this process, the load generator, used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with status 200. The names of headers are in lower case."""

    headers: Mapping[bytes, bytes]
    body: bytes


def request(
    port: int,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """One complete request to 127.0.0.1, to be sent again and again."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}"] if body or method != "GET" else []
    return "\r\n".join([*lines, "", ""]).encode() + body


async def run_http(
    port: int,
    requests: Sequence[bytes],
    seconds: float,
    callers: int,
    *,
    settle: float | None = None,
    on_answer: Callable[[Answer, float], None] | None = None,
    on_begin: Callable[[], None] | None = None,
    on_end: Callable[[], None] | None = None,
) -> tuple[Http, dict[int, bytes]]:
    """Send `requests` (see `request`) in turn with so many callers at once, for that long, after settling.

    `settle`: seconds; where it is not given a second, or as long as is measured where that is less.
    Also gives the first answer to each request, to be checked. `on_answer` is called with each answer that came within
    the measured seconds and with its milliseconds, `on_begin` and `on_end` at their beginning and end. Raises
    RuntimeError for any answer but a 200, or when none came.
    """
    answers: dict[int, bytes] = {}
    arrivals: list[tuple[float, float]] = []
    started = perf_counter()
    begin = started + (min(_SETTLE, seconds) if settle is None else settle)
    end = begin + seconds

    async def call(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = first
        try:
            while (asked := perf_counter()) < end:
                number = turn % len(requests)
                writer.write(requests[number])
                answer, stays_open = await _answer(reader)
                came = perf_counter()
                arrivals.append((asked, came))
                answers.setdefault(number, answer.body)
                if on_answer is not None and begin <= came < end:
                    on_answer(answer, (came - asked) * 1000)
                if not stays_open:
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                turn += callers
        finally:
            writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(call(first))
            await asyncio.sleep(max(0.0, begin - perf_counter()))
            if on_begin is not None:
                on_begin()
            cpu = process_time()
            await asyncio.sleep(max(0.0, end - perf_counter()))
            cpu = process_time() - cpu
            if on_end is not None:
                on_end()
    except ExceptionGroup as exc:
        raise RuntimeError(f"a request failed: {exc.exceptions[0] or type(exc.exceptions[0]).__name__}") from exc
    waits = sorted((came - asked) * 1000 for asked, came in arrivals if begin <= came < end)
    if not waits:
        raise RuntimeError(f"no answer came within {seconds} s")
    p50, p95, p99 = (float(np.percentile(waits, share)) for share in (50, 95, 99))
    # Answers come in bursts, a batch at a time; counting those that happen to fall inside would be off by a batch. So
    # each request counts for as much of it as lay inside.
    inside = sum(max(0.0, min(came, end) - max(asked, begin)) / (came - asked) for asked, came in arrivals)
    return Http(inside / seconds, p50, p95, p99, cpu / seconds / len(os.sched_getaffinity(0))), answers


async def _answer(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """One answer, and whether the connection takes another request. Raises RuntimeError when it is not a 200."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body, sized = await _body(reader, headers)
    if status.split()[1] != b"200":
        raise RuntimeError(f"the server answered {status.decode()}: {body[:500].decode(errors='replace')}")
    stays_open = sized and headers.get(b"connection", b"").lower() != b"close" and not status.startswith(b"HTTP/1.0")
    return Answer(headers, body), stays_open


async def _body(reader: asyncio.StreamReader, headers: Mapping[bytes, bytes]) -> tuple[bytes, bool]:
    """The body, and whether it came with its length."""
    if (length := headers.get(b"content-length")) is not None:
        return await reader.readexactly(int(length)), True
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.read(), False
    chunks = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():  # trailers
        pass
    return b"".join(chunks), True
