"""What /schema says of an answer, and what is wrong with one that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.fuzz.talk import Answered, Asked

# What an address answers that has no such route, or no such method there.
_ELSEWHERE = {404: "not_found", 405: "method_not_allowed"}
# What the HTTP layer below ours answers to what it cannot read: no route was chosen yet, and no body is ours.
_BELOW = (0, 400, 408, 413, 414, 431, 501, 505)


class Schema:
    """The API's description, as a server gives it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._codes: dict[tuple[str, str], dict[int, set[str]]] = {}
        for route, calls in document["paths"].items():
            for method, call in calls.items():
                self._codes[method.upper(), route] = {
                    int(status): set(_content(answer).get("examples", ()))
                    for status, answer in call["responses"].items()
                }

    def faults(self, asked: Asked, answered: Answered) -> Iterator[str]:
        """What is wrong with an answer; nothing for one that is as it should be."""
        status = answered.status
        if asked.raw and status in _BELOW:
            return
        if status == 0:
            yield "the connection was closed without an answer"
            return
        if status >= 500 and not (status == 503 and _deadline(asked) and _code(answered) == "deadline_missed"):
            yield f"{status} {answered.body[:200]!r}"
        head = asked.method == "HEAD"
        if status >= 400 and not head:
            yield from _shape(answered)
        known = self._codes.get(("GET" if head else asked.method, asked.route))
        if known is None or (status in _ELSEWHERE and _code(answered) == _ELSEWHERE[status]):
            return
        if status not in known:
            yield f"{status} {_code(answered) or ''} is not among the statuses of {asked.method} {asked.route}"
        elif status >= 400 and _code(answered) not in known[status] and not head:
            yield f"{status} of {asked.method} {asked.route} has the code {_code(answered)!r}, which is not documented"


def _shape(answered: Answered) -> Iterator[str]:
    """Every error has one body."""
    body = answered.json
    if not isinstance(body, dict) or {*body} != {"error", "code", "requestId"}:
        yield f"{answered.status} has another body than errors have: {answered.body[:200]!r}"
    elif body["requestId"] != answered.headers.get("x-request-id"):
        yield f"{answered.status} has another request id in its header than in its body"


def _code(answered: Answered) -> str | None:
    body = answered.json
    return str(body["code"]) if isinstance(body, dict) and "code" in body else None


def _deadline(asked: Asked) -> bool:
    return any(name.lower() == b"twinlens-deadline" for name, _ in asked.headers)


def _content(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    content: Mapping[str, Any] = answer.get("content", {}).get("application/json", {})
    return content
