"""The same kind of files, sent to a server: none may be answered with 5xx, and none may write on its log by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.serving import UNCACHED, serving

_BOUNDARY = "a-line-that-no-picture-holds-5f2c9e"
# As the server's log has it: a date, a time, and a level. Lines of other kinds come from a library.
_LOGGED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_PATIENCE = 60.0


@dataclass
class Answers:
    """What a server answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)

    @property
    def sentence(self) -> str:
        return ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))


def send(files: Sequence[tuple[str, bytes]], model: Path) -> Answers:
    """Title and bytes of each, one after the other, to a server that is started for it.

    Raises RuntimeError where it does not start.
    """
    answers = Answers()
    with serving(model, arguments=UNCACHED) as server:
        before = len(server.log())
        for title, data in files:
            try:
                status, text = _post(server.port, data)
            except (OSError, HTTPException) as exc:
                answers.faults.append(f"{title}: no answer: {type(exc).__name__}: {exc}")
                continue
            answers.statuses[status] += 1
            if status >= 500:
                answers.faults.append(f"{title}: {status} {text[:200]}")
        for line in server.log()[before:].splitlines():
            if not _LOGGED.match(line):
                answers.faults.append(f"the server's log has a bare line: {line[:200]}")
    return answers


def _post(port: int, data: bytes) -> tuple[int, str]:
    """A connection for each: one that a refusal ends must not spoil the next."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request("POST", "/embed-image", body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
