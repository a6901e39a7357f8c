"""What the catalogue's rows are outside the database: frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pgvector import HalfVector

from server.artifact.artifact import short_id
from server.catalogue.filters import Filter


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

Plan = Literal["exact", "index"]
"""How a search was answered: by looking at each media of the client, or through the client's own HNSW index."""


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


@dataclass(frozen=True)
class NewMedia:
    """A media to be added: a picture whose bytes are stored under `s3_key`, with SHA-256 `content_digest`.

    `width` and `height` in pixels, after orientation; `bytes` is the file's size.
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


@dataclass(frozen=True)
class Found:
    """The matches of a search, best first, and how they were come by."""

    matches: list[Match]
    plan: Plan


@dataclass(frozen=True)
class IndexAnswer:
    """A search that an index answered, as it is told to whoever compares such answers with exact ones."""

    client_id: str
    embedding: HalfVector
    limit: int
    where: Filter
    cosines: tuple[float, ...]
    """Of its matches, best first."""
