"""One request, and what became of it: answered, never sent, or broken off with nobody knowing how it ended."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from bench.closed_loop import request

LONGEST = 60.0
"""Seconds that an answer is waited for."""

NOT_SENT = "not sent"
BROKEN = "broken off"
UNKNOWN = frozenset({BROKEN, "503 outcome_unknown"})
"""After these a write may have been made, or may still be made; after any other error it was not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`label`: the status, with the code of an error; or NOT_SENT, or BROKEN."""

    label: str
    body: bytes
    seconds: float
    sentence: str = ""
    """Of an error."""

    @property
    def status(self) -> int:
        return int(self.label[:3]) if self.label[:3].isdecimal() else 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    port: int, method: str, path: str, body: bytes = b"", kind: str = "application/json", longest: float = LONGEST
) -> Answer:
    """Send a request on a connection of its own."""
    began = perf_counter()
    headers = {"Connection": "close", **({"Content-Type": kind} if body else {})}
    whole = request(port, path, body, method=method, headers=headers)
    label, answer = NOT_SENT, b""
    try:
        async with asyncio.timeout(longest):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            label = BROKEN
            try:
                writer.write(whole)
                head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except OSError:  # TimeoutError is one as well
        return Answer(label, b"", perf_counter() - began)
    return _read(head, answer, perf_counter() - began)


def _read(head: bytes, body: bytes, seconds: float) -> Answer:
    lines = [line.lower() for line in head.split(b"\r\n")]
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
    if not head.startswith(b"HTTP/1.1 ") or length != len(body):
        return Answer(BROKEN, b"", seconds)
    status = head[9:12].decode()
    if status < "400":
        return Answer(status, body, seconds)
    try:
        said = json.loads(body)
        return Answer(f"{status} {said['code']}", body, seconds, str(said["error"]))
    except (ValueError, LookupError, TypeError):
        return Answer(status, body, seconds)
