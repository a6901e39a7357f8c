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
from server.catalogue.rows import Digest, Media
from server.catalogue.vectors import checked
from server.errors import BadParameter, MediaNotFound, NoText, SpaceMismatch
from server.http.account import account_of
from server.http.bodies import Form, decoded_field
from server.http.cutting import check_crop, crop_of_form, read_stored, region_of_part
from server.http.leaving import while_here
from server.http.narrowing import require_found
from server.http.request import Call, Request
from server.http.timing import note_vector
from server.http.wire import QueryPart, QueryParts, SearchRequest
from server.lifespan import Services
from server.preprocessing.region import Region
from server.wording import counted


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """A vector to search with, and where it came from."""

    vector: Vectors
    """float32[D] of unit length."""
    timings: Timings = field(default_factory=dict)
    """Of making it, in seconds; empty where it was kept, or was a vector already."""
    digest: Digest | None = None
    """SHA-256 of the picture that it was made of; none of a picture that it is but a part of."""
    media_id: str | None = None
    """The media that it was read from, and whose own vector it is."""
    blank: bool = False
    """It is the vector of a picture of one colour."""
    parts: Sequence[Vectors] = ()
    """The vectors of which it is the sum, in the order of the aim's parts; none where it is no sum."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search is to be for: parts of which each names one thing, and none has the weight 0."""

    parts: Sequence[QueryPart]
    files: Sequence[bytes] = ()
    """The form's pictures, by the numbers that the parts have."""
    places: Sequence[int] = ()
    """Where the parts stand in the query that was sent, of which some may count for nothing; empty where none was."""
    count: int = 0
    """How many parts that query has."""

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
        part = QueryPart(
            text=asked.text, media_id=asked.media_id, embedding=asked.embedding, space=asked.space, crop=asked.crop
        )
        if _named(part) != 1:
            raise BadParameter("Give exactly one of text, mediaId, query, and embedding with its space.")
        _check_space(part)
        check_crop(part)
        return Aim([part])
    if asked.space is not None or any(one is not None for one in (asked.text, asked.media_id, asked.embedding)):
        raise BadParameter(
            "query has the text, mediaId, and embedding with its space, in its parts: none goes beside it."
        )
    _refuse_crop_beside_query(asked.crop)
    if any(part.file is not None for part in asked.query):
        raise BadParameter("query: file counts the pictures of a form. Send the request as multipart/form-data.")
    return _aim(asked.query)


def aim_of_picture(form: Form) -> Aim:
    """The one picture of a form. Raises NoPicture, BadParameter."""
    return Aim([QueryPart(file=0)], [form.file])


def aim_of_form(query: str | None, crop: str | None, form: Form) -> Aim:
    """What a form names that has these fields beside its pictures. Raises NoPicture, BadParameter."""
    cut = crop_of_form(crop)
    if query is None:
        part = QueryPart(file=0, crop=cut)
        check_crop(part)
        return Aim([part], [form.file])
    _refuse_crop_beside_query(cut)
    files = form.pictures
    parts = decoded_field("query", query, QueryParts)
    numbers = {part.file for part in parts if part.file is not None}
    # A picture that nothing names would be dropped in silence.
    if numbers != set(range(len(files))):
        raise BadParameter(
            f"query: its parts must name each picture of the form, which has {counted(len(files), 'picture')}, "
            "from file 0."
        )
    return _aim(parts, files)


def _aim(parts: Sequence[QueryPart], files: Sequence[bytes] = ()) -> Aim:
    counting = _checked_parts(parts)
    return Aim(counting, files, [place for place, part in enumerate(parts) if part.weight], len(parts))


def _checked_parts(parts: Sequence[QueryPart]) -> list[QueryPart]:
    """The parts that count for anything. Raises BadParameter."""
    for number, part in enumerate(parts):
        if _named(part) != 1:
            raise BadParameter(
                f"query[{number}]: give exactly one of text, mediaId, file, and embedding with its space."
            )
        _check_space(part)
        check_crop(part, f"query[{number}].")
    if not (counting := [part for part in parts if part.weight]):
        raise BadParameter("query: every weight is 0, so that there is nothing to search for.")
    return counting


def _named(part: QueryPart) -> int:
    return sum(one is not None for one in (part.text, part.media_id, part.embedding, part.file))


def _refuse_crop_beside_query(crop: Sequence[float] | None) -> None:
    if crop is not None:
        raise BadParameter("crop does not go beside query: give it to the part whose picture is to be cut.")


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


async def embed(
    request: Request, call: Call, services: Services, data: bytes, region: Region | None = None
) -> Embedded:
    """The vector of one picture, or of a region of it, for as long as its caller is there."""
    work = services.embedder.embed(data, within=call.left, caller=call.caller, region=region)
    embedded = await while_here(request, work)
    note_vector(request.scope, embedded.timings)
    return embedded


async def _one(request: Request, call: Call, services: Services, part: QueryPart, files: Sequence[bytes]) -> Sought:
    region = region_of_part(part)
    if part.media_id is not None and region is not None:
        media = await _media_to_cut(call, services, part.media_id)
        (data,) = await while_here(request, read_stored(request, services, [media]))
        cut = await embed(request, call, services, data, region)
        return Sought(cut.embedding, cut.timings, blank=cut.blank)
    if part.file is not None:
        picture = await embed(request, call, services, files[part.file], region)
        # A region is not what the file shows: no media may come first for having that file.
        digest = picture.digest if region is None else None
        return Sought(picture.embedding, picture.timings, digest=digest, blank=picture.blank)
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
    regions = [region_of_part(part) for part in parts]
    pictures = [(number, aim.files[part.file]) for number, part in enumerate(parts) if part.file is not None]
    media = [(number, part.media_id) for number, part in enumerate(parts) if part.media_id is not None]

    async def embed_pictures() -> list[Timings]:
        if not pictures:
            return []
        made = await services.embedder.embed_all(
            [data for _, data in pictures],
            within=call.left,
            caller=call.caller,
            regions=[regions[number] for number, _ in pictures],
        )
        vectors.update((number, one.embedding) for (number, _), one in zip(pictures, made, strict=True))
        return [one.timings for one in made]

    async def embed_texts() -> list[Timings]:
        if not texts:
            return []
        made = await services.embedder.embed_texts([text for _, text in texts], within=call.left, caller=call.caller)
        vectors.update((number, one.embedding) for (number, _), one in zip(texts, made, strict=True))
        return [one.timings for one in made]

    # One after the other, so that no search takes sixteen connections at once.
    cut: list[tuple[int, Media]] = []
    for number, media_id in media:
        if regions[number] is None:
            vectors[number] = (await _of_media(call, services, media_id)).vector
        else:
            cut.append((number, await _media_to_cut(call, services, media_id)))
    read = await while_here(request, read_stored(request, services, [one for _, one in cut]))
    pictures += [(number, data) for (number, _), data in zip(cut, read, strict=True)]
    made = await while_here(request, _side_by_side(embed_pictures, embed_texts))
    timings = _longest([one for some in made for one in some])
    if pictures or texts:
        note_vector(request.scope, timings)
    of_parts = [vectors[number] for number in range(len(parts))]
    return Sought(composed(of_parts, [part.weight for part in parts]), timings, parts=of_parts)


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


async def _media_to_cut(call: Call, services: Services, named: str) -> Media:
    """A media of whose picture a part is searched with: whatever vector it has itself, or none yet."""
    media_id = check_item_id("mediaId", named)
    await require_found(services.catalogue, call.client_id, media_id, call.principal)
    return await services.catalogue.get_media(call.client_id, media_id)


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
