"""Versions of products in HTTP: `ETag`, and the conditions `If-Match` and `If-None-Match` (RFC 9110, 8.8 and 13).

The ETag of a product is the time of its last change, in microseconds. That of an answer that has more than the product
says after a hyphen what all of the answer is. Of a condition on a write only the time counts, so the ETag of any answer
that shows the product will do: a picture that is added meanwhile is no change of the product.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

from server.catalogue.rows import ANYTHING, Expected, Product
from server.errors import BadParameter
from server.http.request import Request

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|\Z)|[ \t]*(?:,|\Z)')
_VERSION = re.compile(r"([0-9a-f]{1,15})(?:-[0-9a-f]{32})?")


def etag_of(product: Product, answer: bytes | None = None) -> str:
    """The ETag of a product; with `answer`, of a whole answer that has more than it."""
    version = f"{(product.updated_at - _EPOCH) // _MICROSECOND:x}"
    return f'"{version}"' if answer is None else f'"{version}-{hashlib.sha256(answer).hexdigest()[:32]}"'


def expected_by(request: Request) -> Expected:
    """What a write expects its product to be. Raises BadParameter for a header that cannot be read.

    Of If-None-Match a write has a use for `*` alone: to create and never replace.
    """
    match, none_match = _header(request, "If-Match"), _header(request, "If-None-Match")
    if match is None and none_match is None:
        return ANYTHING
    if none_match not in (None, "*"):
        raise BadParameter("If-None-Match accepts * on a write, for a product that is not there yet.")
    tags = [] if match in (None, "*") else _tags("If-Match", match)
    return Expected(
        # A weak tag is not the same as any other, for a write.
        versions=None
        if match in (None, "*")
        else tuple(filter(None, (_version(tag) for weak, tag in tags if not weak))),
        present=match is not None,
        absent=none_match is not None,
    )


def has_it(request: Request, etag: str) -> bool:
    """Whether the caller's If-None-Match names this ETag of what it asks for, be it weakened on the way."""
    given = _header(request, "If-None-Match")
    if given is None:
        return False
    try:
        return given == "*" or any(f'"{tag}"' == etag for _, tag in _tags("If-None-Match", given))
    except BadParameter:
        return False  # it then gets what it asks for


def _header(request: Request, name: str) -> str | None:
    found = request.headers.getall(name, [])
    return ", ".join(found).strip() if found else None


def _tags(name: str, text: str) -> list[tuple[bool, str]]:
    """Whether each is weak, and what stands between its quotes."""
    tags: list[tuple[bool, str]] = []
    at = 0
    while at < len(text):
        found = _TAG.match(text, at)
        if found is None:
            raise BadParameter(f'{name} accepts *, or ETags with their quotes and commas in between: "65f0c1a9d3b7e".')
        if found[2] is not None:
            tags.append((found[1] is not None, found[2]))
        at = found.end()
    return tags


def _version(tag: str) -> datetime | None:
    """None for a tag that is none of ours: no product has it."""
    found = _VERSION.fullmatch(tag)
    try:
        return _EPOCH + int(found[1], 16) * _MICROSECOND if found is not None else None
    except OverflowError:
        return None
