"""Shopify's export of products: a row for each variant and picture, of which the first says what the product is.

The columns: https://help.shopify.com/en/manual/products/import-export/using-csv
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from server.catalogue.fields import MOST_VALUES
from server.errors import BadParameter, FeedUnreadable
from server.ingest.feed import Row, UrlOf, Wrong
from server.ingest.feeds import cells
from server.ingest.feeds.columns import listed, squeezed
from server.ingest.feeds.records import Record

# What we read, and the names that exports have had for it.
_NAMES = {
    "handle": ("Handle", "URL handle"),
    "title": ("Title",),
    "vendor": ("Vendor",),
    "type": ("Type",),
    "category": ("Product Category",),
    "tags": ("Tags",),
    "published": ("Published", "Published on online store"),
    "status": ("Status",),
    "sku": ("Variant SKU", "SKU"),
    "price": ("Variant Price", "Price"),
    "image": ("Image Src", "Product image URL"),
    "variant_image": ("Variant Image", "Variant image URL"),
    **{f"option{n}_name": (f"Option{n} Name",) for n in (1, 2, 3)},
    **{f"option{n}_value": (f"Option{n} Value",) for n in (1, 2, 3)},
}
_BY_SQUEEZED = {squeezed(theirs): name for name, several in _NAMES.items() for theirs in several}

_STATUSES = {"active": True, "draft": False, "archived": False, "unlisted": True}

# The option that Shopify gives to products that have none.
_NO_OPTION = ("title", "default title")

# Rows of one product that are looked at together; Shopify has at most 2,048 variants.
_MOST_ROWS = 5000


def is_shopify(heading: Iterable[str]) -> bool:
    """Whether a table's columns can hardly be another's."""
    names = {_BY_SQUEEZED.get(squeezed(one)) for one in heading}
    return {"handle", "title", "image"} <= names and "productid" not in map(squeezed, heading)


def columns(heading: Sequence[str]) -> list[str | None]:
    """What each column is here; None: it is not read. Raises FeedUnreadable where the columns are not Shopify's."""
    names = [_BY_SQUEEZED.get(squeezed(one)) for one in heading]
    for needed in ("handle", "title"):
        if names.count(needed) != 1:
            raise FeedUnreadable(
                f"Shopify's export has one column {needed.title()}, and this has {names.count(needed)}. The columns "
                f"are: {listed(heading)}."
            )
    if twice := next((one for one in names if one and names.count(one) > 1), None):
        raise FeedUnreadable(f"Two columns are {_NAMES[twice][0]}. The columns are: {listed(heading)}.")
    return names


def rows(records: Iterable[Record | Wrong], client: str) -> Iterator[Row | Wrong]:
    """A row of the line with which a product begins, and one of each further line that has a picture."""
    for product_id, group in _groups(records):
        if product_id is None:
            for one in group:
                yield one if isinstance(one, Wrong) else Wrong(one.number, "The row has no Handle.")
        else:
            yield from _rows_of(product_id, group, client)


def _groups(records: Iterable[Record | Wrong]) -> Iterator[tuple[str | None, list[Record | Wrong]]]:
    """Rows of one product that follow one another. A wrong line goes with those before it."""
    product_id: str | None = None
    group: list[Record | Wrong] = []
    for one in records:
        if isinstance(one, Record):
            its = one.cells.get("handle", "").strip() or None
            if group and (its != product_id or len(group) >= _MOST_ROWS):
                yield product_id, group
                group = []
            product_id = its
        elif len(group) >= _MOST_ROWS:
            yield product_id, group
            group = []
        group.append(one)
    if group:
        yield product_id, group


def _rows_of(product_id: str, group: list[Record | Wrong], client: str) -> Iterator[Row | Wrong]:
    records = [one for one in group if isinstance(one, Record)]
    main = next((one for one in records if _text(one, "title")), None)
    seen: set[str] = set()
    for one in group:
        if isinstance(one, Wrong):
            yield one
            continue
        try:
            urls = [url for name in ("image", "variant_image") if (url := _text(one, name)) and url not in seen]
            seen.update(urls)
            pictures: list[UrlOf | None] = [cells.url_of(url) for url in dict.fromkeys(urls)]
            facts = _facts(one, records) if one is main else {}
            if facts and not pictures:
                pictures = [None]
            found = [
                cells.row_of(
                    one.number, client_id=client, product_id=product_id, picture=picture, **(facts if not at else {})
                )
                for at, picture in enumerate(pictures)
            ]
        except BadParameter as exc:
            yield Wrong(one.number, exc.sentence)
        else:
            yield from found


def _facts(main: Record, records: Sequence[Record]) -> dict[str, Any]:
    """What a product is, by its first row and its variants."""
    attributes: dict[str, Any] = {
        name: text for name in ("vendor", "type", "category") if (text := _text(main, name)) is not None
    }
    if tags := cells.list_of(_text(main, "tags") or "", ","):
        attributes["tags"] = tags[:MOST_VALUES]
    prices = [price for one in records if (price := cells.number_of("Variant Price", _text(one, "price"))) is not None]
    if prices:
        attributes["price"] = min(prices)
    for n in (1, 2, 3):
        option = _text(main, f"option{n}_name")
        values = dict.fromkeys(value for one in records if (value := _text(one, f"option{n}_value")))
        if option and values and (option.lower(), *map(str.lower, values)) != _NO_OPTION:
            attributes[option] = list(itertools.islice(values, MOST_VALUES))
    sku = next((sku for one in records if (sku := (_text(one, "sku") or "").lstrip("'"))), None)
    return {
        "name": _text(main, "title"),
        "sku": sku,
        "is_active": _is_active(main),
        "attributes": attributes or None,
    }


def _is_active(main: Record) -> bool | None:
    """Whether the product can be seen in the shop: it is neither a draft nor taken off the online store."""
    status, published = _text(main, "status"), cells.boolean_of("Published", _text(main, "published"))
    if status is None:
        return published
    if status.lower() not in _STATUSES:
        raise BadParameter(f"Status must be active, draft or archived, and is {cells.shown(status)}.")
    return _STATUSES[status.lower()] and published is not False


def _text(record: Record, name: str) -> str | None:
    return cells.text_of(name, record.cells.get(name))
