"""The pictures that a client's catalogue holds more than once.

The same file is found by its digest, in the database. The same picture in another file is found by its vector: each
vector is compared with each other one, in blocks, since no index answers that for all. That is quadratic, and exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow, class_row, kwargs_row, scalar_row

from server.access.clients import check_id
from server.artifact.artifact import Artifact
from server.artifact.grades import Grade, Grades
from server.catalogue.rows import table_of
from server.catalogue.similarity import clamp, similarity
from server.database.connections import connect
from server.database.queries import Queries
from server.errors import ArtifactInvalid, DatabaseUnusable
from server.operations.progress import Progress, ShowProgress, unseen
from server.settings import Settings

_ROWS, _COLUMNS = 1024, 4096  # of a block of cosines: 16 MB
_FETCHED = 2000  # vectors at a time
_DESCRIBED = 5000  # media at a time
# A cosine is shown to the sixth decimal, and compared as it is shown.
_HALF_A_DIGIT = 5e-7

Halves = NDArray[np.float16]


class _Record(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A part of what `--json` prints."""


class Copy(_Record, frozen=True):
    """A media that is in the catalogue more than once."""

    media_id: str
    product_id: str
    product_name: str
    is_active: bool
    s3_key: str
    digest: str | None
    """SHA-256 of the file's bytes, hex."""
    nearest: str | None = None
    """Of a near duplicate: the media of its group that is most like it."""
    cosine: float | None = None
    """To `nearest`."""
    similarity: float | None = None
    grade: Grade | None = None


