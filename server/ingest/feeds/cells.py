"""What the cells of a row mean: texts, numbers, true and false, lists, and a row made of them all.

Whatever is wrong with a cell raises BadParameter, whose sentence becomes the reason why a line is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from server.access.clients import check_id, check_item_id
from server.catalogue.fields import check_fields
from server.errors import BadParameter
from server.ingest.feed import FileOf, KeyOf, PictureOf, Row, UrlOf

_TRUE = {"true", "yes", "1"}
_FALSE = {"false", "no", "0"}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Thousands are set apart by dots in groups of three, or not at all.
_COMMA_NUMBER = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?(,\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
# Digits that are no number: with a zero before them, or as many as an EAN has.
_CODE = re.compile(r"0\d+|\d{8,}", re.ASCII)

# Above it, floats skip whole numbers.
_LARGEST_WHOLE_FLOAT = 2**53

_IN_NO_URL = re.compile(r"[\s\0\ud800-\udfff]")

_LONGEST_KEY = 1024
_LONGEST_URL = 2048
_SHOWN = 60


def shown(value: object) -> str:
    """A value as a sentence has it: in quotes, and not at length."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def text_of(what: str, value: Any) -> str | None:
    """A text without the white space around it; None for nothing. Whole numbers are texts, too: ids often are."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_WHOLE_FLOAT:
        return str(int(value))  # a table with gaps keeps its whole numbers as floats
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadParameter(f"{what} must be a text, and is {shown(value)}.")


def boolean_of(what: str, value: Any) -> bool | None:
    """True or False; None for nothing."""
    if value is None or isinstance(value, bool):
        return value
    text = (text_of(what, value) or "").lower()
    if not text:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadParameter(f"{what} must be true or false (or yes, no, 1, 0), and is {shown(value)}.")


def number_of(what: str, value: Any, *, decimal_comma: bool = False) -> int | float | None:
    """A finite number; None for nothing."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = text_of(what, value)
    if text is None:
        return None
    if decimal_comma and _COMMA_NUMBER.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        hint = "" if decimal_comma or "," not in text else " With --decimal-comma, 12,50 is one."
        raise BadParameter(f"{what} must be a number such as 12.50, and is {shown(value)}.{hint}")
    return int(text) if _WHOLE.fullmatch(text) else number


def looks_like_number(text: str, *, decimal_comma: bool = False) -> bool:
    """Whether `number_of` would read it, and it does not look like a code."""
    text = text.strip()
    if not text or _CODE.fullmatch(text):
        return False
    try:
        return number_of("", text, decimal_comma=decimal_comma) is not None
    except BadParameter:
        return False


def list_of(value: Any, separator: str) -> Any:
    """The values of a text, without the empty ones; what is a list already stays as it is."""
    if not isinstance(value, str):
        return value
    return [one for part in value.split(separator) if (one := part.strip())]


def object_of(what: str, value: Any) -> dict[str, Any] | None:
    """A JSON object, from its text or as it is; None for nothing."""
    if isinstance(value, str):
        if not value.strip():
            return None
        _check_text(what, value)
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise BadParameter(f"{what} must hold a JSON object, and cannot be read: {exc}.") from exc
    if value is None or isinstance(value, dict):
        return value
    raise BadParameter(f'{what} must hold a JSON object, such as {{"colour": "red"}}.')


def picture_of(file: Any, url: str | None, key: str | None, folder: Path) -> PictureOf | None:
    """Where a row's picture is; None where it names none. `folder`: where relative files lie."""
    path = file if isinstance(file, str) and file.strip() else text_of("file", file)
    if sum(one is not None for one in (path, url, key)) > 1:
        raise BadParameter("A row has one picture: as file, as url or as s3Key.")
    if path is not None:
        if "://" in path:
            raise BadParameter(f"file must be the path of a file, and is {shown(path)}; addresses go into url.")
        _check_text("file", path)
        return FileOf(folder / path)
    if url is not None:
        return url_of(url)
    return KeyOf(_checked_key(key)) if key is not None else None


def url_of(url: str) -> UrlOf:
    """A picture at an address. Whether that may be fetched is decided when it is."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and len(url) <= _LONGEST_URL
        fit = fit and (parts.port is None or parts.port > 0)
    except ValueError:
        fit = False
    if not fit or _IN_NO_URL.search(url):
        raise BadParameter(
            f"url must be an address that begins with http:// or https://, of at most {_LONGEST_URL:,} characters, "
            f"and is {shown(url)}."
        )
    return UrlOf(url)


def _checked_key(key: str) -> str:
    _check_text("s3Key", key)
    if len(key.encode()) > _LONGEST_KEY or any(part in ("", ".", "..") for part in key.split("/")):
        raise BadParameter(
            f"s3Key must be the key of an object, such as pictures/1.jpg, of at most {_LONGEST_KEY:,} bytes, "
            f"and is {shown(key)}."
        )
    return key


def row_of(
    number: int,
    *,
    client_id: str,
    product_id: str | None,
    name: str | None = None,
    sku: str | None = None,
    is_active: bool | None = None,
    attributes: Mapping[str, Any] | None = None,
    picture: PictureOf | None = None,
) -> Row:
    """A row that the API would take as well. Raises BadParameter."""
    if product_id is None:
        raise BadParameter("The row has no productId.")
    check_id("clientId", client_id)
    check_item_id("productId", product_id)
    check_fields(name, sku, attributes)
    _check_texts(name, sku, attributes)
    return Row(number, client_id, product_id, name, sku, is_active, attributes, picture)


def _check_texts(name: str | None, sku: str | None, attributes: Mapping[str, Any] | None) -> None:
    """Refuse what neither JSON nor PostgreSQL can keep: NUL, what is no text, and numbers without end."""
    try:
        encoded = msgspec.json.encode((name, sku, attributes))
    except UnicodeEncodeError:
        pass
    else:
        # What is neither NUL nor without end may look so here, and is looked at once more.
        if b"\\u0000" not in encoded and (b"null" not in encoded or not attributes):
            return
    _check_text("name", name)
    _check_text("sku", sku)
    for key, value in (attributes or {}).items():
        _check_text("The name of an attribute", key)
        for one in value if isinstance(value, list) else (value,):
            _check_text(f"The attribute {shown(key)}", one)
            if isinstance(one, float) and not math.isfinite(one):
                raise BadParameter(f"The attribute {shown(key)} is a number without end: {one}.")


def _check_text(what: str, value: Any) -> None:
    if not isinstance(value, str):
        return
    if "\0" in value:
        raise BadParameter(f"{what} holds a NUL character.")
    if not is_text(value):
        raise BadParameter(
            f"{what} holds bytes that are no text in UTF-8. A file in another encoding is read with --encoding, such "
            "as --encoding cp1252."
        )


def is_text(text: str) -> bool:
    """Whether all of it was text in its encoding: what was not is there as lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
