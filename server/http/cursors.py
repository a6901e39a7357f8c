"""Cursors: where the next page of a list goes on, as a text that a caller hands back and cannot make.

A cursor is signed, with a secret of the database's own, together with the list that it belongs to: whose list it is and
what it was asked to hold. So one that was changed, or that comes with another list, is refused and never shows a page
of something else.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from server.catalogue.lists import Position
from server.catalogue.rows import Key
from server.errors import BadParameter, KeysUnknown

T = TypeVar("T")

_USE = b"twinlens cursors 1"
_MAC_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Signed:
    """Texts of one list, which nobody else can make, and no other list reads."""

    def __init__(self, secret: bytes, *what: Any) -> None:
        """`secret`: the database's. `what`: all that says which list it is, in JSON's types. Raises KeysUnknown."""
        if not secret:
            raise KeysUnknown
        self._key = hmac.digest(hmac.digest(secret, _USE, "sha256"), msgspec.json.encode(what), "sha256")

    def sign(self, position: bytes) -> str:
        return base64.urlsafe_b64encode(self._mac(position) + position).rstrip(b"=").decode()

    def open(self, cursor: str, kind: type[T]) -> T:
        """Raises BadParameter."""
        try:
            data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            mac, position = data[:_MAC_BYTES], data[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(position)):
                raise ValueError("not signed by us")
            return msgspec.json.decode(position, type=kind)
        except (ValueError, binascii.Error) as exc:  # whatever is no text of ASCII, too
            raise BadParameter(
                "The cursor is not one of this list: send what `next` said, as it is, with the same parameters, or "
                "begin again without a cursor."
            ) from exc

    def _mac(self, position: bytes) -> bytes:
        return hmac.digest(self._key, position, "sha256")[:_MAC_BYTES]


class Cursors:
    """The cursors of one list."""

    def __init__(self, secret: bytes, *what: Any) -> None:
        """As `_Signed`."""
        self._signed = _Signed(secret, *what)

    def write(self, end: Position | None) -> str | None:
        """The cursor of a page that ended here; None where nothing follows."""
        if end is None:
            return None
        at = None if end.at is None else (end.at - _EPOCH) // _MICROSECOND
        return self._signed.sign(msgspec.json.encode((end.id, at)))

    def read(self, cursor: str | None) -> Position | None:
        """Where the page of a cursor begins; None for the first page. Raises BadParameter."""
        if cursor is None:
            return None
        id_, at = self._signed.open(cursor, tuple[str, int | None])
        return Position(id_, None if at is None else _EPOCH + at * _MICROSECOND)


class SearchCursors:
    """The cursors of what one search finds: the place of a page's last match, and how many came up to there."""

    def __init__(self, secret: bytes, *what: Any) -> None:
        """As `_Signed`: `what` the search is for, and all that shapes its list."""
        self._signed = _Signed(secret, "search", *what)

    def write(self, end: Key, depth: int) -> str:
        """The cursor of a page that ended with this match, the `depth`th of the list."""
        return self._signed.sign(msgspec.json.encode((*end, depth)))

    def read(self, cursor: str | None) -> tuple[Key, int] | None:
        """Behind which match the page of a cursor begins, and how many came before; None for the first page.

        Raises BadParameter.
        """
        if cursor is None:
            return None
        rank, own_media, own_file, media_id, depth = self._signed.open(cursor, tuple[int, bool, bool, str, int])
        return Key(rank, own_media, own_file, media_id), depth
