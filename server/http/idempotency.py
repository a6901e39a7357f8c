"""`Idempotency-Key`: a write that is sent again is answered as it was, and not made a second time.

The header is that of draft-ietf-httpapi-idempotency-key-header (07), with its statuses: 422 for a key that came with
another request, 409 while the first one is under way. A key may come as the draft's string, in quotes, or as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Response
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from server.access.idempotency import LONGEST_KEY, Answer, Claim
from server.database import once, outcome
from server.errors import BadParameter, OutcomeUnknown
from server.http.request import ITEMS, Call, Request
from server.lifespan import Services

IDEMPOTENCY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
"""Of an answer that was given before."""

BODY_DIGEST = "body_digest"
"""Where the state of a request with a key has the SHA-256 of what its body says."""

Made = TypeVar("Made")

_CONDITIONS = ("If-Match", "If-None-Match")

# As it is, a key holds neither white space nor a comma, with which proxies join a header that comes twice.
_PLAIN = re.compile(r"[\x21\x23-\x2b\x2d-\x7e]+")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')


def has_key(request: Request) -> bool:
    """Whether a request has the header, so that a digest of its body is needed."""
    return IDEMPOTENCY_HEADER in request.headers


def key_of(request: Request) -> str | None:
    """The key of a request; None where it has none. Raises BadParameter."""
    given = request.headers.getall(IDEMPOTENCY_HEADER, [])
    if not given:
        return None
    if len(given) > 1:
        raise BadParameter(f"The header {IDEMPOTENCY_HEADER} comes twice.")
    text = given[0].strip()
    if quoted := _QUOTED.fullmatch(text):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        key = text if _PLAIN.fullmatch(text) else ""
    if not 0 < len(key) <= LONGEST_KEY:
        raise BadParameter(
            f"The header {IDEMPOTENCY_HEADER} accepts one key of 1 to {LONGEST_KEY} printable ASCII characters, such "
            "as a UUID; one with white space or commas in quotes."
        )
    return key


def note_body(request: Request, digest: bytes) -> None:
    """Keep the SHA-256 of what the body says."""
    request.scope["state"][BODY_DIGEST] = digest


def digest_of_form(files: Iterable[bytes], fields: Iterable[tuple[str, str]]) -> bytes:
    """SHA-256 of what a form says; its boundary, which is another one each time, and the order of fields are no part.

    `files`: the digests of its files, in their order.
    """
    return _digest([b"form", *files, *(text.encode() for field in sorted(fields) for text in field)])


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _fingerprint(request: Request) -> bytes:
    """SHA-256 of what is asked: the method, the address with its parameters in any order, on which condition, and what
    the body says."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    query = sorted(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    parameters = [text.encode() for pair in query for text in pair]
    conditions = [request.headers.get(name, "").encode("latin-1") for name in _CONDITIONS]
    body: bytes = request.scope["state"].get(BODY_DIGEST, b"")
    return _digest([request.method.encode(), path, b"%d" % len(query), *parameters, *conditions, body])


async def answered_once(
    request: Request,
    services: Services,
    call: Call,
    write: Callable[[], Awaitable[Made]],
    answer: Callable[[Made], Response[Any]],
) -> Response[Any]:
    """The answer to a request that writes: of `write`, or the one that the same request was given before.

    `write` is not begun where the key stands for another request, or for one under way. What it gives, and what its
    transaction gives to `Runner.write`'s `answers`, is what `answer` makes the answer of; that is kept by the
    transaction itself, and where `write` had nothing to write, afterwards.

    Raises BadParameter for a key that is none, IdempotencyKeyReused, IdempotencyKeyInUse, and what `write` raises.
    """
    key = key_of(request)
    if key is None:
        return answer(await write())
    ledger = services.ledger
    claim = await ledger.begin(call.client_id, key, _fingerprint(request), within=max(0.0, call.left))
    if isinstance(claim, Answer):
        request.scope["state"].pop(ITEMS, None)  # nothing was done to them now
        headers = {REPLAYED_HEADER: "true", **({"ETag": claim.etag} if claim.etag is not None else {})}
        return Response(claim.body, status_code=claim.status, media_type="application/json", headers=headers)
    mine: Claim = claim

    async def keep(connection: AsyncConnection[TupleRow], made: Any) -> None:
        await ledger.keep(connection, mine, _kept(answer(made)))

    try:
        with once.once(keep) as kept:
            made = await write()
    except OutcomeUnknown:
        raise  # where it was written after all, the answer is there as well
    except asyncio.CancelledError:
        if not outcome.possible():
            ledger.release_soon(mine)
        raise
    except BaseException:
        await ledger.release(mine)
        raise
    response = answer(made)
    if not kept.kept:
        await ledger.keep_alone(mine, _kept(response))
    return response


def _kept(response: Response[Any]) -> Answer:
    return Answer(response.status_code or 200, msgspec.json.encode(response.content), response.headers.get("ETag"))
