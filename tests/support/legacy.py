"""Legacy databases (those of the older system) as tests make them: sound, or broken in some way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import psycopg
from numpy.typing import NDArray

from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from server.preprocessing import media
from server.settings import Settings
from tests import DEMO_PICTURES, STARTER
from tests.support.vectors import unit_vectors

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE products (
    id text PRIMARY KEY, "clientId" text NOT NULL, name text NOT NULL, sku text UNIQUE, "isActive" boolean DEFAULT true
);
CREATE TABLE media (
    id text PRIMARY KEY, "productId" text REFERENCES products (id), "s3Key" text, width int, height int
);
CREATE TABLE image_embeddings ("mediaId" text, embedding vector(512));
"""

# As an object-relational mapper makes it: uuids, enumerations, times without a zone, unique indexes, an id for each
# vector, and columns that Twinlens does not need.
MAPPED_SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TYPE kind AS ENUM ('IMAGE', 'VIDEO', 'DRAWING');
CREATE TABLE products (
    id uuid NOT NULL DEFAULT gen_random_uuid(), "clientId" varchar(40) NOT NULL, name varchar(200) NOT NULL,
    sku varchar(60) NOT NULL, "isActive" boolean NOT NULL DEFAULT true, colour text NOT NULL,
    attributes jsonb, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL,
    CONSTRAINT "PK_of_products" PRIMARY KEY (id)
);
CREATE UNIQUE INDEX products_sku_key ON products (sku);
CREATE INDEX ON products (colour);
CREATE TABLE media (
    id uuid PRIMARY KEY, "productId" uuid NOT NULL REFERENCES products (id) ON DELETE RESTRICT, kind kind NOT NULL,
    status varchar(20) CHECK (status IN ('ready', 'processed')), "s3Key" varchar(300) UNIQUE, width bigint,
    height bigint, "contentDigest" text, "apiId" integer
);
CREATE TABLE image_embeddings (
    id serial PRIMARY KEY, "mediaId" uuid NOT NULL REFERENCES media (id) ON DELETE CASCADE, embedding vector NOT NULL
);
CREATE UNIQUE INDEX ON image_embeddings ("mediaId");
CREATE INDEX ON image_embeddings USING hnsw ((embedding::vector(512)) vector_cosine_ops);
"""

# The older application's query, to the letter.
LEGACY_SQL = """\
SELECT p.id as "productId", p.name as "productName", ie.embedding <#> $1::vector as score, m."s3Key", m.width, \
m.height FROM image_embeddings ie JOIN media m ON
  ie."mediaId" = m.id JOIN products p ON m."productId" = p.id WHERE p."clientId" = $2 AND p."isActive" = true \
ORDER BY ie.embedding <#> $1::vector LIMIT $3"""

NAMES = sorted(path.stem for path in DEMO_PICTURES.glob("*.webp"))[:40]


@cache
def real_vectors() -> NDArray[np.float32]:
    """float32[len(NAMES), 512]: what the starter makes of these pictures of the demo catalogue."""
    artifact = Artifact.read(STARTER)
    pictures = [(DEMO_PICTURES / f"{name}.webp").read_bytes() for name in NAMES]
    pixels = np.stack([media.read_pixels(data, artifact.spec, max_pixels=10**8) for data in pictures])
    with Encoder(artifact, "fp32", "cpu", threads=2) as encoder:
        return encoder.encode(pixels)


def random_vectors(count: int = len(NAMES)) -> NDArray[np.float32]:
    """float32[count, 512] of unit length, in any direction: what a mock gives."""
    return unit_vectors(count, 512, seed=49)


@contextmanager
def legacy_database(
    url: str, vectors: Iterable[NDArray[Any]], *changes: LiteralString, schema: LiteralString = SCHEMA
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Products p0, p1... of the client `shop`, each with a media (m0, m1...) and its vector; then the changes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(schema)
        with connection.cursor() as cursor:
            rows = [(number, name) for number, name in enumerate(NAMES)]
            cursor.executemany(
                "INSERT INTO products (id, \"clientId\", name, sku) VALUES ('p' || %s, 'shop', %s, 'S' || %s)",
                [(number, name, number) for number, name in rows],
            )
            cursor.executemany(
                "INSERT INTO media VALUES ('m' || %s, 'p' || %s, 'pictures/' || %s || '.webp', 640, 480)",
                [(number, number, name) for number, name in rows],
            )
            cursor.executemany(
                "INSERT INTO image_embeddings VALUES ('m' || %s, %s::real[]::vector)",
                [(number, vector.tolist()) for number, vector in enumerate(vectors)],
            )
        for change in changes:
            connection.execute(change)
        yield connection


def settings(url: str, folder: Path, **others: Any) -> Settings:
    """Settings of a server with the starter on this database, and `folder` for its data."""
    return Settings(**{"database_url": url, "data": folder, "model": STARTER, "device": "cpu", "threads": 2, **others})
