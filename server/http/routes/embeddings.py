"""Pictures and texts to vectors: the call of the legacy service, and the call for many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from litestar import MediaType, Response, post
from litestar.di import NamedDependency

from server.artifact.artifact import Vectors
from server.batching.embedder import Embedded, EmbeddedText
from server.errors import BadParameter, NoPicture
from server.http.bodies import JSON, MULTIPART, content_type, read_form, read_json
from server.http.leaving import while_here
from server.http.openapi import PICTURE, TEXT, PictureForm, PicturesForm, contract
from server.http.request import Call, Request, call_of
from server.http.sought import embed
from server.http.timing import note_vector
from server.http.wire import EmbeddedImage, Embeddings, TextsToEmbed
from server.lifespan import Services

RAW = "application/octet-stream"
SPACE_HEADER = "Twinlens-Space"
DIMENSIONS_HEADER = "Twinlens-Dimensions"
MOST_FILES = 256


@post(
    "/embed-image",
    status_code=200,
    **contract(
        "embedImage",
        *PICTURE,
        accepts={MULTIPART: PictureForm},
        answers={200: ("The vector.", EmbeddedImage)},
        client=False,
        lane=True,
    ),
    tags=["embeddings"],
)
async def embed_image(request: Request, services: NamedDependency[Services]) -> EmbeddedImage:
    """The vector of one picture, as the legacy service gave it."""
    form = await read_form(request)
    embedded = await embed(request, call_of(request), services, form.file)
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
        "embed",
        *PICTURE,
        *TEXT,
        accepts={MULTIPART: PicturesForm, JSON: TextsToEmbed},
        answers={
            200: ("The vectors, in the order that the pictures or texts came.", {JSON: Embeddings, RAW: bytes}),
        },
        headers={
            SPACE_HEADER: f"The embedding space of the vectors, where the answer is {RAW}.",
            DIMENSIONS_HEADER: f"The numbers in each vector, where the answer is {RAW}: float32, little-endian.",
        },
        client=False,
        lane=True,
    ),
    tags=["embeddings"],
)
async def embeddings(request: Request, services: NamedDependency[Services]) -> Response[Embeddings] | Response[bytes]:
    """The vectors of many pictures (a form), or of many texts (JSON), in the order they came.

    Both are of one space. The answer is JSON, or raw little-endian float32 where that is accepted.
    """
    if content_type(request) == JSON:
        vectors = await _of_texts(request, services)
    else:
        vectors = await _of_pictures(request, services)
    space = services.encoder.space
    if request.accept.best_match([MediaType.JSON, RAW], default=MediaType.JSON) == RAW:
        raw = np.stack(vectors).astype("<f4").tobytes()
        headers = {SPACE_HEADER: space.id, DIMENSIONS_HEADER: str(space.dimensions)}
        return Response(raw, media_type=RAW, headers=headers)
    return Response(Embeddings(embeddings=[vector.tolist() for vector in vectors], space=space.id))


async def _of_texts(request: Request, services: Services) -> list[Vectors]:
    texts = (await read_json(request, TextsToEmbed)).texts
    call = _call_for(request, len(texts))
    work = services.embedder.embed_texts(texts, within=call.left, caller=call.caller)
    return _vectors(request, await while_here(request, work))


async def _of_pictures(request: Request, services: Services) -> list[Vectors]:
    files = (await read_form(request)).files
    if not files:
        raise NoPicture("No picture was sent: the form needs parts named file.")
    if len(files) > MOST_FILES:
        raise BadParameter(f"The form has {len(files)} pictures; one call accepts at most {MOST_FILES}.")
    call = _call_for(request, len(files))
    work = services.embedder.embed_all(files, within=call.left, caller=call.caller)
    return _vectors(request, await while_here(request, work))


def _call_for(request: Request, count: int) -> Call:
    """Whoever sends many at once is not waiting at a screen."""
    call = call_of(request)
    return call.in_bulk() if count > 1 else call


def _vectors(request: Request, made: Sequence[Embedded] | Sequence[EmbeddedText]) -> list[Vectors]:
    """The vectors; of each stage, the longest time that one of them spent there is noted."""
    stages = sorted({stage for one in made for stage in one.timings})
    note_vector(request.scope, {stage: max(one.timings.get(stage, 0.0) for one in made) for stage in stages})
    return [one.embedding for one in made]
