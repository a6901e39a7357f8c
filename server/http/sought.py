"""What a search is for: from what a request names, a picture, words, a media or a vector, or several, to one vector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.access.clients import check_item_id
from server.artifact.artifact import Vectors
from server.batching.embedder import Embedded, Timings
from server.catalogue.composing import composed
from server.catalogue.rows import Digest
from server.catalogue.vectors import checked
from server.errors import BadParameter, MediaNotFound, NoText, SpaceMismatch
from server.http.account import account_of
from server.http.bodies import decoded_field
from server.http.leaving import while_here
from server.http.narrowing import require_found
from server.http.request import Call, Request
from server.http.timing import note_vector
from server.http.wire import QueryPart, QueryParts, SearchRequest
from server.lifespan import Services
from server.wording import counted


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """A vector to search with, and where it came from."""

    vector: Vectors
    """float32[D] of unit length."""
    timings: Timings = field(default_factory=dict)
    """Of making it, in seconds; empty where it was kept, or was a vector already."""
    digest: Digest | None = None
    """SHA-256 of the picture that it was made of."""
    media_id: str | None = None
    """The media that it was read from."""
    blank: bool = False
    """It is the vector of a picture of one colour."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search is to be for: parts of which each names one thing, and none has the weight 0."""

    parts: Sequence[QueryPart]
    files: Sequence[bytes] = ()
    """The form's pictures, by the numbers that the parts have."""

    @property
    def alone(self) -> QueryPart | None:
        """The only part, where there is one and it is what matches are to be like: such a query is nothing but that."""
        (first, *others) = self.parts
        return first if not others and first.weight > 0 else None

    @property
    def words(self) -> bool:
        return self.alone is not None and self.alone.text is not None

    @property
    def several(self) -> bool:
        return self.alone is None


# --- from a request to its parts -------------------------------------------------------------------------------------


def aim_of_json(asked: SearchRequest) -> Aim:
    """What a JSON request names. Raises BadParameter."""
    if asked.query is None:
        part = QueryPart(text=asked.text, media_id=asked.media_id, embedding=asked.embedding, space=asked.space)
        if _named(part) != 1:
            raise BadParameter("Give exactly one of text, mediaId, query, and embedding with its space.")
        _check_space(part)
        return Aim([part])
    if asked.space is not None or any(one is not None for one in (asked.text, asked.media_id, asked.embedding)):
        raise BadParameter(
            "query has the text, mediaId, and embedding with its space, in its parts: none goes beside it."
        )
    if any(part.file is not None for part in asked.query):
        raise BadParameter("query: file counts the pictures of a form. Send the request as multipart/form-data.")
    return Aim(_checked_parts(asked.query))


def aim_of_form(query: str, files: Sequence[bytes]) -> Aim:
    """What a form with at least one picture names, whose field `query` this is. Raises BadParameter."""
    parts = decoded_field("query", query, QueryParts)
    numbers = {part.file for part in parts if part.file is not None}
    # A picture that nothing names would be dropped in silence.
    if numbers != set(range(len(files))):
        raise BadParameter(
            f"query: its parts must name each picture of the form, which has {counted(len(files), 'picture')}, "
            "from file 0."
        )
    return Aim(_checked_parts(parts), files)


def _checked_parts(parts: Sequence[QueryPart]) -> list[QueryPart]:
    """The parts that count for anything. Raises BadParameter."""
    for number, part in enumerate(parts):
        if _named(part) != 1:
            raise BadParameter(
                f"query[{number}]: give exactly one of text, mediaId, file, and embedding with its space."
            )
        _check_space(part)
    if not (counting := [part for part in parts if part.weight]):
        raise BadParameter("query: every weight is 0, so that there is nothing to search for.")
    return counting


def _named(part: QueryPart) -> int:
    return sum(one is not None for one in (part.text, part.media_id, part.embedding, part.file))


def _check_space(part: QueryPart) -> None:
    if part.space is not None and part.embedding is None:
        raise BadParameter("space goes with embedding.")
    if part.embedding is not None and part.space is None:
        raise BadParameter("An embedding names its space: give space beside it.")


# --- from parts to a vector ------------------------------------------------------------------------------------------


async def seek(request: Request, call: Call, services: Services, aim: Aim) -> Sought:
    """The vector to search with. Raises what `contract` of the search names."""
    if (part := aim.alone) is not None:
        return await _one(request, call, services, part, aim.files)
    if (account := account_of(request.scope)) is not None:
        account.owe_requests(len(aim.parts) - 1)
    return await _composed(request, call, services, aim)


