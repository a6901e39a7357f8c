"""What the server answers with, and what it is asked with.

Each answer is a frozen struct whose fields are those of the JSON, in snake_case. Fields that a later server adds are
ignored. What is one of a few words today (`grade`, `status`, `plan`) is a text here, since a later server may have
further words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Body(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is left at its default is not sent, so that the server's own default holds."""


# --- searches --------------------------------------------------------------------------------------------------------


class Match(_Answer, frozen=True, kw_only=True):
    """One picture of the catalogue, and how much it is like what was searched for."""

    product_id: str
    product_name: str
    media_id: str
    s3_key: str
    thumbnail_url: str
    """A path below the server's address, with a signature: a page can show it without a key until it expires."""
    file_url: str | None
    """The same for the picture as it came; None where the key may only search."""
    width: int | None
    """Pixels, as `height`, of the upright picture."""
    height: int | None
    score: float
    """-cosine, as pgvector's `<#>` gives."""
    cosine: float
    similarity: float
    """Per cent: (1 + cosine) / 2 * 100, with one digit after the point."""
    grade: str | None
    """`identical`, `near-duplicate`, `similar` or `weak`; None where the model has no grades, for words, and for
    several things at once."""
    sku: str | msgspec.UnsetType | None = msgspec.UNSET
    """Of the product, as the three behind it: there where the search named it in its `fields`."""
    url: str | msgspec.UnsetType | None = msgspec.UNSET
    """The attribute of this name where it is an http or https address, else None."""
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    attributes: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Those that were named and the product has."""


class MatchWords(_Answer, frozen=True, kw_only=True):
    """How a product answers to words that were searched for."""

    by: str
    """`sku`, `name`, `words`, `begun` or `misspelt`."""
    likeness: float
    bonus: float
    """What it adds to rank by."""


class MatchExplanation(_Answer, frozen=True, kw_only=True):
    """Why a match has its place."""

    ranking: float
    """What it is ranked by: its cosine plus `boosts`, and the bonus of `words`."""
    boosts: float
    cosines: list[float | None]
    """With each part of the query, in their order."""
    words: MatchWords | None
    """None where no words name the product."""


class Result(Match, frozen=True, kw_only=True):
    """A match of a search."""

    media: list[Match] | None = None
    """With `group_by`: what else of the product was found, best first."""
    explain: MatchExplanation | None = None
    """Where it was asked for."""


class ExplainedWords(_Answer, frozen=True, kw_only=True):
    """What the words of a search have named."""

    products: int
    corrected: dict[str, list[str]]
    """Words that were taken for others."""


class Explanation(_Answer, frozen=True, kw_only=True):
    """How a list came about."""

    plan: str
    limit: int
    """How many matches were asked for, once what the key allows is taken into account."""
    candidates: int
    """How many pictures were ranked, of all that were compared."""
    timings: dict[str, float]
    """Milliseconds by stage."""
    words: ExplainedWords | None
    """None where something else than words alone was searched for."""


class FacetCount(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """How many have this value of an attribute, or one within these bounds, which are those that were asked for."""

    value: str | int | float | bool | None = None
    gt: int | float | str | None = None
    gte: int | float | str | None = None
    lt: int | float | str | None = None
    lte: int | float | str | None = None
    count: int


class FacetStats(_Answer, frozen=True, kw_only=True):
    """The least and the greatest number of an attribute, or date where dates are declared; None where there is none."""

    min: int | float | str | None
    max: int | float | str | None
    count: int
    """How many have one."""


class SearchAnswer(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """The matches, best first."""

    results: list[Result]
    next: str | None = None
    """The `cursor` of the next page; None where nothing follows."""
    space: str
    """The embedding space that was searched."""
    plan: str
    """`exact` when each media of the client was compared, `index` when its own index was searched."""
    timings: dict[str, float]
    """Milliseconds by stage."""
    explain: Explanation | None = None
    """Where it was asked for."""
    total: int | None = None
    """How many media, or products with `group_by`, the list would hold without its limit; None, as the next two, where
    no facets were asked for."""
    facets: dict[str, list[FacetCount]] | None = None
    """By attribute: its values, those first that most have; or the ranges, as they were asked for."""
    facet_stats: dict[str, FacetStats] | None = None
    """By attribute, of those with `stats`."""


class Duplicates(_Answer, frozen=True, kw_only=True):
    """The other media of a client that are the same picture as one of its own."""

    exact: list[Match]
    """The very same bytes."""
    near: list[Match] | None
    """Identical or near-duplicate by their vectors, best first; None where the model has no grades, or the media has no
    vector yet."""
    space: str


class ProposedRegion(_Answer, frozen=True, kw_only=True):
    """A part of a picture that shows something."""

    crop: list[float]
    """As `search` takes it."""
    score: float
    """How much of all that stands out from the picture's ground is there, 0 to 1."""


class Regions(_Answer, frozen=True, kw_only=True):
    """Which parts of a picture show something."""

    regions: list[ProposedRegion]
    """The highest score first, at most five; empty where nothing stands out from the ground."""


class Embeddings(_Answer, frozen=True, kw_only=True):
    """Vectors of unit length, in the order that the pictures or texts were given."""

    embeddings: list[list[float]]
    space: str
    """Their embedding space: vectors of different spaces cannot be compared."""


class QueryPart(_Body, frozen=True, kw_only=True):
    """A part of a query, as it is sent."""

    text: str | None = None
    media_id: str | None = None
    embedding: list[float] | None = None
    space: str | None = None
    file: int | None = None
    """The place of a picture in the form."""
    crop: list[float] | None = None
    weight: float = 1.0


