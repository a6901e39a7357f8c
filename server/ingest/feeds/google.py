"""Google Merchant Center's product feed: a table, or RSS or Atom with elements of its own.

Which attributes there are: https://support.google.com/merchants/answer/7052112
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import BadParameter, FeedUnreadable
from server.ingest.feed import Row, UrlOf, Wrong
from server.ingest.feeds import cells
from server.ingest.feeds.cells import shown
from server.ingest.feeds.columns import listed, squeezed

ATTRIBUTES = (
    "age_group", "availability", "brand", "color", "condition", "custom_label_0", "custom_label_1", "custom_label_2",
    "custom_label_3", "custom_label_4", "gender", "google_product_category", "gtin", "item_group_id", "material", "mpn",
    "pattern", "product_type", "size",
)  # fmt: skip
"""What becomes an attribute of the same name; all others but `PRICES` are not read."""

PRICES = ("price", "sale_price")
"""What becomes a number, the first one with its currency beside it."""

CURRENCY = "currency"

_FACTS = {squeezed(one): one for one in ATTRIBUTES}
_PRICE = re.compile(r"([A-Za-z]{3})?\s*([\d.,]*\d)\s*([A-Za-z]{3})?", re.ASCII)
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Item:
    """A product as the feed has it: texts by name, the name without what people write differently."""

    number: int
    texts: Mapping[str, Sequence[str]]


def key_of(name: str) -> str:
    """The name of an attribute of Google's: `g:image_link` and `Image link` are the same."""
    return squeezed(name.strip().lower().removeprefix("g:"))


def is_google(heading: Iterable[str]) -> bool:
    """Whether a table's columns can hardly be another's."""
    keys = {key_of(one) for one in heading}
    return {"id", "title", "imagelink"} <= keys and "productid" not in keys


def check_heading(heading: Sequence[str]) -> None:
    """Raises FeedUnreadable where the columns are not Google's."""
    keys = [key_of(one) for one in heading if one]
    if "id" not in keys:
        raise FeedUnreadable(f"No column is id, which Google's feeds have. The columns are: {listed(heading)}.")
    if twice := next((one for one in keys if keys.count(one) > 1 and one not in _SEVERAL), None):
        raise FeedUnreadable(f"Two columns are {twice}. The columns are: {listed(heading)}.")


_SEVERAL = ("additionalimagelink", "producttype")


def rows(items: Iterable[Item | Wrong], client: str) -> Iterator[Row | Wrong]:
    """A row of each item with its first picture, and one of each further picture. An item is wrong as a whole."""
    for item in items:
        if isinstance(item, Wrong):
            yield item
            continue
        try:
            yield from _rows_of(item, client)
        except BadParameter as exc:
            yield Wrong(item.number, exc.sentence)


def _rows_of(item: Item, client: str) -> list[Row]:
    texts = item.texts
    product_id = _first(texts, "id")
    if product_id is None:
        raise BadParameter("The item has no id.")
    urls = [url for url in [_first(texts, "imagelink"), *_links(texts.get("additionalimagelink", ()))] if url]
    pictures: list[UrlOf | None] = [cells.url_of(url) for url in dict.fromkeys(urls)]
    first, *others = pictures or [None]
    found = [
        cells.row_of(
            item.number,
            client_id=client,
            product_id=product_id,
            name=_first(texts, "title"),
            attributes=_attributes(texts) or None,
            picture=first,
        )
    ]
    return found + [
        cells.row_of(item.number, client_id=client, product_id=product_id, picture=picture) for picture in others
    ]


def _links(texts: Iterable[str]) -> Iterator[str]:
    """In a table, links stand in one cell with commas between; a comma within a link is written %2C."""
    for text in texts:
        yield from (one for part in text.split(",") if (one := part.strip()))


def _first(texts: Mapping[str, Sequence[str]], key: str) -> str | None:
    return next((one for text in texts.get(key, ()) if (one := text.strip())), None)


def _attributes(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in _FACTS.items():
        values = [one for text in texts.get(key, ()) if (one := text.strip())]
        if values:
            found[name] = values[0] if len(values) == 1 else values
    if isinstance(availability := found.get("availability"), str):
        found["availability"] = availability.lower().replace(" ", "_")  # older feeds have spaces
    for name in PRICES:
        if (text := _first(texts, squeezed(name))) is not None:
            number, currency = price_of(name, text)
            found[name] = number
            if currency is not None:
                found.setdefault(CURRENCY, currency)
    return found


def price_of(what: str, text: str) -> tuple[float | int, str | None]:
    """A price and its currency, such as `15.00 USD`. Raises BadParameter."""
    match = _PRICE.fullmatch(text)
    if match is None or (match[1] and match[3]):
        raise BadParameter(f"{what} must be a price such as 15.00 USD, and is {shown(text)}.")
    digits = match[2]
    if _THOUSANDS.fullmatch(digits):
        digits = digits.replace(",", "")
    elif _DECIMAL_COMMA.fullmatch(digits):
        digits = digits.replace(",", ".")
    number = cells.number_of(what, digits)
    if number is None:
        raise BadParameter(f"{what} must be a price such as 15.00 USD, and is {shown(text)}.")
    currency = match[1] or match[3]
    return number, currency.upper() if currency else None
