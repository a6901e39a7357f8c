"""A call from its first try to its answer, without a connection or a clock of its own.

`converse` is a generator. It says what to do next, `Send` or `Pause`, and is told what came of it. `Client` does that
and waits, `AsyncClient` awaits it, and what is tried again, and when, is decided here once for both.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from twinlens.errors import (
    AnswerUnreadable,
    ConnectionFailed,
    DeadlinePassed,
    PictureNotFetched,
    TwinlensError,
    family_of,
    phrase_of,
)
from twinlens.options import Options
from twinlens.request import Answer, Form, FromUrl, Request, Result
from twinlens.wire import Problem

MOST_FETCHED = 64 * 10**6
"""Bytes of a picture that is fetched from its URL; more than a server takes, unless it was told otherwise."""

_MOST_REDIRECTS = 5
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0

# Not now, and soon perhaps: too many requests; what stands before the server cannot reach it; the server itself.
_PASSING = frozenset({429, 502, 503, 504})

# And a first try whose connection broke, and which the server is still busy with.
_PASSING_CODES = frozenset({"idempotency_key_in_use"})

_REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True)
class Send:
    """To do: send this, and wait so many seconds for all of the answer."""

    method: str
    url: str
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The key is among them."""
    content: bytes | None = field(default=None, repr=False)
    files: Sequence[bytes] = field(default=(), repr=False)
    """The parts `file` of a form, where there are any; `fields` are the others."""
    fields: Mapping[str, str] = field(default_factory=dict)
    most_bytes: int | None = None
    """Of the answer; with more the connection is closed."""


