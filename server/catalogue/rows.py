"""What goes into the catalogue and what comes out of it: frozen records.

The ids of products and media in them are the API's, which are unique within a client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server.artifact.artifact import short_id
from server.catalogue.boosts import Boost
from server.catalogue.cards import NOTHING, Shown
from server.catalogue.filters import Filter
from server.catalogue.similarity import least_cosine


@dataclass(frozen=True)
class SpaceRow:
    """An embedding space as the database holds it; `number` names its table of vectors."""

    number: int
    id: str
    dimensions: int
    model: str
    live: bool

    @property
    def table(self) -> str:
        return table_of(self.number)

    @property
    def short_id(self) -> str:
        return short_id(self.id)


def table_of(number: int) -> str:
    """The table of vectors of the space with this number."""
    return f"twinlens_space_{number}"


Digest = bytes
"""SHA-256 of a file's bytes, 32 bytes."""

DEFAULT_LIMIT = 24
"""How many matches a search gives unless it names another limit."""

MOST_MATCHES = 1000

DEFAULT_GROUP = 4
"""How many others of a product a grouped search gives unless it names another size."""

MOST_BONUSES = 1000
"""Products that one search may give a bonus."""

Plan = Literal["exact", "index"]
"""How a search was answered: by comparing with each media of the client, or through the client's own HNSW index."""


@dataclass(frozen=True)
class Product:
    """A product of a client's."""

    id: str
    client_id: str
    name: str
    sku: str | None
    is_active: bool
    attributes: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    """When any of it last changed, by whomever; so it names a version of the product."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a write expects its product to be: where it is not, nothing is written."""

    versions: tuple[datetime, ...] | None = None
    """There, and last changed at one of these times."""
    present: bool = False
    """There, of whatever version. With `versions` it is so anyway."""
    absent: bool = False
    """Not there yet."""

    @property
    def anything(self) -> bool:
        return self.versions is None and not self.present and not self.absent

    @property
    def parameters(self) -> dict[str, Any]:
        """As `put_product` and `patch_product` take it."""
        versions = None if self.versions is None else list(self.versions)
        return {"versions": versions, "present": self.present or versions is not None, "absent": self.absent}


ANYTHING = Expected()


@dataclass(frozen=True, slots=True)
class ProductPatch:
    """What is to change of a product: all else stays."""

    name: str | None = None
    """None: stays."""
    sku: str | None = None
    given_sku: bool = False
    """Whether the SKU changes: to `sku`, or to none."""
    is_active: bool | None = None
    """None: stays."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Those that come, or change."""
    removed: tuple[str, ...] = ()
    """The names of those that go."""
    no_attributes: bool = False
    """All that were there go."""


@dataclass(frozen=True)
class NewMedia:
    """A media to be added: a picture whose bytes are stored under `s3_key`, with SHA-256 `content_digest`.

    `width` and `height` in pixels, after orientation; `bytes` is the file's size. `upload`: 32 hex digits, after which
    the keys of its objects are named. Each upload draws its own, so that no two share one, whatever their clients and
    ids.
    """

    id: str
    product_id: str
    client_id: str
    s3_key: str
    thumbnail_key: str | None
    content_type: str | None
    bytes: int | None
    width: int | None
    height: int | None
    content_digest: Digest
    upload: str
    kind: str = "image"


@dataclass(frozen=True)
class Media:
    """One picture of a product."""

    id: str
    product_id: str
    client_id: str
    kind: str
    status: str
    s3_key: str
    thumbnail_key: str | None
    content_type: str | None
    bytes: int | None
    width: int | None
    height: int | None
    content_digest: Digest | None
    created_at: datetime
    blank: bool
    """One colour throughout, in the space that the catalogue works in; False also without a vector there."""


class MediaVector(NamedTuple):
    """A media's vector in a space."""

    embedding: NDArray[np.float32]
    """float32[D] of unit length, as it is stored."""
    blank: bool


class ProductFile(NamedTuple):
    """A file that a product has a picture of."""

    product_id: str
    digest: Digest


class Key(NamedTuple):
    """The place of a match in the one order of a search: best first, then the query's own media and file."""

    rank: int
    """What it is ranked by, in millionths: its cosine, and what its product has besides."""
    own_media: bool
    own_file: bool
    media_id: str


