"""What the clients do: operations drawn at random, the same ones for a seed, whatever becomes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CLIENTS = ("alfa", "bravo", "charlie")
"""They use the same ids and the same pictures: whatever crosses from one to another is seen."""

PRODUCTS = 16
SLOTS = 4
"""Pictures that a product can have. Each place has its own picture, which no other place of the client has."""

CATEGORIES = ("bags", "hats", "lamps")
MOST_PRICE = 100

WRITES: dict[str, float] = {
    "put product": 14,
    "add picture": 18,
    "delete picture": 6,
    "delete product": 3,
    "switch by SQL": 6,
    "ingest": 0.25,
}
READS: dict[str, float] = {
    "get product": 8,
    "get picture": 5,
    "get file": 3,
    "get thumbnail": 2,
    "search by picture": 24,
    "search by media": 11,
}
_KINDS = {**WRITES, **READS}
_LONGEST_PAUSE = 0.1

# Of feeds: how many of a lane's products one has, how many of these say what they said before, how many runs prune, and
# how many are ended before their time.
_IN_THE_FEED, _AS_BEFORE, _PRUNED, _ENDED_EARLY = 0.6, 0.5, 0.5, 0.4
_MOST_SECONDS_OF_LIFE = 5.0


@dataclass(frozen=True, slots=True)
class Filter:
    """What a search is narrowed to; what is None narrows nothing."""

    category: str | None = None
    below: int | None = None
    products: tuple[int, ...] | None = None

    @property
    def json(self) -> str | None:
        """As the API takes it; None where nothing is narrowed."""
        attributes: dict[str, object] = {}
        if self.category is not None:
            attributes["category"] = self.category
        if self.below is not None:
            attributes["price"] = {"lt": self.below}
        found: dict[str, object] = {"attributes": attributes} if attributes else {}
        if self.products is not None:
            found["productIds"] = [product_id(one) for one in self.products]
        return json.dumps(found) if found else None

    def passes(self, product: int, category: str, price: int) -> bool:
        return (
            self.category in (None, category)
            and (self.below is None or price < self.below)
            and (self.products is None or product in self.products)
        )


@dataclass(frozen=True, slots=True)
class FeedRow:
    """What a feed has of a product: its facts, and the places whose pictures it names, in order.

    `number`: of the operation that drew the facts, by which the product is named.
    """

    product: int
    number: int
    active: bool
    category: str
    price: int
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed of a lane's products, brought in with `python -m server ingest`."""

    rows: tuple[FeedRow, ...]
    prune: bool
    ended_after: float | None
    """Seconds after which its first run is ended from outside, if it is."""
    killed: bool
    """Whether by SIGKILL, or else by SIGTERM."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client does. Each has all fields; its kind says which of them it needs."""

    number: int
    kind: str
    client: str
    product: int
    slot: int
    active: bool
    category: str
    price: int
    limit: int
    filter: Filter
    exact: bool
    """Whether a search sends the very file, or one of other bytes and the same pixels."""
    pause: float
    """Seconds until the next one."""
    feed: Feed | None = None

    @property
    def writes(self) -> bool:
        return self.kind in WRITES

    @property
    def name(self) -> str:
        """What a product is called that this operation puts: no other product is ever called so."""
        return named(self.client, self.product, self.number)


def named(client: str, product: int, number: int) -> str:
    """What a product is called by the operation of this number."""
    return f"{client} product {product} v{number}"


def product_id(product: int) -> str:
    return f"product-{product}"


def product_of(id_: str) -> int | None:
    """The number of a product by its id; None where no operation names such a product."""
    head, _, number = id_.rpartition("-")
    return int(number) if head == "product" and number.isdecimal() and int(number) < PRODUCTS else None


def operations(seed: int, client: str, lane: int, lanes: int) -> Iterator[Operation]:
    """The operations of one lane without end. A lane writes its own products alone, and reads all of the client's."""
    chance = random.Random(f"{seed} {client} {lane}")  # noqa: S311 - a draw, no secret
    own = [product for product in range(PRODUCTS) if product % lanes == lane]
    names, weights = list(_KINDS), list(_KINDS.values())
    number, before = lane, dict[int, FeedRow]()
    while True:
        (kind,) = chance.choices(names, weights)
        some = tuple(sorted(chance.sample(range(PRODUCTS), 5)))
        narrowed = Filter(
            category=chance.choice(CATEGORIES) if chance.random() < 0.3 else None,
            below=chance.randrange(MOST_PRICE) if chance.random() < 0.2 else None,
            products=some if chance.random() < 0.2 else None,
        )
        anywhere = chance.randrange(PRODUCTS)
        at_home = chance.choice(own)
        yield Operation(
            number=number,
            kind=kind,
            client=client,
            product=at_home if kind in WRITES else anywhere,
            slot=chance.randrange(SLOTS),
            active=chance.random() < 0.75,
            category=chance.choice(CATEGORIES),
            price=chance.randrange(MOST_PRICE),
            limit=chance.choice((1, 3, 10, 24, 60, 100)),
            filter=narrowed,
            exact=chance.random() < 0.5,
            pause=chance.uniform(0, _LONGEST_PAUSE),
            feed=_feed(chance, own, number, before) if kind == "ingest" else None,
        )
        number += lanes


def _feed(chance: random.Random, own: Sequence[int], number: int, before: dict[int, FeedRow]) -> Feed:
    """The next feed of a lane; `before`: what its feeds have said of each product so far."""
    rows = []
    for product in own:
        if chance.random() >= _IN_THE_FEED:
            continue
        if product not in before or chance.random() >= _AS_BEFORE:
            before[product] = FeedRow(
                product,
                number,
                active=chance.random() < 0.75,
                category=chance.choice(CATEGORIES),
                price=chance.randrange(MOST_PRICE),
                slots=tuple(chance.sample(range(SLOTS), chance.randrange(SLOTS))),
            )
        rows.append(before[product])
    early = chance.uniform(0.3, _MOST_SECONDS_OF_LIFE) if chance.random() < _ENDED_EARLY else None
    return Feed(tuple(rows), chance.random() < _PRUNED, early, killed=chance.random() < 0.75)