@dataclass(frozen=True, slots=True)
class Pause:
    """To do: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Broken:
    """There was no answer, and why not, in a few words."""

    reason: str
    late: bool = False
    """The time was over."""


Step = Send | Pause
Outcome = Answer | Broken | None
Conversation = Generator[Step, Outcome, Result]


def converse(
    request: Request[Result],
    options: Options,
    *,
    clock: Callable[[], float] = monotonic,
    drawn: Callable[[], float] = random.random,
) -> Conversation[Result]:
    """What to do until the request is answered; returns what its answer says.

    `clock`: seconds; `drawn`: numbers from 0 to 1, by which pauses differ, so that those who were refused together do
    not come back together. Raises TwinlensError.
    """
    ends = clock() + options.deadline
    request = yield from _with_pictures(request, ends, clock)
    request_id = uuid.uuid4().hex
    tries = 0
    while True:
        tries += 1
        left = max(ends - clock(), 0.001)
        outcome = yield _sent(request, options, request_id, left)
        if isinstance(outcome, Answer) and 200 <= outcome.status < 300:
            return request.read(outcome)
        error = _error(outcome, request_id, options)
        worth_it = request.retried and tries <= options.retries and _passes(error)
        seconds = _pause(tries, error.retry_after, drawn())
        if not worth_it or clock() + seconds >= ends:
            raise error
        yield Pause(seconds)


def _passes(error: TwinlensError) -> bool:
    """Whether the same request may be answered soon. To send it twice does no harm: what has another effect then has a
    key by which the server knows it again (`Request.once`)."""
    return error.status is None or error.status in _PASSING or error.code in _PASSING_CODES


def _pause(tries: int, asked: float | None, drawn: float) -> float:
    """Seconds until the next try: never fewer than the server asks for."""
    most = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_SECONDS)
    return (asked or 0.0) + drawn * most


def _sent(request: Request[Result], options: Options, request_id: str, seconds: float) -> Send:
    headers = {"Accept": "application/json", **request.headers, _REQUEST_ID: request_id}
    headers["Twinlens-Deadline"] = f"{seconds:.3f}"
    if request.once:
        headers["Idempotency-Key"] = request_id
    if options.key is not None:
        headers["Authorization"] = f"Bearer {options.key}"
    query = dict(request.query)
    if request.of_client and options.client is not None:
        query["clientId"] = options.client
    url = f"{options.url.rstrip('/')}{request.path}{f'?{urlencode(query)}' if query else ''}"
    send = Send(request.method, url, seconds, headers)
    if isinstance(request.body, Form):
        return replace(send, files=[_bytes(one) for one in request.body.files], fields=request.body.fields)
    if request.body is not None:
        headers["Content-Type"] = request.body.content_type
        return replace(send, content=msgspec.json.encode(request.body.value))
    return send


def _bytes(file: bytes | FromUrl) -> bytes:
    if isinstance(file, FromUrl):
        raise TypeError(f"{file.url} has not been fetched.")
    return file


# --- errors ----------------------------------------------------------------------------------------------------------


def _error(outcome: Outcome, request_id: str, options: Options) -> TwinlensError:
    """What went wrong, as the exception that the caller gets."""
    if isinstance(outcome, Answer):
        return _refusal(outcome, request_id)
    if isinstance(outcome, Broken) and not outcome.late:
        return ConnectionFailed(f"No answer from {options.url}: {outcome.reason}.", request_id=request_id)
    return DeadlinePassed(f"No answer from {options.url} within {options.deadline:g} seconds.", request_id=request_id)


def _refusal(answer: Answer, request_id: str) -> TwinlensError:
    status, headers = answer.status, answer.headers
    request_id = headers.get(_REQUEST_ID, request_id)
    if status < 400:
        to = f" to {headers['location']}" if "location" in headers else ""
        raise AnswerUnreadable(
            f"The server answers {phrase_of(status)}{to}: give the address that it is to be called by as the URL.",
            status=status,
            request_id=request_id,
        )
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
        sentence, code = problem.error, problem.code
    except (msgspec.DecodeError, UnicodeDecodeError):  # it comes from what stands before the server
        sentence, code = f"The answer was {phrase_of(status)}, without a reason.", f"http_{status}"
    retry_after = _seconds(headers.get("retry-after"))
    return family_of(status)(sentence, code=code, status=status, request_id=request_id, retry_after=retry_after)


def _seconds(retry_after: str | None) -> float | None:
    """The header's number of seconds, or its time as seconds from now; None where it is neither."""
    if retry_after is None:
        return None
    try:
        if retry_after.strip().isdecimal():
            return float(retry_after)
        then = parsedate_to_datetime(retry_after)
        return max((then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


# --- pictures by URL -------------------------------------------------------------------------------------------------


def _with_pictures(request: Request[Result], ends: float, clock: Callable[[], float]) -> Conversation[Request[Result]]:
    """The request with the bytes of its pictures in place of their URLs."""
    if not isinstance(request.body, Form):
        return request
    files = list(request.body.files)
    for number, file in enumerate(files):
        if isinstance(file, FromUrl):
            files[number] = yield from _fetched(file.url, ends, clock)
    return replace(request, body=replace(request.body, files=files))


def _fetched(url: str, ends: float, clock: Callable[[], float]) -> Conversation[bytes]:
    """The bytes at a URL. No key goes there. Raises PictureNotFetched."""
    asked = url
    for _ in range(_MOST_REDIRECTS + 1):
        if urlsplit(asked).scheme not in ("http", "https"):
            raise PictureNotFetched(f"A picture is fetched by http or https, not from {asked}.")
        outcome = yield Send("GET", asked, max(ends - clock(), 0.001), most_bytes=MOST_FETCHED)
        if not isinstance(outcome, Answer):
            reason = outcome.reason if isinstance(outcome, Broken) else "nothing came back"
            raise PictureNotFetched(f"{asked} cannot be fetched: {reason}.")
        location = outcome.headers.get("location")
        if outcome.status in (301, 302, 303, 307, 308) and location:
            asked = urljoin(asked, location)
        elif outcome.status == 200:
            return outcome.content
        else:
            raise PictureNotFetched(f"{asked} cannot be fetched: the answer was {phrase_of(outcome.status)}.")
    raise PictureNotFetched(f"{url} cannot be fetched: it leads to another address more than {_MOST_REDIRECTS} times.")