async def embed(request: Request, call: Call, services: Services, data: bytes) -> Embedded:
    """One picture's vector, for as long as its caller is there."""
    work = services.embedder.embed(data, within=call.left, caller=call.caller)
    embedded = await while_here(request, work)
    note_vector(request.scope, embedded.timings)
    return embedded


async def _one(request: Request, call: Call, services: Services, part: QueryPart, files: Sequence[bytes]) -> Sought:
    if part.file is not None:
        picture = await embed(request, call, services, files[part.file])
        return Sought(picture.embedding, picture.timings, digest=picture.digest, blank=picture.blank)
    if part.text is not None:
        work = services.embedder.embed_texts([_words(part.text)], within=call.left, caller=call.caller)
        (text,) = await while_here(request, work)
        note_vector(request.scope, text.timings)
        return Sought(text.embedding, text.timings)
    if part.media_id is not None:
        return await _of_media(call, services, part.media_id)
    return Sought(_of_vector(part, services))


async def _composed(request: Request, call: Call, services: Services, aim: Aim) -> Sought:
    """All of the parts in one: pictures and words are embedded side by side, each kind admitted as a whole.

    What is named twice is embedded once. A media that a part names is found as any other, by its cosine.
    """
    parts = aim.parts
    vectors = {number: _of_vector(part, services) for number, part in enumerate(parts) if part.embedding is not None}
    texts = [(number, _words(part.text)) for number, part in enumerate(parts) if part.text is not None]
    pictures = [(number, aim.files[part.file]) for number, part in enumerate(parts) if part.file is not None]
    media = [(number, part.media_id) for number, part in enumerate(parts) if part.media_id is not None]

    async def embed_pictures() -> list[Timings]:
        if not pictures:
            return []
        made = await services.embedder.embed_all([data for _, data in pictures], within=call.left, caller=call.caller)
        vectors.update((number, one.embedding) for (number, _), one in zip(pictures, made, strict=True))
        return [one.timings for one in made]

    async def embed_texts() -> list[Timings]:
        if not texts:
            return []
        made = await services.embedder.embed_texts([text for _, text in texts], within=call.left, caller=call.caller)
        vectors.update((number, one.embedding) for (number, _), one in zip(texts, made, strict=True))
        return [one.timings for one in made]

    # One after the other, so that no search takes sixteen connections at once.
    for number, media_id in media:
        vectors[number] = (await _of_media(call, services, media_id)).vector
    made = await while_here(request, _side_by_side(embed_pictures, embed_texts))
    timings = _longest([one for some in made for one in some])
    if pictures or texts:
        note_vector(request.scope, timings)
    vector = composed([vectors[number] for number in range(len(parts))], [part.weight for part in parts])
    return Sought(vector, timings)


async def _side_by_side(*works: Callable[[], Coroutine[Any, Any, list[Timings]]]) -> list[list[Timings]]:
    """The results in order. Raises what the first that failed has raised, once the others are cancelled."""
    tasks: list[asyncio.Task[list[Timings]]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in works]
    except BaseExceptionGroup as exc:
        failure = next(one for task in tasks if not task.cancelled() and (one := task.exception()) is not None)
        raise failure from failure.__cause__ or exc
    return [task.result() for task in tasks]


def _longest(timings: Sequence[Timings]) -> Timings:
    """Of each stage, the longest time that one of them spent there."""
    stages = dict.fromkeys(stage for one in timings for stage in one)
    return {stage: max(one.get(stage, 0.0) for one in timings) for stage in stages}


def _words(text: str) -> str:
    if not text.strip():
        raise NoText
    return text


async def _of_media(call: Call, services: Services, named: str) -> Sought:
    media_id = check_item_id("mediaId", named)
    await require_found(services.catalogue, call.client_id, media_id, call.principal)
    stored = await services.catalogue.media_vector(call.client_id, media_id)
    if stored is None:
        raise MediaNotFound
    return Sought(stored.embedding, media_id=media_id, blank=stored.blank)


def _of_vector(part: QueryPart, services: Services) -> Vectors:
    """A vector that the caller gives: float32[D]. Raises SpaceMismatch, VectorRefused."""
    space = services.encoder.space
    if part.space is not None and part.space != space.id:
        raise SpaceMismatch(part.space, space.id)
    return checked(part.embedding if part.embedding is not None else (), space.dimensions)
