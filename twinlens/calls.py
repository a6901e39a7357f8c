"""The calls of the API, declared once for `Client` and `AsyncClient`.

Each has the name of its operation in the server's `/schema`, in snake_case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from twinlens.methods import call, listing
from twinlens.pictures import bytes_of
from twinlens.query import numbers_of, parts_of, query_text
from twinlens.request import (
    MERGE_PATCH,
    Answer,
    Document,
    Form,
    Page,
    Request,
    below,
    content,
    decoded,
    exactly_one,
    file_of,
    page_of,
    parameters,
)
from twinlens.wire import (
    AttributesBody,
    BatchAnswer,
    BatchBody,
    DeclaredAttributes,
    Delete,
    Duplicates,
    Embeddings,
    Health,
    Media,
    MediaPage,
    MoveBody,
    PatchBody,
    Product,
    ProductBody,
    ProductPage,
    ProductWithMedia,
    Readiness,
    Regions,
    SearchAnswer,
    SearchBody,
    TextsBody,
    Upsert,
    UrlBody,
)

if TYPE_CHECKING:
    from twinlens.pictures import Picture
    from twinlens.query import Part

Lane = Literal["interactive", "bulk"]
"""Who goes first where there is a queue: those who wait at a screen, or, behind them, work that can wait."""

Mode = Literal["auto", "visual"]
"""How a text alone is searched for: with products first that it names, as people type them; or by pictures alone."""

_LANE_HEADER = "Twinlens-Lane"

_answered = decoded(SearchAnswer)
_embedded = decoded(Embeddings)
_duplicates = decoded(Duplicates)
_regions = decoded(Regions)
_read_product = decoded(Product)
_read_product_with_media = decoded(ProductWithMedia)
_product_page = page_of(lambda page: page.products, ProductPage)
_media_page = page_of(lambda page: page.media, MediaPage)
_batch = decoded(BatchAnswer)
_declared = decoded(DeclaredAttributes)
_media = decoded(Media)
_readiness = decoded(Readiness)
_health = decoded(Health)


class Calls:
    """Every method raises TwinlensError where the server refuses or cannot be reached; see `twinlens.errors`."""

    # --- searches ----------------------------------------------------------------------------------------------------

    @call
    def search(
        self,
        picture: Picture | None = None,
        *,
        url: str | None = None,
        text: str | None = None,
        media_id: str | None = None,
        embedding: Sequence[float] | None = None,
        space: str | None = None,
        crop: Sequence[float] | None = None,
        query: Sequence[Part] | None = None,
        limit: int | None = None,
        min_similarity: float | None = None,
        min_grade: str | None = None,
        filter: Mapping[str, Any] | None = None,  # the name that the API has for it
        mode: Mode | None = None,
        facets: Sequence[str | Mapping[str, Any]] | None = None,
        facets_over: Literal["filter", "matches"] | None = None,
        fields: Sequence[str] | None = None,
        group_by: Literal["product"] | None = None,
        group_size: int | None = None,
        max_per_product: int | None = None,
        distinct: float | None = None,
        boosts: Sequence[Mapping[str, Any]] | None = None,
        cursor: str | None = None,
        explain: bool = False,
        lane: Lane | None = None,
    ) -> Request[SearchAnswer]:
        """The pictures that are most like one thing, or several at once, best first.

        That thing is one of: `picture` (a path, bytes, an open file, a PIL image, or uint8[H, W, 3] in RGB); `url`, of
        a picture that this program fetches, so that it should be one that you trust; `text`; `media_id`, a picture of
        the catalogue; or `embedding`, a vector of unit length, with the `space` that it is of. `crop`: what of a
        picture, as left, top, right and bottom, fractions of the upright picture's width and height. Several are a
        `query`: `[Part(picture="shoe.jpg"), Part(text="in red", weight=2), Part(text="leather", weight=-0.5)]`. Its
        matches are in the order of the weighted sum; their `similarity` is no likeness, and they have no `grade`.

        `limit`: at most so many (the server's default is 24). `min_similarity`: per cent. `min_grade`: `identical`,
        `near-duplicate`, `similar` or `weak`. `filter`: such as `{"attributes": {"category": "shoes", "price": {"lt":
        60}}}`; also `productIds` and `kind`. `fields`: what each match has of its product besides: `sku`, `url`,
        `isActive`, `attributes` (all of them) or `attributes.NAME`. `mode`: `visual` for a text that asks the pictures
        alone, and puts no products first that it names.

        `group_by="product"`: one match a product, with up to `group_size` others of it as its `media`.
        `max_per_product`: at most so many matches of one product. `distinct`: leave out what has at least this cosine
        with a match before it, 0.5 to 1. `boosts`: what attributes add to rank by, such as `[{"attribute": "new",
        "equals": True, "weight": 0.1}]`, or with `from` and `to` in place of `equals`. `cursor`: what `next` was in the
        answer before, for the next page. `explain`: have each match say why it has its place.

        `facets`: attributes whose values are counted beside, such as `["category", {"attribute": "price", "ranges":
        [{"lt": 20}, {"gte": 20}]}]`; `facets_over`: among all that passes the filter (`filter`, the server's default),
        or of that among what reaches `min_similarity` and `min_grade` (`matches`).

        Raises ValueError where not exactly one thing is given, and otherwise as `twinlens.pictures.bytes_of`.
        """
        given = {
            "picture": picture,
            "url": url,
            "text": text,
            "media_id": media_id,
            "embedding": embedding,
            "query": query,
        }
        exactly_one(given)
        lanes = {} if lane is None else {_LANE_HEADER: lane}
        if space is not None and embedding is None:
            raise ValueError("space goes with embedding.")
        if isinstance(fields, str):
            raise TypeError("fields is a list of names.")
        named = None if fields is None else list(fields)
        parts, files = parts_of(query or ())
        if picture is not None or url is not None:
            files = [file_of(picture, url)]
        if files:
            form = parameters(
                limit=limit,
                min_similarity=min_similarity,
                min_grade=min_grade,
                filter=filter,
                fields=named,
                crop=numbers_of(crop),
                group_by=group_by,
                group_size=group_size,
                max_per_product=max_per_product,
                distinct=distinct,
                boosts=boosts,
                cursor=cursor,
                explain=explain or None,
                mode=mode,
                facets=facets,
                facets_over=facets_over,
            )
            if parts:
                form["query"] = query_text(parts)
            return Request("POST", "/v1/search", _answered, headers=lanes, body=Form(files, form))
        body = SearchBody(
            text=text,
            media_id=media_id,
            embedding=numbers_of(embedding),
            space=space,
            crop=numbers_of(crop),
            query=None if query is None else parts,
            filter=filter,
            limit=limit,
            min_similarity=min_similarity,
            min_grade=min_grade,
            mode=mode,
            facets=None if facets is None else list(facets),
            facets_over=facets_over,
            fields=named,
            group_by=group_by,
            group_size=group_size,
            max_per_product=max_per_product,
            distinct=distinct,
            boosts=boosts,
            cursor=cursor,
            explain=explain,
        )
        return Request("POST", "/v1/search", _answered, headers=lanes, body=Document(body))

    @call
    def embed(
        self, pictures: Sequence[Picture] = (), *, texts: Sequence[str] = (), lane: Lane | None = None
    ) -> Request[Embeddings]:
        """The vectors of up to 256 pictures, or of up to 256 texts, in their order.

        Raises ValueError where both are given or none, and otherwise as `twinlens.pictures.bytes_of`.
        """
        if isinstance(texts, str) or isinstance(pictures, str | bytes):
            raise TypeError("embed takes a list of pictures, or texts= with a list of texts.")
        if (len(pictures) > 0) == (len(texts) > 0):
            raise ValueError("Give pictures or texts, and not both.")
        lanes = {} if lane is None else {_LANE_HEADER: lane}
        body = Form([bytes_of(one) for one in pictures]) if len(pictures) else Document(TextsBody(texts=list(texts)))
        return Request("POST", "/v1/embeddings", _embedded, headers=lanes, body=body, of_client=False)

    # --- products ----------------------------------------------------------------------------------------------------

    @call
    def put_product(
        self,
        product_id: str,
        *,
        name: str,
        sku: str | None = None,
        is_active: bool = True,
        attributes: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        only_new: bool = False,
    ) -> Request[Product]:
        """Create a product, or replace all that is said of it: what is not given here is then empty.

        `is_active`: whether searches find its pictures. `attributes`: facts that searches filter by, under each name a
        text, a number, true or false, or a list of these. `if_match`: the `etag` that the product must still have;
        `only_new`: it must not be there yet. Raises PreconditionFailed where it is otherwise.
        """
        body = ProductBody(name=name, sku=sku, is_active=is_active, attributes=attributes or {})
        headers = {**_if_match(if_match), **({"If-None-Match": "*"} if only_new else {})}
        path = below("v1", "products", product_id)
        return Request("PUT", path, _product, headers=headers, body=Document(body), once=bool(headers))

    @call
    def patch_product(
        self,
        product_id: str,
        *,
        name: str | UnsetType = UNSET,
        sku: str | UnsetType | None = UNSET,
        is_active: bool | UnsetType = UNSET,
        attributes: Mapping[str, Any] | UnsetType | None = UNSET,
        if_match: str | None = None,
    ) -> Request[Product]:
        """Change some of a product: what is not given stays as it is.

        None removes the SKU, or all attributes. Of `attributes`, those that are named change, those that are None go,
        and all others stay. `if_match`: the `etag` that the product must still have. Raises NotFound,
        PreconditionFailed.
        """
        body = PatchBody(name=name, sku=sku, is_active=is_active, attributes=attributes)
        return changing(product_id, body, if_match)

    @call
    def get_product(self, product_id: str) -> Request[ProductWithMedia]:
        """One product, with the first 100 of its media. Raises NotFound."""
        return Request("GET", below("v1", "products", product_id), _product_with_media)

    @call
    def delete_product(self, product_id: str, *, if_match: str | None = None) -> Request[Product]:
        """Delete a product with all its media; the answer is what it was.

        `if_match`: the `etag` that it must still have. Raises NotFound, PreconditionFailed.
        """
        path = below("v1", "products", product_id)
        return Request("DELETE", path, _product, headers=_if_match(if_match), once=True)

    @call
    def batch_products(self, items: Sequence[Upsert | Delete], *, atomic: bool = False) -> Request[BatchAnswer]:
        """Create, replace and delete up to 1,000 products in one request: an answer for each, in their order.

        An item that is refused says so in its answer, and the others go on. `atomic`: all of them or none; the first
        that is refused is then raised as the error of the single call.
        """
        body = Document(BatchBody(items=list(items), atomic=atomic))
        return Request("POST", "/v1/products:batch", _batch, body=body, once=True)

    @call
    def get_attributes(self) -> Request[DeclaredAttributes]:
        """What the client's attributes are declared as, and which of them a search by words looks into.

        Those that are not declared are compared as they are stored.
        """
        return Request("GET", "/v1/attributes", _declared)

    @call
    def put_attributes(
        self, attributes: Mapping[str, str], *, searchable: Sequence[str] | None = None
    ) -> Request[DeclaredAttributes]:
        """Declare what the client's attributes are, in place of all that was declared: `number`, `text`, `boolean`,
        `date` or `list` by their names. `searchable`: those whose words a search by words finds products by; None for
        what shops mostly call brand, category, colour and material.

        It changes no product. Filters then compare texts that are numbers, dates, or true and false as what they are.
        """
        body = Document(AttributesBody(attributes=attributes, searchable=searchable))
        return Request("PUT", "/v1/attributes", _declared, body=body)

    @listing
    def list_products(
        self,
        *,
        updated_since: datetime | None = None,
        is_active: bool | None = None,
        sku: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        page_size: int | None = None,
    ) -> Request[Page[Product]]:
        """The client's products, by their ids; a page is asked for when it is needed.

        `updated_since`: only those that have changed at this time or later, in the order of their changes; it has a
        time zone. `is_active`, `sku`: only those that are so. `attributes`: only those with these, as in a search's
        filter. `page_size`: how many are asked for at a time (the server's default is 100).
        """
        query = parameters(
            updated_since=updated_since, is_active=is_active, sku=sku, attributes=attributes, limit=page_size
        )
        return Request("GET", "/v1/products", _product_page, query=query)

    # --- media -------------------------------------------------------------------------------------------------------

    @call
    def add_media(self, product_id: str, picture: Picture | None = None, *, url: str | None = None) -> Request[Media]:
        """Add a picture to a product: one that is sent, or the one at a `url`, which the server fetches if it may.

        The same bytes again give the media that is there. Raises NotFound where there is no such product, ValueError
        where not exactly one is given, and otherwise as `twinlens.pictures.bytes_of`.
        """
        body = _picture_body(picture, url)
        return Request("POST", below("v1", "products", product_id, "media"), _media, body=body)

    @listing
    def list_media(self, product_id: str, *, page_size: int | None = None) -> Request[Page[Media]]:
        """The media of a product, in the order in which they were added; a page is asked for when it is needed.

        `page_size`: how many are asked for at a time (the server's default is 100). Raises NotFound.
        """
        query = parameters(limit=page_size)
        return Request("GET", below("v1", "products", product_id, "media"), _media_page, query=query)

    @call
    def get_media(self, media_id: str) -> Request[Media]:
        """One media. Raises NotFound."""
        return Request("GET", below("v1", "media", media_id), _media)

    @call
    def put_media(
        self, media_id: str, picture: Picture | None = None, *, product_id: str, url: str | None = None
    ) -> Request[Media]:
        """Make a media under an id of your own, or give it another picture or another product.

        The picture is sent, or is the one at a `url`, which the server fetches if it may. The same again changes
        nothing. Raises NotFound where there is no such product, Conflict where the product has the picture as another
        media, and otherwise as `add_media`.
        """
        path, query = below("v1", "media", media_id), parameters(product_id=product_id)
        return Request("PUT", path, _media, query=query, body=_picture_body(picture, url))

    @call
    def patch_media(self, media_id: str, *, product_id: str) -> Request[Media]:
        """Have a media belong to another product. Raises NotFound where one of them is not there, and Conflict."""
        body = Document(MoveBody(product_id=product_id), MERGE_PATCH)
        return Request("PATCH", below("v1", "media", media_id), _media, body=body)

    @call
    def delete_media(self, media_id: str) -> Request[Media]:
        """Delete a media; the answer is what it was. Raises NotFound."""
        return Request("DELETE", below("v1", "media", media_id), _media, once=True)

    @call
    def list_duplicates(self, media_id: str, *, limit: int | None = None) -> Request[Duplicates]:
        """The other media of the client that are the same picture: the same file, and nearly the same vector.

        `limit`: at most so many of each (the server's default is 24).
        """
        query = parameters(limit=limit)
        return Request("GET", below("v1", "media", media_id, "duplicates"), _duplicates, query=query)

    @call
    def list_regions(self, media_id: str) -> Request[Regions]:
        """Which parts of a media's picture show something, each as the `crop` of a search: what stands out from the
        ground that its border shows."""
        return Request("GET", below("v1", "media", media_id, "regions"), _regions)

    @call
    def get_thumbnail(self, media_id: str) -> Request[bytes]:
        """A small WebP of a media, at most 256 pixels a side."""
        return Request("GET", below("v1", "media", media_id, "thumbnail"), content, headers={"Accept": "image/webp"})

    @call
    def get_file(self, media_id: str) -> Request[bytes]:
        """The picture of a media as it came, byte for byte."""
        return Request("GET", below("v1", "media", media_id, "file"), content, headers={"Accept": "*/*"})

    # --- the server --------------------------------------------------------------------------------------------------

    @call
    def live(self) -> Request[Health]:
        """Whether the server's process answers. It is not tried again."""
        return Request("GET", "/health/live", _health, of_client=False, retried=False)

    @call
    def ready(self) -> Request[Readiness]:
        """That the server can do all of its work, and which model it runs. It is not tried again.

        Raises Unavailable with what is wrong.
        """
        return Request("GET", "/health/ready", _readiness, of_client=False, retried=False)


def adding(product_id: str, data: bytes) -> Request[tuple[Media, bool]]:
    """Add a picture; whether it was not there before goes with the media."""
    return Request("POST", below("v1", "products", product_id, "media"), _added, body=Form([data]))


def changing(product_id: str, patch: Any, if_match: str | None = None) -> Request[Product]:
    """Change a product by a JSON merge patch."""
    body = Document(patch, MERGE_PATCH)
    path = below("v1", "products", product_id)
    return Request("PATCH", path, _product, headers=_if_match(if_match), body=body, once=True)


def creating(product_id: str, product: Any) -> Request[Product]:
    """Create a product that is not there yet; raises PreconditionFailed where it is."""
    headers = {"If-None-Match": "*"}
    path = below("v1", "products", product_id)
    return Request("PUT", path, _product, headers=headers, body=Document(product), once=True)


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag}


def _product(answer: Answer) -> Product:
    return replace(_read_product(answer), etag=answer.headers.get("etag"))


def _product_with_media(answer: Answer) -> ProductWithMedia:
    return replace(_read_product_with_media(answer), etag=answer.headers.get("etag"))


def adding_by_url(product_id: str, url: str) -> Request[tuple[Media, bool]]:
    """The same with a picture that the server fetches."""
    return Request("POST", below("v1", "products", product_id, "media"), _added, body=Document(UrlBody(url=url)))


def _added(answer: Answer) -> tuple[Media, bool]:
    return _media(answer), answer.status == 201


def _picture_body(picture: Picture | None, url: str | None) -> Document | Form:
    """A picture that is sent, or where the server finds it."""
    exactly_one({"picture": picture, "url": url})
    return Document(UrlBody(url=url)) if picture is None and url is not None else Form([file_of(picture, None)])
