"""Examples for the API's description. The tests send each one to a server, and compare each answer with its schema.

They belong together: the product is put, its picture is added, and then it is found. In a form, the value of `file`
stands for the bytes of a picture.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from server.errors import TwinlensError
from server.http import wire
from server.http.bodies import JSON, MERGE_PATCH, MULTIPART
from server.http.operator_wire import (
    Clients,
    Disk,
    EmbeddingProgress,
    Indexes,
    IndexState,
    OperatorOverview,
    ServerFacts,
    SizeOfClient,
    SpaceState,
)

CLIENT = "acme"
PRODUCT = "shoe-42"
MEDIA = "5f0c1a9d3b7e4f6a8c2d1e0f9a8b7c6d"
OTHER_SPACE = "b41f60d2a97c3e85b0d1742f6c9a8e33d5f7120b64ce98a1073d5fb2e6849c7a"
SPACE = "72b1084832f6d0c35a1e94f7b86d20c15e3f9a7742c8d6b10f4e5a9382716c0d"
PICTURE = "(the bytes of a picture)"
PICTURE_URL = "https://cdn.shop.example/shoe-42.jpg"

IN_PATH: Mapping[str, str] = {"productId": PRODUCT, "mediaId": MEDIA}
"""Values of the parameters in paths."""


class Example(NamedTuple):
    summary: str
    value: Any


_FILTER = {"attributes": {"category": "shoes", "price": {"gte": 20, "lt": 60}}}
_BY_PICTURE = {
    "picture": Example("A picture", {"file": PICTURE, "clientId": CLIENT}),
    "narrowed": Example(
        "A picture, among some products, and only what is like it",
        {
            "file": PICTURE,
            "clientId": CLIENT,
            "limit": 5,
            "minGrade": "similar",
            "filter": msgspec.json.encode(_FILTER).decode(),
        },
    ),
}


def _in_a_list(example: Example) -> Example:
    return Example(example.summary, {**example.value, "file": [example.value["file"]]})


_COMPOSED_FORM = Example(
    "A picture, and what is to be otherwise",
    {
        "file": [PICTURE],
        "query": msgspec.json.encode([{"file": 0}, {"text": "in red", "weight": 2}]).decode(),
        "clientId": CLIENT,
    },
)
_COMPOSED = Example(
    "A picture of the catalogue, but in red and not of leather",
    {
        "query": [{"mediaId": MEDIA}, {"text": "in red", "weight": 2}, {"text": "leather", "weight": -0.5}],
        "clientId": CLIENT,
        "limit": 10,
    },
)

_COUNTED = Example(
    "Words, and how many of the products in a shop have which colour and price",
    {
        "text": "red shoes",
        "clientId": CLIENT,
        "filter": _FILTER,
        "facets": ["colour", {"attribute": "price", "ranges": [{"lt": 40}, {"gte": 40}], "stats": True}],
    },
)

_PATCHES = {
    "price": Example(
        "Another price, no SKU, and one attribute less; all else stays",
        {"sku": None, "attributes": {"price": 39.9, "colour": None}, "clientId": CLIENT},
    ),
    "state": Example("Hidden from searches", {"isActive": False, "clientId": CLIENT}),
}

REQUESTS: Mapping[str, Mapping[str, Mapping[str, Example]]] = {
    "embedImage": {MULTIPART: {"picture": Example("A picture", {"file": PICTURE})}},
    "embed": {
        MULTIPART: {"pictures": Example("Two pictures", {"file": [PICTURE, PICTURE]})},
        JSON: {"texts": Example("Two texts", {"texts": ["red shoes", "a leather bag"]})},
    },
    "searchByImage": {MULTIPART: _BY_PICTURE},
    "search": {
        MULTIPART: {**{name: _in_a_list(one) for name, one in _BY_PICTURE.items()}, "composed": _COMPOSED_FORM},
        JSON: {
            "words": Example("Words", {"text": "red shoes", "clientId": CLIENT, "limit": 10}),
            "media": Example("A picture of the catalogue", {"mediaId": MEDIA, "clientId": CLIENT}),
            "part": Example(
                "What is on the left of a picture of the catalogue",
                {"mediaId": MEDIA, "crop": [0.05, 0.2, 0.48, 0.95], "clientId": CLIENT},
            ),
            "narrowed": Example(
                "Words, among some products", {"text": "red shoes", "clientId": CLIENT, "filter": _FILTER}
            ),
            "card": Example(
                "Words, with what a shop's card shows of products",
                {
                    "text": "red shoes",
                    "clientId": CLIENT,
                    "limit": 25,
                    "fields": ["sku", "url", "attributes.price"],
                },
            ),
            "composed": _COMPOSED,
            "counted": _COUNTED,
        },
    },
    "putProduct": {
        JSON: {
            "least": Example("A name, which is all that is needed", {"name": "Red running shoe", "clientId": CLIENT}),
            "full": Example(
                "All that a product can have",
                {
                    "name": "Red running shoe",
                    "sku": "RS-42",
                    "isActive": True,
                    "attributes": {"category": "shoes", "colour": ["red", "white"], "price": 49.9},
                    "clientId": CLIENT,
                },
            ),
        }
    },
    "patchProduct": {MERGE_PATCH: _PATCHES, JSON: _PATCHES},
    "batchProducts": {
        JSON: {
            "changes": Example(
                "Two products to create or replace, and one to delete",
                {
                    "items": [
                        {"op": "upsert", "id": PRODUCT, "name": "Red running shoe", "sku": "RS-42"},
                        {"op": "upsert", "id": "bag-7", "name": "Leather bag", "attributes": {"category": "bags"}},
                        {"op": "delete", "id": "hat-3"},
                    ],
                    "clientId": CLIENT,
                },
            ),
            "atomic": Example(
                "All or nothing",
                {
                    "items": [{"op": "upsert", "id": PRODUCT, "name": "Red running shoe"}],
                    "atomic": True,
                    "clientId": CLIENT,
                },
            ),
        }
    },
    "putAttributes": {
        JSON: {
            "types": Example(
                "Prices that came as texts are numbers",
                {"attributes": {"price": "number", "added": "date"}, "clientId": CLIENT},
            ),
            "searchable": Example(
                "Products are found by the words of these, too",
                {"attributes": {}, "searchable": ["brand", "collection"], "clientId": CLIENT},
            ),
        }
    },
    "addMedia": {
        MULTIPART: {"picture": Example("A picture", {"file": PICTURE, "clientId": CLIENT})},
        JSON: {"url": Example("A picture that the server fetches", {"url": PICTURE_URL, "clientId": CLIENT})},
    },
    "putMedia": {
        MULTIPART: {
            "picture": Example("A picture of a product", {"file": PICTURE, "productId": PRODUCT, "clientId": CLIENT})
        },
        JSON: {
            "url": Example(
                "A picture that the server fetches", {"url": PICTURE_URL, "productId": PRODUCT, "clientId": CLIENT}
            )
        },
    },
    "patchMedia": {
        kind: {"move": Example("To another product", {"productId": PRODUCT, "clientId": CLIENT})}
        for kind in (MERGE_PATCH, JSON)
    },
}
"""By operation, content type and name: the bodies of requests."""

_THEN = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
_PRODUCT = wire.Product(
    id=PRODUCT,
    client_id=CLIENT,
    name="Red running shoe",
    sku="RS-42",
    is_active=True,
    attributes={"category": "shoes", "colour": ["red", "white"], "price": 49.9},
    created_at=_THEN,
    updated_at=_THEN,
)
_SIGNED = f"expires=1777982400&clientId={CLIENT}&signature=1b44647c55956f49a44090fa89de0777"
_THUMBNAIL_URL = f"/v1/media/{MEDIA}/thumbnail?{_SIGNED}"
_FILE_URL = f"/v1/media/{MEDIA}/file?{_SIGNED}"
_MEDIA = wire.Media(
    id=MEDIA,
    product_id=PRODUCT,
    client_id=CLIENT,
    kind="image",
    status="ready",
    s3_key=f"media/{CLIENT}/{MEDIA}.jpg",
    thumbnail_url=_THUMBNAIL_URL,
    file_url=_FILE_URL,
    content_type="image/jpeg",
    bytes=48211,
    width=800,
    height=600,
    content_digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    created_at=_THEN,
    blank=False,
)
_WITH_MEDIA = wire.ProductWithMedia(
    **{name: getattr(_PRODUCT, name) for name in wire.Product.__struct_fields__}, media=[_MEDIA], media_next=None
)
_MATCH = wire.Match(
    product_id=PRODUCT,
    product_name="Red running shoe",
    media_id=MEDIA,
    s3_key=f"media/{CLIENT}/{MEDIA}.jpg",
    thumbnail_url=_THUMBNAIL_URL,
    file_url=_FILE_URL,
    width=800,
    height=600,
    score=-1.0,
    cosine=1.0,
    similarity=100.0,
    grade="identical",
)
_FOUND = wire.SearchAnswer(
    results=[wire.Result.with_others(_MATCH, None, None)],
    next=None,
    space=SPACE,
    plan="exact",
    timings={"decode": 2.1, "encode": 8.4, "search": 0.9},
)
_VECTOR = [0.6, 0.0, -0.8]


_DECLARED = wire.DeclaredAttributes(attributes={"price": "number"}, searchable=["brand", "category"])


def _answer(summary: str, value: msgspec.Struct) -> Example:
    return Example(summary, msgspec.to_builtins(value))


ANSWERS: Mapping[str, Example] = {
    "embedImage": _answer(
        "The vector, shortened here",
        wire.EmbeddedImage(embedding=_VECTOR, model="starter", device="cpu", space=SPACE),
    ),
    "embed": _answer("The vectors, shortened here", wire.Embeddings(embeddings=[_VECTOR, _VECTOR], space=SPACE)),
    "searchByImage": _answer("The picture found itself", _FOUND),
    "search": _answer("The picture found itself", _FOUND),
    "putProduct": _answer("The product", _PRODUCT),
    "listProducts": _answer("The last page", wire.ProductPage(products=[_PRODUCT], next=None)),
    "patchProduct": _answer("The product", _PRODUCT),
    "getProduct": _answer("The product, with its only media", _WITH_MEDIA),
    "deleteProduct": _answer("What the product was", _PRODUCT),
    "listMedia": _answer("The last page", wire.MediaPage(media=[_MEDIA], next=None)),
    "batchProducts": _answer(
        "One was created, one replaced, and one was not there",
        wire.BatchAnswer(
            items=[
                wire.BatchResult(id=PRODUCT, status=200),
                wire.BatchResult(id="bag-7", status=201),
                wire.BatchResult(
                    id="hat-3",
                    status=404,
                    error=wire.ItemProblem(
                        error="There is no such product in this client's catalogue.", code="product_not_found"
                    ),
                ),
            ]
        ),
    ),
    "getAttributes": _answer("One that is declared", _DECLARED),
    "putAttributes": _answer("One that is declared", _DECLARED),
    "addMedia": _answer("The media", _MEDIA),
    "putMedia": _answer("The media", _MEDIA),
    "patchMedia": _answer("The media", _MEDIA),
    "getMedia": _answer("The media", _MEDIA),
    "deleteMedia": _answer("What the media was", _MEDIA),
    "listDuplicates": _answer("Another media of the same bytes", wire.Duplicates(exact=[_MATCH], near=[], space=SPACE)),
    "listRegions": _answer(
        "Two things",
        wire.Regions(
            regions=[
                wire.ProposedRegion(crop=[0.1, 0.4, 0.55, 0.95], score=0.61),
                wire.ProposedRegion(crop=[0.625, 0.5, 0.8, 0.75], score=0.3),
            ]
        ),
    ),
    "live": _answer("Alive", wire.Health(status="ok")),
    "ready": _answer(
        "Ready",
        wire.Readiness(
            status="ready",
            model="starter",
            device="cpu",
            precision="fp32",
            space=SPACE,
            text=True,
            reads=["image/jpeg", "image/png", "image/webp", "image/heic"],
            checks=wire.Checks.of(dict.fromkeys(("model", "database", "store", "disk"))),
        ),
    ),
    "operator": _answer(
        "A server with two clients, while another model is embedded",
        OperatorOverview(
            server=ServerFacts(
                version="1.0.0",
                model="starter",
                space=SPACE,
                dimensions=512,
                precision="fp32",
                device="cpu",
                text=True,
                workers=1,
                started_at=_THEN,
                uptime_seconds=7384.2,
                report=True,
            ),
            checks=wire.Checks.of(dict.fromkeys(("model", "database", "store", "disk"))),
            clients=Clients(
                total=2,
                largest=[
                    SizeOfClient(id="acme", products=5200, active_products=5100, media=9800),
                    SizeOfClient(id="zoo", products=310, active_products=310, media=310),
                ],
                counted_at=_THEN,
            ),
            spaces=[
                SpaceState(
                    id=OTHER_SPACE,
                    model="clip-vit-base-patch32",
                    dimensions=512,
                    state="filling",
                    served=False,
                    created_at=_THEN,
                    retired_at=None,
                    vectors=4210,
                    progress=EmbeddingProgress(running=True, embedded=4210, untried=5900, failed=0),
                ),
                SpaceState(
                    id=SPACE,
                    model="starter",
                    dimensions=512,
                    state="live",
                    served=True,
                    created_at=_THEN,
                    retired_at=None,
                    vectors=10_110,
                    progress=EmbeddingProgress(running=False, embedded=10_110, untried=0, failed=0),
                ),
            ],
            indexes=Indexes(
                total=1,
                largest=[
                    IndexState(
                        client_id="acme",
                        state="ready",
                        vectors=9800,
                        ef_search=100,
                        recall=0.991,
                        measured_at=_THEN,
                        compared=420,
                        compared_recall=0.994,
                    )
                ],
            ),
            disks=[Disk(folder="data", free=52_000_000_000, size=100_000_000_000)],
        ),
    ),
    "metrics": Example(
        "A few lines of many",
        "# HELP twinlens_requests_total Requests answered.\n# TYPE twinlens_requests_total counter\n"
        'twinlens_requests_total{code="",method="POST",route="/v1/search",status="200"} 42.0\n',
    ),
}
"""By operation: the body of a successful answer, of its first content type."""


def problem(error: type[TwinlensError]) -> wire.Problem:
    """The body of this error, with the sentence that it has where nothing more is known."""
    return wire.Problem(error=inspect.getdoc(error) or "", code=error.code, request_id="3f2a9c1e7b6d4f50")
