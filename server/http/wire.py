"""What goes over the wire: request and response bodies, camelCase in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from server.access.clients import DEFAULT_CLIENT, ID_PATTERN, MOST_CHARACTERS_OF_AN_ID
from server.artifact.grades import GRADES, Grade, Grades, TextGrades
from server.catalogue import rows
from server.catalogue.batches import MOST_CHANGES
from server.catalogue.boosts import Boosts
from server.catalogue.cards import FIELD_PATTERN, MOST_FIELDS, NOTHING, Shown, address_of
from server.catalogue.composing import LARGEST_WEIGHT, MOST_PARTS
from server.catalogue.declared import MOST_SEARCHABLE, Declared
from server.catalogue.facets import MOST_FACETS, Counts, Facet, FacetsOver, RangeCount, ValueCount
from server.catalogue.fields import AttributeName, Attributes, Name, Sku, Value
from server.catalogue.filters import MOST_ATTRIBUTES, AttributeType, Bound, Filter, Key, Scalar
from server.catalogue.lists import DEFAULT_PAGE, LARGEST_PAGE
from server.catalogue.similarity import clamp, score, similarity
from server.catalogue.words import By
from server.errors import TwinlensError
from server.hosts import LONGEST_URL
from server.preprocessing.proposals import Proposal
from server.preprocessing.text import MOST_CHARACTERS

# Which ids there can be is checked where the call is worked out, whose error has a sentence of our own.
ClientId = Annotated[
    str,
    msgspec.Meta(
        description=f"The client; `{DEFAULT_CLIENT}` when not given.", extra_json_schema={"pattern": f"^{ID_PATTERN}$"}
    ),
]
Limit = Annotated[int, msgspec.Meta(ge=1, le=rows.MOST_MATCHES)]
Percentage = Annotated[float, msgspec.Meta(ge=0, le=100)]
SpaceId = Annotated[str, msgspec.Meta(max_length=64)]

# Its length is checked by the tokenizer, whose error has a sentence of our own.
Text = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MOST_CHARACTERS})]

# A grade's name, checked by `grade_named` for the same reason.
MinGrade = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [*GRADES]})]


FilterText = Annotated[
    str,
    msgspec.Meta(
        description='What a match must be, as JSON: {"productIds": [...], "kind": "image", '
        '"attributes": {"category": "shoes", "colour": ["red", "blue"], "price": {"gte": 10, "lt": 50}}}. Beside gt, '
        "gte, lt and lte, a condition has exists, not, contains, containsAny and containsAll."
    ),
]
"""A `Filter` as a form has it."""


# Which fields there are is checked by `Shown.read`, whose error has a sentence of our own.
ShownFields = Annotated[
    list[Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{FIELD_PATTERN}$"})]],
    msgspec.Meta(
        max_length=MOST_FIELDS,
        description="What each match has of its product besides: `sku`, `url`, `isActive`, `attributes` (all of them), "
        "or `attributes.NAME`.",
    ),
]

FieldsText = Annotated[
    str,
    msgspec.Meta(
        description='What each match has of its product besides, as JSON: ["sku", "url", "attributes.price"].'
    ),
]
"""`ShownFields` as a form has them."""


class _Body(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    pass


class _Request(_Body, frozen=True, forbid_unknown_fields=True):
    """Unknown fields are refused: a misspelt `minSimilarity` must not be dropped in silence."""


class Problem(_Body, frozen=True):
    """The one body of every error: a sentence for a person, and a code for programs.

    Later versions may have further codes.
    """

    error: str
    code: str
    request_id: str


class Check(_Body, frozen=True):
    """Whether one of the things that a server needs is as it should be, and otherwise what is wrong with it."""

    ok: bool
    code: str | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, wrong: TwinlensError | None) -> Check:
        return cls(ok=True) if wrong is None else cls(ok=False, code=wrong.code, error=wrong.sentence)


class Checks(_Body, frozen=True):
    """What readiness asks for."""

    model: Check
    """It finishes batches, and does not fail on what it has encoded before."""
    database: Check
    """It answers."""
    store: Check
    """The store of pictures is there, and the right one."""
    disk: Check
    """There is room for pictures and for the embedded database, where they lie on disks of this machine."""

    @classmethod
    def of(cls, found: Mapping[str, TwinlensError | None]) -> Checks:
        return cls(**{name: Check.of(wrong) for name, wrong in found.items()})


class NotReadyProblem(Problem, frozen=True):
    """As every error: what is wrong, or the first thing of several. With all that was looked at, unless the answer was
    not there in time."""

    checks: Checks | msgspec.UnsetType = msgspec.UNSET


class EmbeddedImage(_Body, frozen=True):
    embedding: list[float]
    model: str
    device: str
    space: str


class TextsToEmbed(_Request, frozen=True):
    texts: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=256)]


class Embeddings(_Body, frozen=True):
    embeddings: list[list[float]]
    space: str


class _Search(_Request, frozen=True):
    """What every search may ask for, whatever it searches with."""

    client_id: ClientId | None = None
    limit: Limit = rows.DEFAULT_LIMIT
    min_similarity: Percentage | None = None
    min_grade: MinGrade | None = None


Fraction = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
# What the numbers must be to each other is checked by `region_of`, whose errors have sentences of our own.
Crop = Annotated[
    list[Fraction],
    msgspec.Meta(
        description="Search with this part of the picture: left, top, right and bottom, as fractions of the upright "
        "picture's width and height.",
        extra_json_schema={"minItems": 4, "maxItems": 4},
    ),
]

CropText = Annotated[
    str,
    msgspec.Meta(
        description="Search with this part of the picture, as JSON: [left, top, right, bottom], as fractions of the "
        "upright picture's width and height. With a query, its parts have it instead."
    ),
]
"""`Crop` as a form has it."""


class QueryPart(_Request, frozen=True):
    """A part of a query: exactly one of `text`, `mediaId`, `file`, and `embedding` with its `space`; what is cut from
    its picture; and how much it counts."""

    text: Text | None = None
    media_id: str | None = None
    embedding: list[float] | None = None
    space: SpaceId | None = None
    file: (
        Annotated[
            int,
            msgspec.Meta(ge=0, lt=MOST_PARTS, description="Which of the form's parts `file`, the first of them 0."),
        ]
        | None
    ) = None
    crop: Crop | None = None
    weight: Annotated[
        float,
        msgspec.Meta(
            ge=-LARGEST_WEIGHT,
            le=LARGEST_WEIGHT,
            description="Beside the others' weights; below 0 it means less like this.",
        ),
    ] = 1.0


QueryParts = Annotated[list[QueryPart], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]

QueryText = Annotated[
    str,
    msgspec.Meta(
        description='What to search with, where that is several things, as JSON: [{"file": 0}, {"text": "in red", '
        '"weight": 0.5}]. `file` counts the parts of that name from 0.'
    ),
]
"""`QueryParts` as a form has them."""


Facets = Annotated[
    list[Key | Facet],
    msgspec.Meta(
        max_length=MOST_FACETS,
        description="Attributes to count: by their names, or with ranges to count within. Empty: the total alone.",
    ),
]

FacetsText = Annotated[
    str,
    msgspec.Meta(
        description='What to count beside the matches, as JSON: ["category", {"attribute": "price", "ranges": '
        '[{"lt": 20}, {"gte": 20}], "stats": true}].'
    ),
]
"""`Facets` as a form has them."""

Over = Annotated[
    FacetsOver,
    msgspec.Meta(
        description="What is counted: all that passes the filter, or of that what reaches minSimilarity and minGrade."
    ),
]

Mode = Annotated[
    Literal["auto", "visual"],
    msgspec.Meta(
        description="How words alone are searched for: `auto` puts products first that the words name, as people type "
        "them; `visual` asks the pictures alone. Of no effect for what is not words alone."
    ),
]

SearchCursor = Annotated[
    str,
    msgspec.Meta(
        max_length=2000,
        description="Where to go on: what `next` was in the page before, with the same parameters; `limit` may differ.",
    ),
]


class _Arranged(_Search, frozen=True):
    """How the matches are arranged."""

    group_by: Literal["product"] | None = None
    """One match a product: its best."""
    group_size: (
        Annotated[
            int,
            msgspec.Meta(
                ge=0,
                le=20,
                description=f"With groupBy: how many others of each product come with it, {rows.DEFAULT_GROUP} unless "
                "given.",
            ),
        ]
        | None
    ) = None
    max_per_product: (
        Annotated[
            int, msgspec.Meta(ge=1, le=100, description="At most so many matches of one product; not with groupBy.")
        ]
        | None
    ) = None
    distinct: (
        Annotated[
            float,
            msgspec.Meta(
                ge=0.5,
                le=1,
                description="A match whose cosine with one listed before it is at least this is left out; not with "
                "cursor.",
            ),
        ]
        | None
    ) = None
    cursor: SearchCursor | None = None
    mode: Mode | None = None
    """`auto` unless given."""
    explain: bool | None = None
    """Whether to say why each match has its place."""


class SearchRequest(_Arranged, frozen=True):
    """Exactly one of `text`, `mediaId`, `embedding` with its `space`, and `query`, which has several of them. `crop`
    goes with `mediaId`."""

    text: Text | None = None
    media_id: str | None = None
    embedding: list[float] | None = None
    space: SpaceId | None = None
    crop: Crop | None = None
    query: QueryParts | None = None
    filter: Filter | None = None
    facets: Facets | None = None
    facets_over: Over | None = None
    fields: ShownFields | None = None
    boosts: Boosts | None = None


class SearchFields(_Search, frozen=True):
    """The fields beside the `file` of a search by picture."""

    filter: FilterText | None = None


BoostsText = Annotated[
    str,
    msgspec.Meta(
        description='What attributes add to the cosine to rank by, as JSON: [{"attribute": "new", "equals": true, '
        '"weight": 0.1}, {"attribute": "price", "from": 100, "to": 10, "weight": 0.05}].'
    ),
]
"""`Boosts` as a form has them."""


class ComposedFields(_Arranged, frozen=True):
    """The fields beside the parts `file` of a search, whose `query` may say what each of them counts."""

    filter: FilterText | None = None
    boosts: BoostsText | None = None
    query: QueryText | None = None
    facets: FacetsText | None = None
    facets_over: Over | None = None
    fields: FieldsText | None = None
    crop: CropText | None = None


PageLimit = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PAGE)]
Cursor = Annotated[
    str,
    msgspec.Meta(
        max_length=2000, description="Where to go on: what `next` was in the page before, with the same parameters."
    ),
]
UpdatedSince = Annotated[
    datetime,
    msgspec.Meta(tz=True, description="Only products that have changed at this time or later, in that order."),
]
IsActive = Annotated[bool, msgspec.Meta(description="Only products that are, or only those that are not.")]
ProductAttributes = Annotated[
    str,
    msgspec.Meta(
        description="Only products with these attributes, as JSON and as a search's filter has them: "
        '{"category": "shoes", "colour": ["red", "blue"], "price": {"gte": 10, "lt": 50}}.'
    ),
]
Next = Annotated[str | None, msgspec.Meta(description="The cursor of what follows; null where nothing does.")]


class PageFields(_Request, frozen=True):
    """The query of a list."""

    limit: PageLimit = DEFAULT_PAGE
    cursor: Cursor | None = None
    client_id: str | None = None


class ProductPageFields(PageFields, frozen=True):
    updated_since: str | None = None
    """An UpdatedSince, which is not read here: of a query, it would be a number as well."""
    is_active: IsActive | None = None
    sku: Sku | None = None
    attributes: ProductAttributes | None = None


class UploadFields(_Request, frozen=True):
    """The fields beside the `file` of an upload."""

    client_id: ClientId | None = None


class MediaByUrl(_Request, frozen=True):
    """A picture that the server fetches."""

    url: Annotated[
        str,
        msgspec.Meta(
            description="Where the picture is, by https or http: at a host that this server fetches from.",
            # Its length is checked where it is read, whose error has a sentence of our own.
            extra_json_schema={"minLength": 1, "maxLength": LONGEST_URL},
        ),
    ]
    client_id: ClientId | None = None


# Which ids there can be is checked where the call is worked out, whose error has a sentence of our own.
ProductId = Annotated[
    str,
    msgspec.Meta(
        description="The product's id.", extra_json_schema={"minLength": 1, "maxLength": MOST_CHARACTERS_OF_AN_ID}
    ),
]


class PlacedFields(_Request, frozen=True):
    """The fields beside the `file` of a picture that is put under an id."""

    product_id: ProductId | None = None
    client_id: ClientId | None = None


class PlacedByUrl(MediaByUrl, frozen=True):
    """A picture that the server fetches, and whose it is."""

    product_id: ProductId | None = None


class MediaPatch(_Request, frozen=True):
    """What of a media can be changed, as a JSON merge patch: what is left out stays."""

    product_id: ProductId | msgspec.UnsetType = msgspec.UNSET
    client_id: ClientId | None = None


ThumbnailUrl = Annotated[
    str,
    msgspec.Meta(
        description="Where its thumbnail is: a path with a signature, which needs no key and expires; relative to the "
        "server's address."
    ),
]
FileUrl = Annotated[
    str | None,
    msgspec.Meta(
        description="Where the picture is as it came, in the same way; null for a caller who may only search."
    ),
]


class Addresses(NamedTuple):
    """Where the pictures of a media are. The paths begin with the proxy's prefix, where it names one."""

    thumbnail: str
    file: str | None
    """None for a caller who may see thumbnails only."""