class Report(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What `--json` prints."""

    client_id: str
    space: str
    media: int
    without_vector: int
    blank: int
    """Pictures of one colour throughout, which are left out: they look alike, and are no duplicates."""
    exact: list[list[Copy]]
    """Groups of the same file."""
    near: list[list[Copy]] | None
    """Groups of pictures, each of them identical or near-duplicate to another one of its group. A group of one file
    alone is not among them. Null where near duplicates were not looked for, or the space has no grades."""


@dataclass(frozen=True, slots=True)
class Linked:
    """What `link` found: places in the order of the vectors."""

    groups: list[list[int]]
    nearest: NDArray[np.int64]
    """int64[N], of each vector the place of the one that is most like it; -1 where none is near."""
    cosines: NDArray[np.float32]
    """float32[N], of each vector its cosine to that one."""


def link(vectors: Halves, least: float, show: ShowProgress = unseen) -> Linked:
    """Group those of the vectors, float16[N, D], that a cosine of at least `least` links, directly or through others.

    Compares each with each in blocks, N * N / 2 cosines in all. Beside the vectors it needs memory for two blocks and
    for a few numbers a vector.
    """
    count = len(vectors)
    bar = show(_pairs(count), "pairs")
    root = np.arange(count)
    nearest, best = np.full(count, -1), np.full(count, -2, np.float32)
    for top in range(0, count, _ROWS):
        rows = _unit(vectors[top : top + _ROWS])
        for left in range(top, count, _COLUMNS):
            columns = _unit(vectors[left : left + _COLUMNS])
            cosines = rows @ columns.T
            ones, others = np.nonzero(cosines >= least - _HALF_A_DIGIT)
            later = others + left > ones + top  # each pair once, and none with itself
            ones, others = ones[later], others[later]
            if len(ones):
                found = cosines[ones, others]
                ones, others = ones + top, others + left
                for here, there in ((ones, others), (others, ones)):
                    _keep_best(nearest, best, here, there, found)
                root = _joined(root, ones, others)
        left_over = max(0, count - top - _ROWS)
        bar.add(_pairs(count) - _pairs(left_over) - bar.done)
    bar.clear()
    groups: dict[int, list[int]] = {}
    for place in np.flatnonzero(nearest >= 0).tolist():
        groups.setdefault(int(root[place]), []).append(place)
    return Linked(list(groups.values()), nearest, best)


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _unit(halves: Halves) -> NDArray[np.float32]:
    wide = halves.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def _keep_best(
    nearest: NDArray[np.int64],
    best: NDArray[np.float32],
    here: NDArray[np.int64],
    there: NDArray[np.int64],
    cosines: NDArray[np.float32],
) -> None:
    # For each place its best of these: the last of a run of equal places, once they are sorted.
    order = np.lexsort((-there, cosines, here))
    here, there, cosines = here[order], there[order], cosines[order]
    last = np.flatnonzero(np.append(here[1:] != here[:-1], True))
    here, there, cosines = here[last], there[last], cosines[last]
    better = cosines > best[here]
    nearest[here[better]], best[here[better]] = there[better], cosines[better]


def _joined(root: NDArray[np.int64], ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each place, once these pairs are joined as well; a root is the first place of its group.

    Most pairs of a large group are of one group already: they are left out before pairs are joined one by one.
    """
    pairs = np.stack([root[ones], root[others]], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return root
    parent = root.copy()
    for one, other in np.unique(pairs, axis=0).tolist():
        first, second = sorted((_top(parent, one), _top(parent, other)))
        parent[second] = first
    while True:
        shorter = parent[parent]
        if np.array_equal(shorter, parent):
            return parent
        parent = shorter


def _top(parent: NDArray[np.int64], place: int) -> int:
    while (above := int(parent[place])) != place:
        parent[place] = parent[above]
        place = above
    return place


# --- the catalogue ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counted:
    media: int
    embedded: int
    blank: int


@dataclass(frozen=True, slots=True)
class _Embedded:
    media_id: str
    embedding: HalfVector


@dataclass(frozen=True, slots=True)
class _Space:
    number: int
    id: str
    dimensions: int
    manifest: Mapping[str, Any]

    def grades(self, settings: Settings) -> Grades | None:
        """The grades of the manifest in the database; else those of the settings' model, if it is of this space."""
        variants: Mapping[str, Any] = self.manifest.get("precisions") or {}
        # Precisions that share a space have grades of their own: that of the settings first.
        for _, variant in sorted(variants.items(), key=lambda one: one[0] != settings.precision):
            if variant.get("space") == self.id and variant.get("grades") is not None:
                return msgspec.convert(variant["grades"], Grades)
        try:
            model = Artifact.read(settings.model).variant(settings.precision)
        except ArtifactInvalid:
            return None
        return model.grades if model.space == self.id else None


def find(
    settings: Settings,
    url: str,
    client_id: str,
    *,
    near: bool = True,
    inactive: bool = False,
    show: ShowProgress = unseen,
) -> Report:
    """The duplicates of a client's catalogue, as it is at one moment; `inactive`: of inactive products as well.

    Holds the client's vectors in memory (1 KB each at 512 dimensions). Raises DatabaseUnusable, and BadParameter for a
    text that can be no client's id.
    """
    check_id("The client's id", client_id)
    parameters = {"client_id": client_id, "all": inactive}
    with connect(url) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        register_vector(connection)
        queries = Queries.read("duplicates.sql")
        with connection.transaction():
            with connection.cursor(row_factory=class_row(_Space)) as cursor:
                space = cursor.execute(queries["live_space"]).fetchone()
            if space is None:
                raise DatabaseUnusable("The database has no live embedding space yet: start the server with it once.")
            queries = queries.of(table_of(space.number))
            with connection.cursor(row_factory=class_row(_Counted)) as counting:
                count = counting.execute(queries["count_media"], parameters).fetchone() or _Counted(0, 0, 0)
            with connection.cursor(row_factory=scalar_row) as files:
                same: list[list[str]] = files.execute(queries["same_files"], parameters).fetchall()
            grades = space.grades(settings) if near else None
            ids: list[str] = []
            linked = None
            if grades is not None:
                bar = show(count.embedded - count.blank, "vectors")
                ids, vectors = _read_vectors(connection, queries["vectors"], parameters, space, bar)
                bar.clear()
                linked = link(vectors, grades.near_duplicate, show)
            wanted = [one for group in same for one in group]
            wanted += [ids[place] for group in (linked.groups if linked else ()) for place in group]
            known = _describe(connection, queries["describe"], client_id, wanted)
    return Report(
        client_id=client_id,
        space=space.id,
        media=count.media,
        without_vector=count.media - count.embedded,
        blank=count.blank,
        exact=_in_order([known[one] for one in group] for group in same),
        near=_in_order(_near(linked, ids, known, grades)) if linked is not None and grades is not None else None,
    )


def _read_vectors(
    connection: Connection[TupleRow],
    query: bytes,
    parameters: Mapping[str, Any],
    space: _Space,
    bar: Progress,
) -> tuple[list[str], Halves]:
    """The media's ids in the database, and their vectors as float16[N, D], N the total of the bar.

    They are read a few thousand at a time.
    """
    ids: list[str] = []
    vectors = np.empty((bar.total, space.dimensions), np.float16)
    with connection.cursor(name="vectors", binary=True, row_factory=class_row(_Embedded)) as cursor:
        cursor.itersize = _FETCHED
        for place, media in enumerate(cursor.execute(query, parameters)):
            ids.append(media.media_id)
            vectors[place] = media.embedding.to_numpy()
            if (place + 1) % _FETCHED == 0:
                bar.add(_FETCHED)
    return ids, vectors[: len(ids)]


def _describe(connection: Connection[TupleRow], query: bytes, client_id: str, ids: Sequence[str]) -> dict[str, Copy]:
    """The media by their ids in the database, in which the API's may be others."""
    known: dict[str, Copy] = {}
    chosen = list(dict.fromkeys(ids))
    with connection.cursor(row_factory=kwargs_row(_described)) as cursor:
        for start in range(0, len(chosen), _DESCRIBED):
            part = {"client_id": client_id, "ids": chosen[start : start + _DESCRIBED]}
            known.update(cursor.execute(query, part))
    return known


def _described(*, key: str, **copy: Any) -> tuple[str, Copy]:
    return key, Copy(**copy)


def _in_order(groups: Iterable[list[Copy]]) -> list[list[Copy]]:
    """By the media's ids, in each group and of the groups' first."""
    by_id = attrgetter("media_id")
    return sorted((sorted(group, key=by_id) for group in groups), key=lambda group: by_id(group[0]))


def _near(linked: Linked, ids: Sequence[str], known: Mapping[str, Copy], grades: Grades) -> Iterator[list[Copy]]:
    for group in linked.groups:
        copies = []
        for place in group:
            cosine = round(clamp(float(linked.cosines[place])), 6)
            copies.append(
                msgspec.structs.replace(
                    known[ids[place]],
                    nearest=known[ids[linked.nearest[place]]].media_id,
                    cosine=cosine,
                    similarity=similarity(cosine),
                    grade=grades.of(cosine),
                )
            )
        # A group that is one file is listed as such.
        if copies[0].digest is None or any(copy.digest != copies[0].digest for copy in copies):
            yield copies
