"""Search keys: read, verified, and turned into who calls. `twinlens.search_keys` derives them and has their form.

A search key says itself what it allows, so nothing of it is stored: it is good while its parent is. A document that
says anything unknown is refused, since a bound that is not understood would not be kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from server.access.clients import check_id
from server.access.keys import StoredKey
from server.access.scopes import Narrowing, Principal, included
from server.errors import BadParameter, KeyInvalid
from server.origins import check_origin

PREFIX = "twinlens-search."

MOST_BYTES = 4096
"""Of a document: as `twinlens.search_keys` has it."""

LEAST_RATE, MOST_RATE = 1e-6, 1e9
"""Requests a second: as `twinlens.search_keys` has them."""

_FORM = re.compile(r"(twinlens-search\.([A-Za-z0-9_-]+))\.([A-Za-z0-9_-]{43})")
_LONGEST = len(PREFIX) + -(-MOST_BYTES * 4 // 3) + 44
_ID_LENGTH = 16


class _Parent(msgspec.Struct, frozen=True):
    """Which key a document names: looked up before anything else of it is believed."""

    key: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    key: str
    client: str | None = None
    filter: dict[str, Any] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    origins: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None
    expires: Annotated[float, msgspec.Meta(ge=0)] | None = None
    rate: Annotated[float, msgspec.Meta(ge=LEAST_RATE, le=MOST_RATE)] | None = None
    fields: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=50)] | None = None


def read_search_key(presented: str, parent_of: Callable[[str], StoredKey | None], now: datetime) -> Principal:
    """Who calls with this search key; `parent_of`: the key with an id. Raises KeyInvalid.

    What is wrong is said only of a document whose signature is right: then it is its own maker who is told.
    """
    form = _FORM.fullmatch(presented) if len(presented) <= _LONGEST else None
    if form is None:
        raise KeyInvalid
    signed, encoded, signature = form.groups()
    document = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)) if len(encoded) % 4 != 1 else b""
    try:
        parent = parent_of(msgspec.json.decode(document, type=_Parent).key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeyInvalid from None
    if parent is None or parent.search_secret is None:
        raise KeyInvalid
    # As text: a signature can be written in several ways in base64, of which one is taken.
    if not hmac.compare_digest(_signature(parent.search_secret, signed), signature.encode()):
        raise KeyInvalid
    if not parent.good_at(now) or "search" not in included(parent.scopes):
        raise KeyInvalid("The key that this search key was derived from is revoked, has expired, or may not search.")
    said = _read(document)
    if said.expires is not None and now.timestamp() >= said.expires:
        raise KeyInvalid("The search key has expired.")
    if said.fields is not None and "read" not in included(parent.scopes):
        raise KeyInvalid("The search key shows fields of products, and its parent may not read products itself.")
    narrowing = Narrowing(
        said.filter,
        said.limit,
        said.origins,
        said.rate,
        said.fields or (),
        hashlib.sha256(signed.encode()).hexdigest()[:_ID_LENGTH],
    )
    return Principal(frozenset({"search"}), _client(parent, said), parent.id, narrowing, parent.limits)


def _signature(secret: bytes, signed: str) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=")


def _read(document: bytes) -> _Document:
    try:
        said = msgspec.json.decode(document, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise KeyInvalid(f"What the search key says cannot be read: {exc}.") from exc
    for origin in said.origins or ():
        try:
            check_origin(origin)
        except ValueError as exc:
            raise KeyInvalid(f"An origin of the search key is not {exc}.") from None
    return said


def _client(parent: StoredKey, said: _Document) -> str:
    """The client that is searched. Raises KeyInvalid."""
    if parent.client_id is not None:
        if said.client not in (None, parent.client_id):
            raise KeyInvalid("The search key names another client than the key's that it was derived from.")
        return parent.client_id
    if said.client is None:
        raise KeyInvalid("The search key names no client, and the key that it was derived from is every client's.")
    try:
        return check_id("The search key's client", said.client)
    except BadParameter as exc:
        raise KeyInvalid(exc.sentence) from None
