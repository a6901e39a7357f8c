"""Clients of all sizes, clustered vectors, queries near them, and what an exact search answers.

Vectors are a mixture: a direction that all share, a few thousand clusters of which each client has its own few, and
noise around them. The variance of cluster centres and noise falls off with the dimension, as it does in vectors of real
pictures: noise that is alike in all 512 directions would put everything in a cluster at one distance, and "the nearest
24" would mean nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Rows = NDArray[np.int64]

LIMIT = 24
CLASSES = (10, 100, 1_000, 5_000, 25_000, 100_000, 500_000)
"""Media of a client. Those of which a client would have more than half of all rows are left out."""

TIED = 1e-6
"""Cosines that differ by less are equal: what is answered is rounded to the sixth decimal."""

_VERSION = 1  # of what is generated; another one is other data
_TILT = 0.3  # shares of rows fall with the client's size to this power: a Zipf-like tail of many small clients
_CLUSTERS = 4096
_IN_A_CLUSTER = 40  # rows of a client, on average
_COMMON, _NOISE, _BLUR = 0.8, 0.7, 0.35
_BLOCK = 16_384
_CLIENTS_ASKED = 8  # of one class, in turn

_CLIENTS, _ORDER, _VECTORS, _QUERIES, _SHAPE = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Query:
    """What is asked, and how an answer is judged."""

    client: int
    vector: Floats
    """float32[D] of unit length, rounded to halves and back: every system is asked the very same."""
    expected: int
    """Rows of a complete answer: 24, or all that the client has."""
    least: float
    """Cosine of the last of them."""


@dataclass(frozen=True)
class Workload:
    """`rows` vectors of `dimensions`, those of all clients mixed as they were added."""

    rows: int
    dimensions: int
    seed: int
    folder: Path
    """Where the vectors lie; they are made there by `make`."""
    given: tuple[int, ...] | None = None
    """Sizes of the clients, where they are not to be drawn; they sum up to `rows`."""
    upload: int = 20
    """Rows that a client adds in one go, at most: they lie together on disk, between those of others."""

    @property
    def stamp(self) -> str:
        """Names this workload: another one has another stamp."""
        return f"v{_VERSION}-{self.rows}x{self.dimensions}-{self.seed}-{self.upload}" + ("-given" if self.given else "")

    @property
    def path(self) -> Path:
        """The vectors as a file: float16[rows, D], in the order of rows."""
        return self.folder / f"vectors-{self.stamp}.f16"

    @cached_property
    def sizes(self) -> list[int]:
        """Of each client; they sum up to `rows`. Drawn ones begin with the largest."""
        return list(self.given) if self.given else client_sizes(self.rows)

    @cached_property
    def classes(self) -> list[int]:
        """The size classes that there are, the smallest first."""
        return sorted(set(self.sizes) & set(CLASSES))

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """int32[rows]: the client of each row."""
        sizes = np.array(self.sizes)
        uploads = [min(self.upload, size - start) for size in self.sizes for start in range(0, size, self.upload)]
        clients = np.repeat(np.arange(len(sizes), dtype=np.int32), -(-sizes // self.upload))
        order = self._random(_ORDER).permutation(len(uploads))
        return np.repeat(clients[order], np.array(uploads)[order])

    @cached_property
    def vectors(self) -> Halves:
        """float16[rows, D], mapped from the file; nothing is read before it is used."""
        return np.memmap(self.path, np.float16, "r", shape=(self.rows, self.dimensions))

    def rows_of(self, client: int) -> Rows:
        """The numbers of a client's rows."""
        return np.flatnonzero(self.owner == client)

    def make(self) -> None:
        """Write the vectors, unless they are there. Takes memory for one block of them."""
        if self.path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".new")
        centres = self._noise(self._random(_SHAPE), _CLUSTERS)
        picked = [
            self._random(_CLIENTS, client).choice(_CLUSTERS, min(_CLUSTERS, 1 + size // _IN_A_CLUSTER), replace=False)
            for client, size in enumerate(self.sizes)
        ]
        with unfinished.open("wb") as file:
            for start in range(0, self.rows, _BLOCK):
                owners = self.owner[start : start + _BLOCK]
                random = self._random(_VECTORS, start)
                drawn = random.random(len(owners))
                clusters = [
                    picked[owner][int(len(picked[owner]) * at)] for owner, at in zip(owners, drawn, strict=True)
                ]
                vectors = self._common + centres[clusters] + _NOISE * self._noise(random, len(owners))
                file.write(unit(vectors).astype(np.float16).tobytes())
        unfinished.rename(self.path)

    def queries(self, size: int, count: int, without: Collection[int] = ()) -> list[Query]:
        """Queries to clients of one class, with their exact answers: a quarter are stored vectors, others near one.

        `without`: rows that have been deleted since; more than 24 of each client's must be left.
        """
        random = self._random(_QUERIES, size)
        clients = [client for client, one in enumerate(self.sizes) if one == size][:_CLIENTS_ASKED]
        queries: list[Query] = []
        for turn, client in enumerate(clients):
            mine = self.rows_of(client)
            mine = mine[~np.isin(mine, list(without))]
            asked = len(range(turn, count, len(clients)))
            if not asked:
                break
            near = self.vectors[random.choice(mine, asked)].astype(np.float32)
            blurred = np.arange(asked) % 4 != 0
            near[blurred] = near[blurred] + _BLUR * self._noise(random, int(blurred.sum()))
            vectors = unit(near).astype(np.float16).astype(np.float32)
            expected = min(LIMIT, size)
            best = np.full((asked, 0), -np.inf, np.float32)
            for start in range(0, len(mine), _BLOCK):
                cosines = unit(vectors) @ unit(self.vectors[mine[start : start + _BLOCK]].astype(np.float32)).T
                both = np.concatenate([best, cosines], axis=1)
                best = -np.partition(-both, min(expected, both.shape[1]) - 1, axis=1)[:, :expected]
            least = best.min(axis=1)
            queries += [Query(client, vectors[i], expected, float(least[i])) for i in range(asked)]
        order = random.permutation(len(queries))
        return [queries[i] for i in order]

    def judge(self, query: Query, rows: Sequence[int]) -> tuple[float, bool]:
        """An answer's recall, and whether it is short. Another client's row, or one given twice, counts nothing."""
        mine = np.array(sorted({row for row in rows if self.owner[row] == query.client}), np.int64)
        if not len(mine):
            return 0.0, query.expected > 0
        cosines = unit(self.vectors[mine].astype(np.float32)) @ unit(query.vector[None])[0]
        right = min(query.expected, int((cosines >= query.least - TIED).sum()))
        return right / query.expected, len(mine) < query.expected

    # --- random numbers ----------------------------------------------------------------------------------------------

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])

    @cached_property
    def _shape(self) -> Floats:
        """float32[D, D]: turns independent numbers into noise of length 1 whose variance falls off as 1 / i."""
        deviations = np.arange(1, self.dimensions + 1) ** -0.5
        turned = np.linalg.qr(self._random(_SHAPE, 1).standard_normal((self.dimensions, self.dimensions)))[0]
        shape: Floats = (deviations[:, None] / np.linalg.norm(deviations) * turned).astype(np.float32)
        return shape

    @cached_property
    def _common(self) -> Floats:
        return _COMMON * unit(self._noise(self._random(_SHAPE, 2), 1))

    def _noise(self, random: np.random.Generator, count: int) -> Floats:
        noise: Floats = random.standard_normal((count, self.dimensions), dtype=np.float32) @ self._shape
        return noise


def unit(vectors: Floats) -> Floats:
    """float32[N, D] with every row at length 1."""
    lengthened: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lengthened


def client_sizes(rows: int) -> list[int]:
    """Sizes of clients, the largest first, that sum up to `rows`: few large ones, and ever more of the smaller."""
    classes = [size for size in CLASSES if 2 * size <= rows] or [max(1, rows // 2)]
    sizes: list[int] = []
    left = rows
    for size in reversed(classes):
        share = size**_TILT / sum(other**_TILT for other in classes if other <= size)
        count = max(1, round(left * share / size)) if size > classes[0] else left // size
        count = min(count, left // size)
        sizes += [size] * count
        left -= size * count
    return sizes + [left] * (left > 0)
