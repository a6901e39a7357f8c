"""Pictures and texts to vectors: the older service's call, and the batch call."""

from __future__ import annotations

import numpy as np
from litestar import MediaType, Response, post
from litestar.di import NamedDependency

from server.artifact import Vectors
from server.clients import Request
from server.errors import BadParameter, NoPicture
from server.lifespan import Services
from server.routes.bodies import JSON, MULTIPART, content_type, deadline_of, read_form, read_json
from server.routes.openapi import FilesForm, PictureForm, contract
from server.wire import EmbeddedImage, Embeddings, TextsToEmbed

RAW = "application/octet-stream"
MOST_FILES = 256


@post(
    "/embed-image",
    status_code=200,
    **contract(400, 413, 415, takes={MULTIPART: PictureForm}, client=False),
    tags=["embeddings"],
)
async def embed_image(request: Request, services: NamedDependency[Services]) -> EmbeddedImage:
    """The vector of one picture, as the older service gave it."""
    form = await read_form(request)
    embedded = await services.embedder.embed(form.file, within=deadline_of(request, services.settings.deadline))
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
    return [one.embedding for one in await services.embedder.embed_texts(asked.texts, within=within)]


async def _of_pictures(request: Request, services: Services) -> list[Vectors]:
    form = await read_form(request)
    if not form.files:
        raise NoPicture("No picture was sent: the form needs parts named file.")
    if len(form.files) > MOST_FILES:
        raise BadParameter(f"The form has {len(form.files)} pictures; one call takes at most {MOST_FILES}.")
    within = deadline_of(request, services.settings.deadline)
    return [one.embedding for one in await services.embedder.embed_all(form.files, within=within)]
