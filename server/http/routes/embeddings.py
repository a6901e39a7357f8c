"""Pictures and texts to vectors: the older service's call, and the batch call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from litestar import MediaType, Response, post
from litestar.di import NamedDependency

from server.artifact.artifact import Vectors
from server.batching.embedder import Embedded, EmbeddedText, digest_of
from server.batching.fair_queue import Caller, Lane
from server.errors import BadParameter, NoPicture
from server.http.bodies import JSON, MULTIPART, caller_of, content_type, deadline_of, read_form, read_json
from server.http.leaving import while_here
from server.http.openapi import FilesForm, PictureForm, contract
from server.http.request import Request, client_of
from server.http.timing import note, note_kept
from server.http.wire import EmbeddedImage, Embeddings, TextsToEmbed
from server.lifespan import Services

RAW = "application/octet-stream"
MOST_FILES = 256


async def embed(request: Request, services: Services, data: bytes, caller: Caller) -> Embedded:
    """One picture's vector, for as long as its caller is there."""
    digest = await digest_of(data)
    if (embedded := services.embedder.recall(digest)) is not None:
        note_kept(request)
        return embedded
    within = deadline_of(request, services.settings.deadline)
    work = services.embedder.embed(data, within=within, caller=caller, digest=digest)
    embedded = await while_here(request, work)
    note(request, embedded.timings)
    return embedded


@post(
    "/embed-image",
    status_code=200,
    **contract(400, 413, 415, takes={MULTIPART: PictureForm}, client=False),
    tags=["embeddings"],
)
async def embed_image(request: Request, services: NamedDependency[Services]) -> EmbeddedImage:
    """The vector of one picture, as the older service gave it."""
    form = await read_form(request)
    embedded = await embed(request, services, form.file, caller_of(request, client_of(request)))
    return EmbeddedImage(
        embedding=embedded.embedding.tolist(),
        model=services.encoder.model,
        device=services.encoder.device,
        space=services.encoder.space.id,
    )


@post(
    "/v1/embeddings",
    status_code=200,
    **contract(
        400,
        413,
        415,
        takes={MULTIPART: FilesForm, JSON: TextsToEmbed},
        also={200: (Embeddings, "The vectors, in the order that the pictures or texts came.")},
        raw=RAW,
        client=False,
    ),
    tags=["embeddings"],
)
async def embeddings(request: Request, services: NamedDependency[Services]) -> Response[Embeddings] | Response[bytes]:
    """The vectors of many pictures (a form), or of many texts (JSON), in the order they came.

    Both are of one space. JSON, or raw little-endian float32 where that is accepted.
    """
    if content_type(request) == JSON:
        vectors = await _of_texts(request, services)
    else:
        vectors = await _of_pictures(request, services)
    space = services.encoder.space
    if request.accept.best_match([MediaType.JSON, RAW], default=MediaType.JSON) == RAW:
        raw = np.stack(vectors).astype("<f4").tobytes()
        headers = {"Twinlens-Space": space.id, "Twinlens-Dimensions": str(space.dimensions)}
        return Response(raw, media_type=RAW, headers=headers)
    return Response(Embeddings(embeddings=[vector.tolist() for vector in vectors], space=space.id))


async def _of_texts(request: Request, services: Services) -> list[Vectors]:
    asked = await read_json(request, TextsToEmbed)
    within = deadline_of(request, services.settings.deadline)
    work = services.embedder.embed_texts(asked.texts, within=within, caller=_caller(request, len(asked.texts)))
    return _vectors(request, await while_here(request, work))


async def _of_pictures(request: Request, services: Services) -> list[Vectors]:
    form = await read_form(request)
    if not form.files:
        raise NoPicture("No picture was sent: the form needs parts named file.")
    if len(form.files) > MOST_FILES:
        raise BadParameter(f"The form has {len(form.files)} pictures; one call takes at most {MOST_FILES}.")
    within = deadline_of(request, services.settings.deadline)
    work = services.embedder.embed_all(form.files, within=within, caller=_caller(request, len(form.files)))
    return _vectors(request, await while_here(request, work))


def _caller(request: Request, count: int) -> Caller:
    """Somebody who sends many at once is not waiting at a screen."""
    lane: Lane = "bulk" if count > 1 else "interactive"
    return caller_of(request, client_of(request), lane)


def _vectors(request: Request, made: Sequence[Embedded] | Sequence[EmbeddedText]) -> list[Vectors]:
    """The vectors; the longest that any of them spent in each stage is noted."""
    stages = {stage for one in made for stage in one.timings}
    note(request, {stage: max(one.timings.get(stage, 0.0) for one in made) for stage in sorted(stages)})
    if not stages:
        note_kept(request)
    return [one.embedding for one in made]
