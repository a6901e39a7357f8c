"""A librarian with a real database, a real store and a model that is a stand-in, and what an onlooker sees of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec, Vectors
from server.batching.batcher import Batcher
from server.batching.embedder import Embedder
from server.catalogue.catalogue import Catalogue
from server.database.pool import Pool, open_pool
from server.ingest.librarian import Librarian
from server.ingest.storage import MARK, MediaStore
from tests.support.catalogue import D, open_test_space
from tests.support.databases import run_sql
from tests.support.pictures import in_format

SPEC = PreprocessingSpec(
    size=4, resize="squash", edge=4, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
LONG = 60.0


def picture(value: int = 7, size: tuple[int, int] = (8, 6)) -> bytes:
    return in_format(Image.new("L", size, value), "PNG")


class Model:
    """A stand-in for the model: one direction for each grey, of unit length."""

    most = 16

    def __call__(self, entries: Sequence[NDArray[np.uint8]]) -> Vectors:
        return np.eye(D, dtype=np.float32)[np.stack(entries)[:, 0, 0, 0] % D]

    def close(self) -> None: ...


class House:
    """A librarian with all that belongs to it, and what an onlooker sees of the store and the database."""

    def __init__(
        self,
        librarian: Librarian,
        catalogue: Catalogue,
        embedder: Embedder,
        store: MediaStore,
        pool: Pool,
        folder: Path,
        url: str,
    ) -> None:
        self.librarian, self.catalogue, self.embedder = librarian, catalogue, embedder
        self.store, self.pool = store, pool
        self.folder, self.url = folder, url

    async def add(self, data: bytes | None = None, product: str = "p") -> Any:
        return await self.librarian.add("acme", product, data or picture(), within=LONG)

    @property
    def objects(self) -> set[str]:
        """The keys that the store holds, unfinished ones included."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()} - {MARK}

    @property
    def rows(self) -> set[tuple[str, ...]]:
        """The keys that the database's media point at."""
        return set(run_sql(self.url, 'SELECT "s3Key", "thumbnailKey" FROM media'))

    @property
    def consistent(self) -> bool:
        """Whether each row has its bytes and a vector, and all bytes have their row."""
        vectors = run_sql(self.url, "SELECT count(*) FROM image_embeddings")
        return self.objects == {key for keys in self.rows for key in keys} and vectors == [(len(self.rows),)]

    @contextmanager
    def holding(self, product: str = "p") -> Iterator[psycopg.Connection[Any]]:
        """Another transaction that has the product locked."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT FROM products WHERE id = %s FOR UPDATE", (product,))
            yield connection
            connection.rollback()

    async def blocked(self, many: int = 1) -> list[int]:
        """Backends that wait for a lock, once there are so many."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with psycopg.connect(self.url, autocommit=True) as connection:
            while len(found := [row[0] for row in connection.execute(query.encode())]) < many:
                await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def open_house(url: str, folder: Path) -> AsyncIterator[House]:
    """A house whose store is this folder, with the product `p` of the client `acme`."""
    space = open_test_space(url)
    async with Batcher([Model()]) as batcher, open_pool(url, min_size=1, max_size=8, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        embedder = Embedder(batcher, SPEC, max_pixels=1_000_000, threads=2)
        store = MediaStore.at(None, folder)
        store.make()
        librarian = Librarian(embedder, catalogue, store)
        await catalogue.put_product("acme", "p", name="A thing")
        yield House(librarian, catalogue, embedder, store, pool, folder, url)
        await librarian.close()
        embedder.close()
