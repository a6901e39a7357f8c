"""Searches for several things at once: the parts of a query, each with its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from twinlens.request import FromUrl, exactly_one, file_of
from twinlens.wire import QueryPart

if TYPE_CHECKING:
    from twinlens.pictures import Picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One of the things that a search is for: exactly one of `picture`, `url`, `text`, `media_id`, `embedding`.

    They are what `search` takes by these names.
    """

    picture: Picture | None = None
    url: str | None = None
    text: str | None = None
    media_id: str | None = None
    embedding: Sequence[float] | None = None
    space: str | None = None
    """Which the embedding is of."""
    crop: Sequence[float] | None = None
    """What of a `picture`, or of that of a `url` or `media_id`: left, top, right and bottom, as fractions of the
    upright picture's width and height."""
    weight: float = 1.0
    """Beside those of the other parts, -10 to 10; below 0 it means less like this."""


def parts_of(query: Sequence[Part]) -> tuple[list[QueryPart], list[bytes | FromUrl]]:
    """The parts as they are sent, and the pictures of the form, by whose places the parts name them.

    Raises ValueError where a part does not name exactly one thing, and otherwise as `twinlens.pictures.bytes_of`.
    """
    parts: list[QueryPart] = []
    files: list[bytes | FromUrl] = []
    for part in query:
        given = {name: getattr(part, name) for name in ("picture", "url", "text", "media_id", "embedding")}
        exactly_one(given)
        if part.space is not None and part.embedding is None:
            raise ValueError("space goes with embedding.")
        file = None
        if part.picture is not None or part.url is not None:
            file = len(files)
            files.append(file_of(part.picture, part.url))
        parts.append(
            QueryPart(
                text=part.text,
                media_id=part.media_id,
                embedding=numbers_of(part.embedding),
                space=part.space,
                file=file,
                crop=numbers_of(part.crop),
                weight=part.weight,
            )
        )
    return parts, files


def query_text(parts: Sequence[QueryPart]) -> str:
    """The parts as a form has them."""
    return msgspec.json.encode(parts).decode()


def numbers_of(given: Sequence[float] | None) -> list[float] | None:
    """A vector, or a crop, of whatever kind, as JSON has it."""
    return None if given is None else [float(number) for number in given]
