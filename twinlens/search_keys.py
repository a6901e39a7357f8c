"""Search keys for browsers, derived from a key of Twinlens without asking the server.

    from datetime import timedelta
    from twinlens import derive_search_key

    derive_search_key(key, filter={"attributes": {"category": "shoes"}}, limit=24,
                      origins=["https://shop.example"], expires=timedelta(hours=12))

A search key is `twinlens-search.DOCUMENT.SIGNATURE`. The document is JSON that says what the key allows; the signature
is HMAC-SHA256 over all that stands before it, and both are base64url without padding. What signs it is worked out from
the parent key, which cannot be found out from a search key.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "twinlens-search"
"""What every search key begins with."""

MOST_BYTES = 4096
"""Of a search key's document: it travels in a header of each request."""

MOST_MATCHES = 1000
MOST_ORIGINS = 100
MOST_FIELDS = 50

LEAST_RATE = 1e-6
"""Requests a second: one in twelve days. With less, the time until the next one would be no number to answer with."""

MOST_RATE = 1e9

_VERSION = 1
_SECRET = b"twinlens search keys 1"
_KEY = re.compile(r"twinlens_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
_CLIENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@-]{0,127}")
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_FIELD = re.compile(r"(?:sku|url|isActive|attributes(?:\.[^\x00]{1,100})?)")
_USUAL_PORTS = {"http": "80", "https": "443"}
_MOST_ATTRIBUTES = 100
_BOUNDS = {"gt", "gte", "lt", "lte"}
_LISTS = {"containsAny", "containsAll"}
_OPERATORS = _BOUNDS | _LISTS | {"contains", "exists", "not"}


