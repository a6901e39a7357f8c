"""What `GET /v1/operator` answers: how a server and its catalogue stand, for those who run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from server.catalogue.overview import IndexSeen, Seen, SpaceSeen
from server.catalogue.tally import Tally
from server.http.wire import Checks
from server.operations.disks import Room


class _Body(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    pass


class ServerFacts(_Body, frozen=True):
    """What runs."""

    version: str
    model: str
    space: str
    dimensions: int
    precision: str
    device: str
    text: bool
    """Whether the model reads words as well."""
    workers: int
    """Processes that answer."""
    started_at: datetime
    uptime_seconds: float
    report: bool
    """Whether the model came with what its export measured: `GET /operator/report`."""


class SizeOfClient(_Body, frozen=True):
    """What a client has."""

    id: str
    products: int
    active_products: int
    media: int


class Clients(_Body, frozen=True):
    """How many clients have a product, and the sizes of the largest of them, at most 100."""

    total: int
    largest: list[SizeOfClient]
    counted_at: datetime


class EmbeddingProgress(_Body, frozen=True):
    """How far a space is with the pictures of the catalogue."""

    running: bool
    """Whether a re-embedding runs for it at this moment."""
    embedded: int
    untried: int
    """Pictures that nobody has tried to embed yet."""
    failed: int
    """Pictures that could not be embedded."""


class SpaceState(_Body, frozen=True):
    """An embedding space. Only a live one is searched by servers that are started now."""

    id: str
    model: str
    dimensions: int
    state: Literal["live", "filling", "retired"]
    served: bool
    """Whether it is the one that this server searches."""
    created_at: datetime
    retired_at: datetime | None
    vectors: int | None
    """None until they were counted."""
    progress: EmbeddingProgress | None
    """None until it was counted, and for a retired space."""

    @classmethod
    def of(cls, seen: SpaceSeen, served: str) -> SpaceState:
        return cls(
            id=seen.id,
            model=seen.model,
            dimensions=seen.dimensions,
            state=seen.state,
            served=seen.id == served,
            created_at=seen.created_at,
            retired_at=seen.retired_at,
            vectors=seen.size.vectors if seen.size is not None else None,
            progress=_progress(seen),
        )


class IndexState(_Body, frozen=True):
    """The index of a large client. Sizes and recall are those of when it was measured; None before."""

    client_id: str | None
    state: Literal["ready", "building", "incomplete"]
    vectors: int | None
    ef_search: int | None
    recall: float | None
    """Of the 24 nearest by an exact search, the share that the index found, 0 to 1."""
    measured_at: datetime | None
    compared: int
    """Searches of callers that were answered exactly as well, of late."""
    compared_recall: float | None
    """The mean share of the exact answer that the index had found, 0 to 1."""

    @classmethod
    def of(cls, seen: IndexSeen) -> IndexState:
        return cls(
            client_id=seen.client_id,
            state=seen.state,
            vectors=seen.vectors,
            ef_search=seen.ef_search,
            recall=seen.recall,
            measured_at=seen.measured_at,
            compared=seen.compared,
            compared_recall=seen.compared_recall,
        )


class Indexes(_Body, frozen=True):
    """How many indexes this server's space has, and at most 100 of them: those that are not ready, then the largest."""

    total: int
    largest: list[IndexState]


class Disk(_Body, frozen=True):
    """The disk of a folder of this server, in bytes."""

    folder: Literal["data", "media", "database"]
    free: int
    size: int


class OperatorOverview(_Body, frozen=True):
    """What the metrics do not say, since it names clients, or is no number."""

    server: ServerFacts
    checks: Checks
    """As last known."""
    clients: Clients | None
    """None until they were counted: within a minute of the start."""
    spaces: list[SpaceState]
    indexes: Indexes
    disks: list[Disk]

    @classmethod
    def of(cls, server: ServerFacts, checks: Checks, seen: Seen, rooms: Mapping[str, Room]) -> OperatorOverview:
        return cls(
            server=server,
            checks=checks,
            clients=_clients(seen.tally) if seen.tally is not None else None,
            spaces=[SpaceState.of(one, server.space) for one in seen.spaces],
            indexes=Indexes(total=seen.indexes, largest=[IndexState.of(one) for one in seen.largest_indexes]),
            disks=list(_disks(rooms)),
        )


def _progress(seen: SpaceSeen) -> EmbeddingProgress | None:
    size = seen.size
    if seen.state == "retired" or size is None or size.untried is None or size.failed is None:
        return None
    return EmbeddingProgress(running=seen.being_filled, embedded=size.vectors, untried=size.untried, failed=size.failed)


def _clients(tally: Tally) -> Clients:
    largest = [
        SizeOfClient(id=one.id, products=one.products, active_products=one.active_products, media=one.media)
        for one in tally.largest
    ]
    return Clients(total=tally.clients, largest=largest, counted_at=datetime.fromtimestamp(tally.at, UTC))


def _disks(rooms: Mapping[str, Room]) -> Iterable[Disk]:
    for folder in ("data", "media", "database"):
        if (room := rooms.get(folder)) is not None:
            yield Disk(folder=folder, free=room.free, size=room.size)