class SearchBody(_Body, frozen=True, kw_only=True):
    """A search with anything but a picture."""

    text: str | None = None
    media_id: str | None = None
    embedding: list[float] | None = None
    space: str | None = None
    crop: list[float] | None = None
    query: list[QueryPart] | None = None
    filter: Mapping[str, Any] | None = None
    limit: int | None = None
    min_similarity: float | None = None
    min_grade: str | None = None
    mode: str | None = None
    facets: list[str | Mapping[str, Any]] | None = None
    facets_over: str | None = None
    fields: list[str] | None = None
    group_by: str | None = None
    group_size: int | None = None
    max_per_product: int | None = None
    distinct: float | None = None
    boosts: Sequence[Mapping[str, Any]] | None = None
    cursor: str | None = None
    explain: bool = False


class TextsBody(_Body, frozen=True, kw_only=True):
    """Texts whose vectors are asked for."""

    texts: list[str]


# --- the catalogue ---------------------------------------------------------------------------------------------------


class Product(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """A product of a client's catalogue."""

    id: str
    client_id: str
    name: str
    sku: str | None
    is_active: bool
    """Whether searches find its pictures."""
    attributes: dict[str, Any]
    """Facts that searches filter by: under each name a text, a number, true, false or None, or a list of these."""
    created_at: datetime
    updated_at: datetime
    etag: str | None = None
    """Its version, for `if_match`; None in lists and where a later version of the server does not say it."""


class Media(_Answer, frozen=True, kw_only=True):
    """One picture of a product."""

    id: str
    product_id: str
    client_id: str
    kind: str
    status: str
    s3_key: str
    thumbnail_url: str
    """A path below the server's address, with a signature: a page can show it without a key until it expires."""
    file_url: str | None
    content_type: str | None
    bytes: int | None
    width: int | None
    """Pixels, as `height`, of the upright picture."""
    height: int | None
    content_digest: str | None
    """SHA-256 of the bytes, hex."""
    created_at: datetime
    blank: bool
    """Whether it shows nothing but one colour: it is never called identical, nor a duplicate."""


class ProductWithMedia(Product, frozen=True, kw_only=True):
    """A product, and the first of its media in the order in which they were added."""

    media: list[Media]
    media_next: str | None
    """Not None where there are more: then `list_media` gives all of them."""


class AttributesBody(_Body, frozen=True, kw_only=True):
    """What attributes are declared as, by their names; and whose words products are found by."""

    attributes: Mapping[str, str]
    searchable: Sequence[str] | None = None


class DeclaredAttributes(_Answer, frozen=True, kw_only=True):
    """What attributes are declared as, by their names: `number`, `text`, `boolean`, `date` or `list`."""

    attributes: dict[str, str]
    searchable: list[str]
    """The attributes whose words a search by words finds products by, beside those of name and SKU."""


class UrlBody(_Body, frozen=True, kw_only=True):
    """A picture that the server fetches."""

    url: str


class Upsert(_Body, frozen=True, kw_only=True, tag_field="op", tag="upsert"):
    """In a batch: create a product, or replace all that is said of it."""

    id: str
    name: str
    sku: str | None = None
    is_active: bool = True
    attributes: Mapping[str, Any] = {}


class Delete(_Body, frozen=True, kw_only=True, tag_field="op", tag="delete"):
    """In a batch: delete a product with all its media."""

    id: str


class BatchBody(_Body, frozen=True, kw_only=True):
    """Changes of products, in their order."""

    items: list[Upsert | Delete]
    atomic: bool = False


class ItemProblem(_Answer, frozen=True, kw_only=True):
    """Why an item of a batch was refused."""

    error: str
    code: str


class BatchResult(_Answer, frozen=True, kw_only=True):
    """What came of one item of a batch."""

    id: str | None
    status: int
    """The single call's: 200, 201, 404, 409 or 422."""
    error: ItemProblem | None = None


class BatchAnswer(_Answer, frozen=True, kw_only=True):
    """What came of each item, in their order."""

    items: list[BatchResult]


class ProductPage(_Answer, frozen=True, kw_only=True):
    """Some of a client's products."""

    products: list[Product]
    next: str | None


class MediaPage(_Answer, frozen=True, kw_only=True):
    """Some of a product's media."""

    media: list[Media]
    next: str | None


class ProductBody(_Body, frozen=True, kw_only=True):
    """All of a product that its owner decides."""

    name: str
    sku: str | None = None
    is_active: bool = True
    attributes: Mapping[str, Any] = {}


class PatchBody(_Body, frozen=True, kw_only=True):
    """What is to change of a product: a JSON merge patch."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    sku: str | msgspec.UnsetType | None = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    attributes: Mapping[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class MoveBody(_Body, frozen=True, kw_only=True):
    """Which product a media is to belong to."""

    product_id: str


# --- the server itself -----------------------------------------------------------------------------------------------


class Check(_Answer, frozen=True, kw_only=True):
    """Whether one of the things that a server needs is as it should be, and otherwise what is wrong with it."""

    ok: bool
    code: str | None = None
    error: str | None = None


class Health(_Answer, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Readiness(_Answer, frozen=True, kw_only=True):
    """The server can do all of its work; and which model it runs, and where."""

    status: str
    model: str
    device: str
    precision: str
    space: str
    text: bool
    """Whether the model reads words as well."""
    reads: list[str]
    """The media types of the pictures that are read."""
    checks: dict[str, Check]


class Problem(_Answer, frozen=True, kw_only=True):
    """The body of every error."""

    error: str
    code: str
    request_id: str