def derive_search_key(
    key: str,
    *,
    client: str | None = None,
    filter: Mapping[str, Any] | None = None,  # the name that the search has for it
    limit: int | None = None,
    origins: Iterable[str] | None = None,
    expires: datetime | timedelta | None = None,
    rate: float | None = None,
    fields: Iterable[str] | None = None,
) -> str:
    """A key that may only search, within these bounds; a bound that is not given is not set.

    `key`: the parent, which needs the scope `search`. A search key ends with it: when it is revoked, or expires.
    `client`: the one whose catalogue is searched: the parent's own unless given, and needed where the parent is an
    admin's. `filter`: as in a search, with `productIds`, `kind` and `attributes`; it is ANDed to each search's own.
    `limit`: at most so many matches a search, 1 to 1,000; a search that asks for more gets so many. `origins`: the
    pages that may use it, such as `https://shop.example`. `expires`: a time with its zone, or how long from now; it is
    cut to whole seconds. `rate`: requests a second, from 0.000001 to 1,000,000,000. `fields`: what a search may ask to
    be shown of products, as there: `sku`, `url`, `isActive`, `attributes` or `attributes.NAME`; nothing unless given.
    For them the parent needs the scope `read` or `write` as well.

    Raises ValueError with a sentence for whatever of this makes no sense.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError("A search key is derived from a key of Twinlens: twinlens_, its id, _ and its secret.")
    said = {
        "version": _VERSION,
        "key": found[1],
        "client": _checked_client(client),
        "filter": _checked_filter(filter),
        "limit": _checked_limit(limit),
        "origins": _checked_origins(origins),
        "expires": _seconds(expires),
        "rate": _checked_rate(rate),
        "fields": _checked_fields(fields),
    }
    text = json.dumps(
        {name: value for name, value in said.items() if value is not None},
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    document = text.encode()
    if len(document) > MOST_BYTES:
        raise ValueError(f"All that a search key says may have {MOST_BYTES:,} bytes as JSON, and this has more.")
    signed = f"{PREFIX}.{_base64url(document)}"
    secret = hmac.digest(key.encode(), _SECRET, "sha256")
    return f"{signed}.{_base64url(hmac.digest(secret, signed.encode(), 'sha256'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _checked_client(client: str | None) -> str | None:
    if client is not None and not (isinstance(client, str) and _CLIENT.fullmatch(client)):
        raise ValueError("client must be 1 to 128 letters, digits or . _ : @ - and start with a letter, a digit or _.")
    return client


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST_MATCHES):
        raise ValueError(f"limit must be a whole number from 1 to {MOST_MATCHES:,}.")
    return limit


def _checked_rate(rate: float | None) -> float | None:
    if rate is not None and (not _is_number(rate) or not LEAST_RATE <= rate <= MOST_RATE):
        raise ValueError("rate must be a number of requests a second, from 0.000001 to 1,000,000,000.")
    return rate


def _checked_origins(origins: Iterable[str] | None) -> list[str] | None:
    if origins is None:
        return None
    listed = [origins] if isinstance(origins, str) else list(origins)
    if not 1 <= len(listed) <= MOST_ORIGINS:
        raise ValueError(f"origins must be 1 to {MOST_ORIGINS} origins; without any, nobody could use the key.")
    for origin in listed:
        found = _ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
        if found is None or found["port"] == _USUAL_PORTS.get(found["scheme"], ""):
            raise ValueError(
                f"An origin is written as browsers send it, such as https://shop.example: small letters, no path, no "
                f"slash at its end, and no port where it is the usual one. This is none: {str(origin)[:100]!r}."
            )
    return listed


def _checked_fields(fields: Iterable[str] | None) -> list[str] | None:
    if fields is None:
        return None
    listed = [fields] if isinstance(fields, str) else list(fields)
    if not 1 <= len(listed) <= MOST_FIELDS:
        raise ValueError(f"fields must be 1 to {MOST_FIELDS} names of fields; leave them out to show none.")
    for name in listed:
        if not (isinstance(name, str) and _FIELD.fullmatch(name)):
            raise ValueError(
                f"A field is sku, url, isActive, attributes or attributes.NAME, and not {str(name)[:100]!r}."
            )
    return listed


def _seconds(expires: datetime | timedelta | None) -> int | None:
    """Unix time. A bare number is refused, since it may be meant either way."""
    if expires is None:
        return None
    now = datetime.now(UTC)
    if isinstance(expires, timedelta):
        expires = now + expires
    if not isinstance(expires, datetime) or expires.tzinfo is None:
        raise ValueError("expires must be a datetime with a time zone, or a timedelta from now.")
    if expires <= now:
        raise ValueError("expires is over already.")
    return math.floor(expires.timestamp())


def _checked_filter(filter_: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if filter_ is None:
        return None
    unknown = set(filter_) - {"productIds", "kind", "attributes"}
    if unknown:
        raise ValueError(f"A filter has productIds, kind and attributes, and no {min(map(str, unknown))[:100]!r}.")
    given = {name: value for name, value in filter_.items() if value is not None}
    if "attributes" in given:
        given["attributes"] = {name: _condition(name, value) for name, value in given["attributes"].items()}
        if not given["attributes"]:
            del given["attributes"]
        elif len(given["attributes"]) > _MOST_ATTRIBUTES:
            raise ValueError(f"A filter has conditions on at most {_MOST_ATTRIBUTES} attributes.")
    if not given:
        raise ValueError("A filter without conditions restricts nothing: leave it out, or say what a match must be.")
    if "productIds" in given:
        given["productIds"] = _texts(given["productIds"])
    if given.get("kind") not in (None, "image", "video"):
        raise ValueError("kind in a filter must be image or video.")
    return given


def _texts(ids: Any) -> list[str]:
    listed = [] if isinstance(ids, str) else list(ids)
    if not 1 <= len(listed) <= 1000 or not all(isinstance(one, str) for one in listed):
        raise ValueError("productIds in a filter must be 1 to 1,000 texts.")
    return listed


def _condition(name: Any, value: Any) -> Any:
    """A value, a list of values, or operators, as JSON has them."""
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise ValueError("The name of an attribute must be a text of 1 to 100 characters.")
    return _operators(name, value) if isinstance(value, Mapping) else _equals(name, value)


def _operators(name: str, operators: Mapping[str, Any], *, negated: bool = False) -> dict[str, Any]:
    """`negated`: these stand behind a `not`, where no other one may stand."""
    given = {operator: operand for operator, operand in operators.items() if operand is not None}
    known = _OPERATORS - {"not"} if negated else _OPERATORS
    if not given or set(given) - known:
        raise ValueError(
            f"A condition has at least one of {', '.join(sorted(known))}; that of {name!r} has others or none."
        )
    bounds = [operand for operator, operand in given.items() if operator in _BOUNDS]
    # Whether a text is a date, the server says.
    if not (all(map(_is_number, bounds)) or all(isinstance(bound, str) for bound in bounds)):
        raise ValueError(f"A range has numbers or dates as gt, gte, lt or lte, and not both; that of {name!r} has not.")
    if not isinstance(given.get("exists", True), bool):
        raise ValueError(f"exists is true or false; that of {name!r} is neither.")  # noqa: TRY004  # as the others
    for operator in given.keys() & (_LISTS | {"contains"}):
        if _is_list(given[operator]) != (operator in _LISTS):
            raise ValueError(
                f"contains has a value, containsAny and containsAll have a list; {name!r} has it otherwise."
            )
        given[operator] = _equals(name, given[operator])
    if "not" in given:
        opposite = given["not"]
        isolated = isinstance(opposite, Mapping)
        given["not"] = _operators(name, opposite, negated=True) if isolated else _equals(name, opposite)
    return given


def _equals(name: str, value: Any) -> Any:
    values = list(value) if _is_list(value) else [value]
    if not 1 <= len(values) <= 100 or not all(isinstance(one, str | bool) or _is_number(one) for one in values):
        raise ValueError(
            f"An attribute equals a text, a number, true or false, or one of a list of 1 to 100 of these; {name!r} "
            "has something else."
        )
    return values if _is_list(value) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
