"""A small space, and many media in it without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from server.catalogue.rows import SpaceRow
from server.spaces.spaces import SpaceDescription, open_space

D = 16

SPACE = "a" * 64


def open_test_space(url: str, space_id: str = SPACE, dimensions: int = D, path: str = "models/test") -> SpaceRow:
    return open_space(url, SpaceDescription(space_id, dimensions, "test", {"space": space_id}, path))


def fill(url: str, space: SpaceRow, client_id: str, vectors: NDArray[np.float32]) -> None:
    """Many media at once: one product each."""
    with psycopg.connect(url) as connection:
        register_vector(connection)
        names = [f"{client_id}-{number:06}" for number in range(len(vectors))]
        with connection.cursor() as cursor:
            with cursor.copy('COPY products (id, "clientId", name) FROM STDIN') as copy:
                for name in names:
                    copy.write_row((name, client_id, name))
            with cursor.copy('COPY media (id, "productId", "clientId", "s3Key") FROM STDIN') as copy:
                for name in names:
                    copy.write_row((name, name, client_id, name))
            with cursor.copy(f'COPY {space.table} (space, "mediaId", embedding) FROM STDIN') as copy:
                for name, vector in zip(names, vectors, strict=True):
                    copy.write_row((space.number, name, HalfVector(vector)))


def fill_products(
    url: str,
    space: SpaceRow,
    client_id: str,
    vectors: NDArray[np.float32],
    products: Sequence[str],
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Media of these products, one for each vector, with the ids `CLIENT-000000` and so on."""
    facts = attributes or {}
    with psycopg.connect(url) as connection:
        register_vector(connection)
        cursor = connection.cursor()
        with cursor.copy('COPY products (id, "clientId", name, attributes) FROM STDIN') as copy:
            for product in dict.fromkeys(products):
                copy.write_row((product, client_id, product, Jsonb(dict(facts.get(product, {})))))
        with cursor.copy('COPY media (id, "productId", "clientId", "s3Key") FROM STDIN') as copy:
            for number, product in enumerate(products):
                copy.write_row((f"{client_id}-{number:06}", product, client_id, f"{client_id}-{number:06}"))
        with cursor.copy(f'COPY {space.table} (space, "mediaId", embedding) FROM STDIN') as copy:
            for number, vector in enumerate(vectors):
                copy.write_row((space.number, f"{client_id}-{number:06}", HalfVector(vector)))