@dataclass(frozen=True, eq=False)
class Query:
    """A search of one client's pictures: what for, and which matches to give."""

    client_id: str
    vector: ArrayLike
    """float[D] of unit length, D the space's dimensions."""
    limit: int = DEFAULT_LIMIT
    """At most so many matches, 1 to MOST_MATCHES."""
    min_similarity: float | None = None
    """A percentage, compared with the rounded one that is shown."""
    min_cosine: float | None = None
    """The least cosine of a match, in [-1, 1]; not of one whose product has a bonus."""
    filter: Filter = field(default_factory=Filter)
    """What a match must be beyond the client's. A filter never shortens the list while enough matches exist."""
    within: Filter = field(default_factory=Filter)
    """What a match must be besides, since its caller may search among no others."""
    digest: Digest | None = None
    """SHA-256 of the bytes that the vector was made from: media with these bytes are always candidates, even before
    their vectors are made."""
    media_id: str | None = None
    """The media that the vector was read from: it is always a candidate."""
    without_blank: bool = False
    """Leave out media that are blank."""
    shown: Shown = NOTHING
    """What of their products the matches have, beyond the name."""
    bonuses: Mapping[str, float] = field(default_factory=dict)
    """By the product's id: what is added to the cosine of each of its media, to rank by; up to MOST_BONUSES of them.

    All active media of these products that pass the filter are candidates, whatever an index gives and however far
    they are from the query. So a product with a bonus above 2 comes before all without, and among several the higher
    bonus decides before the picture does where they are further apart than 2. What there is no product of is ignored.
    A match's `cosine` stays that of the picture, and its `ranking` has both. min_similarity asks for the cosine of
    these media, too; min_cosine does not. Both leave out matches, and never shorten the list while others pass."""
    boosts: tuple[Boost, ...] = ()
    """What attributes add to rank by, likewise for every product."""
    grouped: bool = False
    """One match a product: its best, whose others are in `Found.others`."""
    group_size: int = DEFAULT_GROUP
    """At most so many others of each product."""
    max_per_product: int | None = None
    """At most so many matches of one product; not with `grouped`."""
    distinct: float | None = None
    """Leave out a match whose cosine with one that is listed before it is at least this; not with `after`."""
    after: Key | None = None
    """Begin behind the match of this place, which need not be there any more."""
    depth: int = 0
    """How many matches came up to there: a hint."""

    @property
    def least(self) -> float | None:
        """The least cosine of a match; None where any will do."""
        return least_cosine(self.min_similarity, self.min_cosine)

    @property
    def least_named(self) -> float | None:
        """The same for media of products with a bonus."""
        return least_cosine(self.min_similarity)

    @property
    def plain(self) -> bool:
        """Whether it is for the nearest pictures, and begins with the best."""
        arranged = self.grouped or self.max_per_product is not None or self.distinct is not None
        return not (arranged or self.bonuses or self.boosts or self.after is not None)


@dataclass(frozen=True)
class Match:
    """A media that was found, with its cosine to the query: in [-1, 1], to the sixth decimal."""

    product_id: str
    product_name: str
    media_id: str
    s3_key: str
    width: int | None
    height: int | None
    cosine: float
    ranking: float
    """What it is ranked by: the cosine, and what its product has besides; to the sixth decimal."""
    blank: bool
    """One colour throughout, in the space that was searched; False also for a media that has no vector there yet."""
    sku: str | None = None
    is_active: bool = True
    url: str | None = None
    """The attribute of this name where the query shows it, whatever it is; `cards.address_of` reads it."""
    attributes: Mapping[str, Any] | None = None
    """Those that the query shows; None where it shows none."""


@dataclass(frozen=True)
class Found:
    """The matches of a search, best first, and how they were obtained."""

    matches: list[Match]
    plan: Plan
    end: Key | None = None
    """The place of the last match, where others may follow it."""
    others: Mapping[str, Sequence[Match]] = field(default_factory=dict)
    """Of a grouped search, by the product's id: what else of the product was found, best first."""
    candidates: int = 0
    """How many the index gave, or how many an exact search kept to sort, in the last try."""


@dataclass(frozen=True)
class IndexAnswer:
    """A search that an index answered, for whoever compares such answers with exact ones."""

    query: Query
    cosines: tuple[float, ...]
    """Of its matches, best first, before any of them fell away for being too far from the query."""