class Match(_Body, frozen=True):
    product_id: str
    product_name: str
    media_id: str
    s3_key: str
    thumbnail_url: ThumbnailUrl
    file_url: FileUrl
    width: int | None
    height: int | None
    score: float
    cosine: float
    similarity: float
    grade: Grade | None
    """Null where the model has no grades, and for a query of several parts. At best `similar` where one of the two
    pictures is blank; of words `similar` or `weak`, and null where the model has no grades for words."""
    sku: str | msgspec.UnsetType | None = msgspec.UNSET
    url: (
        Annotated[
            str | None,
            msgspec.Meta(description="The product's attribute `url` where it is an http or https address, else null."),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    attributes: (
        Annotated[
            dict[str, Any],
            msgspec.Meta(
                description="Those that were named and the product has; the shortest ones, where they are long."
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    """What a search named in its `fields`; absent otherwise."""

    @classmethod
    def of(
        cls,
        match: rows.Match,
        grades: Grades | TextGrades | None,
        at: Addresses,
        *,
        blank: bool = False,
        shown: Shown = NOTHING,
    ) -> Match:
        """`at`: where its pictures are; `blank`: what was searched for is a blank picture; `shown`: what of the product
        the search has named."""
        cosine = clamp(match.cosine)
        return cls(
            product_id=match.product_id,
            product_name=match.product_name,
            media_id=match.media_id,
            s3_key=match.s3_key,
            thumbnail_url=at.thumbnail,
            file_url=at.file,
            width=match.width,
            height=match.height,
            score=score(match.cosine),
            cosine=cosine,
            similarity=similarity(match.cosine),
            grade=grades.of(cosine, blank=blank or match.blank) if grades is not None else None,
            sku=match.sku if shown.sku else msgspec.UNSET,
            url=address_of(match.url) if shown.url else msgspec.UNSET,
            is_active=match.is_active if shown.is_active else msgspec.UNSET,
            attributes=dict(match.attributes or {}) if shown.any_attributes else msgspec.UNSET,
        )


class MatchWords(_Body, frozen=True):
    """How a product answers to words that were searched for."""

    by: By
    """It is its SKU, or its name; it has all of the words; the last one is only begun; some are misspelt."""
    likeness: float
    """From 0 to 1."""
    bonus: float
    """What it adds to rank by."""


class MatchExplanation(_Body, frozen=True):
    """Why a match has its place."""

    ranking: float
    """What it is ranked by: `cosine` plus `boosts`, and the bonus of `words`."""
    boosts: float
    """What its product has besides the picture."""
    cosines: list[float | None]
    """With each part of the query, in their order; null for a part of weight 0, and where the media has no vector
    yet."""
    words: MatchWords | None
    """Null where no words name the product."""


class Result(Match, frozen=True):
    """A match of a search."""

    media: list[Match] | msgspec.UnsetType = msgspec.UNSET
    """With groupBy: what else of the product was found, best first."""
    explain: MatchExplanation | msgspec.UnsetType = msgspec.UNSET
    """Where it was asked for."""

    @classmethod
    def with_others(cls, match: Match, others: list[Match] | None, explain: MatchExplanation | None) -> Result:
        fields = {name: getattr(match, name) for name in Match.__struct_fields__}
        return cls(
            **fields,
            media=msgspec.UNSET if others is None else others,
            explain=msgspec.UNSET if explain is None else explain,
        )


class ExplainedWords(_Body, frozen=True):
    """What the words of a search have named."""

    products: int
    corrected: dict[str, list[str]]
    """Words that were taken for others, and for which; for none where a word was left out."""


class Explanation(_Body, frozen=True):
    """How a list came about."""

    plan: rows.Plan
    limit: int
    """How many matches were asked for, once what the caller's key allows is taken into account."""
    candidates: int
    """How many media were ranked: what the index gave, or what an exact search kept of all that it compared."""
    timings: dict[str, float]
    """Milliseconds by stage."""
    words: ExplainedWords | None
    """Null where something else than words alone was searched for, or `mode` was `visual`."""


class FacetCount(_Body, frozen=True, kw_only=True):
    """How many have a value of an attribute, or one within a range, which is named by the bounds that it was given."""

    value: Scalar | msgspec.UnsetType = msgspec.UNSET
    gt: Bound | msgspec.UnsetType = msgspec.UNSET
    gte: Bound | msgspec.UnsetType = msgspec.UNSET
    lt: Bound | msgspec.UnsetType = msgspec.UNSET
    lte: Bound | msgspec.UnsetType = msgspec.UNSET
    count: int

    @classmethod
    def of(cls, counted: ValueCount | RangeCount) -> FacetCount:
        if isinstance(counted, ValueCount):
            return cls(value=counted.value, count=counted.count)
        return cls(count=counted.count, **msgspec.to_builtins(counted.range))


class FacetStats(_Body, frozen=True):
    """The least and the greatest number of an attribute, or date where dates are declared; null where there is none."""

    min: int | float | str | None
    max: int | float | str | None
    count: int
    """How many have one."""


class SearchAnswer(_Body, frozen=True):
    results: list[Result]
    next: Next
    space: str
    plan: rows.Plan
    """`exact` when each media of the client was compared, `index` when the client's own HNSW index was searched."""
    timings: dict[str, float]
    """Milliseconds by stage."""
    explain: Explanation | msgspec.UnsetType = msgspec.UNSET
    """Where it was asked for."""
    total: int | msgspec.UnsetType = msgspec.UNSET
    """Where facets are asked for: how many media, or products with groupBy, the list would hold without its limit."""
    facets: dict[str, list[FacetCount]] | msgspec.UnsetType = msgspec.UNSET
    """Where they are asked for, by attribute: its values, those first that most have; or the ranges, as given."""
    facet_stats: dict[str, FacetStats] | msgspec.UnsetType = msgspec.UNSET
    """Where facets are asked for, by attribute: of those with `stats`."""

    def counting(self, counts: Counts) -> SearchAnswer:
        """The same answer, with what was counted."""
        return msgspec.structs.replace(
            self,
            total=counts.total,
            facets={name: [FacetCount.of(one) for one in some] for name, some in counts.facets.items()},
            facet_stats={
                name: FacetStats(min=one.min, max=one.max, count=one.count) for name, one in counts.stats.items()
            },
        )


class Duplicates(_Body, frozen=True):
    """The other media of a client that are the same picture as one of its own."""

    exact: list[Match]
    """The very same bytes; also media without a vector yet. Empty for a blank picture."""
    near: list[Match] | None
    """Identical or near-duplicate by their vectors, best first; null where the model has no grades, or the media has no
    vector yet. Empty for a blank picture, and without blank ones."""
    space: str


class ProposedRegion(_Body, frozen=True):
    """A part of a picture that shows something."""

    crop: Annotated[list[Fraction], msgspec.Meta(extra_json_schema={"minItems": 4, "maxItems": 4})]
    """As a search takes it."""
    score: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
    """How much of all that stands out from the picture's ground is there."""

    @classmethod
    def of(cls, proposal: Proposal) -> ProposedRegion:
        region = proposal.region
        corners = (region.left, region.top, region.right, region.bottom)
        return cls(crop=[round(edge, 6) for edge in corners], score=round(proposal.score, 4))


class Regions(_Body, frozen=True):
    """Which parts of a picture show something."""

    regions: list[ProposedRegion]
    """The highest score first, at most five; empty where nothing stands out from the ground."""


class ProductRequest(_Request, frozen=True):
    name: Name
    sku: Sku | None = None
    is_active: bool = True
    attributes: Attributes = {}
    client_id: ClientId | None = None


class ProductPatch(_Request, frozen=True):
    """A JSON merge patch (RFC 7396): what is left out stays, and null removes."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    sku: Sku | msgspec.UnsetType | None = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    attributes: (
        Annotated[dict[AttributeName, Value], msgspec.Meta(max_length=2 * MOST_ATTRIBUTES)] | msgspec.UnsetType | None
    ) = msgspec.UNSET
    """Those that are named change, and those that are null go; all others stay. Null in place of them removes all."""
    client_id: ClientId | None = None

    def row(self) -> rows.ProductPatch:
        named = self.attributes or {}
        return rows.ProductPatch(
            name=self.name or None,
            sku=self.sku or None,
            given_sku=self.sku is not msgspec.UNSET,
            is_active=None if self.is_active is msgspec.UNSET else self.is_active,
            attributes={name: value for name, value in named.items() if value is not None},
            removed=tuple(name for name, value in named.items() if value is None),
            no_attributes=self.attributes is None,
        )


class AttributesRequest(_Request, frozen=True):
    """What attributes are declared as, by their names: what their texts are compared as. No others are declared."""

    attributes: Annotated[dict[AttributeName, AttributeType], msgspec.Meta(max_length=1000)]
    searchable: (
        Annotated[
            list[AttributeName],
            msgspec.Meta(
                max_length=MOST_SEARCHABLE,
                description="Whose words a search by words finds products by, beside those of name and SKU. Left out "
                "or null: what shops mostly call brand, category, colour and material, as the answer lists them.",
            ),
        ]
        | None
    ) = None
    client_id: ClientId | None = None


class DeclaredAttributes(_Body, frozen=True):
    """What attributes are declared as, by their names; and whose words products are found by."""

    attributes: dict[str, AttributeType]
    searchable: list[str]

    @classmethod
    def of(cls, declared: Declared) -> DeclaredAttributes:
        return cls(attributes=declared.types, searchable=declared.searchable)


class UpsertItem(_Request, frozen=True, tag_field="op", tag="upsert"):
    """Create a product, or replace what it is, as `putProduct` does."""

    id: ProductId
    name: Name
    sku: Sku | None = None
    is_active: bool = True
    attributes: Attributes = {}


class DeleteItem(_Request, frozen=True, tag_field="op", tag="delete"):
    """Delete a product with its media, as `deleteProduct` does."""

    id: ProductId


BatchItem = UpsertItem | DeleteItem


class BatchRequest(_Request, frozen=True):
    """Changes of products, which are made in their order, also where several are about one product."""

    items: Annotated[list[BatchItem], msgspec.Meta(max_length=MOST_CHANGES)]
    atomic: bool = False
    """Whether all of them are made or none."""
    client_id: ClientId | None = None


class ItemProblem(_Body, frozen=True):
    """Why an item was refused: the sentence and the code of the single call's error."""

    error: str
    code: str


class BatchResult(_Body, frozen=True):
    """What came of one item."""

    id: str | None
    """The product's; null where the item has none."""
    status: int
    """The single call's: 200, 201, 404, 409 or 422."""
    error: ItemProblem | msgspec.UnsetType = msgspec.UNSET


class BatchAnswer(_Body, frozen=True):
    items: list[BatchResult]
    """In the order of the request."""


class Product(_Body, frozen=True):
    id: str
    client_id: str
    name: str
    sku: str | None
    is_active: bool
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, product: rows.Product) -> Product:
        return cls(
            id=product.id,
            client_id=product.client_id,
            name=product.name,
            sku=product.sku,
            is_active=product.is_active,
            attributes=dict(product.attributes),
            created_at=product.created_at,
            updated_at=product.updated_at,
        )


class ProductPage(_Body, frozen=True):
    products: list[Product]
    next: Next


class Media(_Body, frozen=True):
    id: str
    product_id: str
    client_id: str
    kind: str
    status: str
    s3_key: str
    thumbnail_url: ThumbnailUrl
    file_url: FileUrl
    content_type: str | None
    bytes: int | None
    width: int | None
    height: int | None
    content_digest: str | None
    """SHA-256 of the bytes, hex."""
    created_at: datetime
    blank: bool
    """Whether the picture shows nothing but one colour: it is never called identical, nor a duplicate."""

    @classmethod
    def of(cls, media: rows.Media, at: Addresses) -> Media:
        """`at`: where its pictures are."""
        return cls(
            id=media.id,
            product_id=media.product_id,
            client_id=media.client_id,
            kind=media.kind,
            status=media.status,
            s3_key=media.s3_key,
            thumbnail_url=at.thumbnail,
            file_url=at.file,
            content_type=media.content_type,
            bytes=media.bytes,
            width=media.width,
            height=media.height,
            content_digest=media.content_digest.hex() if media.content_digest else None,
            created_at=media.created_at,
            blank=media.blank,
        )


class MediaPage(_Body, frozen=True):
    media: list[Media]
    next: Next


class ProductWithMedia(Product, frozen=True):
    media: list[Media]
    """The first of its media, in the order in which they were added."""
    media_next: Next
    """Where the others are: a cursor for `/v1/products/{productId}/media`."""

    @classmethod
    def with_media(cls, product: rows.Product, media: list[Media], following: str | None) -> ProductWithMedia:
        itself = Product.of(product)
        fields = {name: getattr(itself, name) for name in Product.__struct_fields__}
        return cls(**fields, media=media, media_next=following)


class Health(_Body, frozen=True):
    status: str


class Readiness(_Body, frozen=True):
    status: str
    model: str
    device: str
    precision: str
    space: str
    text: bool
    """Whether the model reads words as well."""
    reads: list[str]
    """The media types of the pictures that are read."""
    checks: Checks
