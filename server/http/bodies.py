"""Reading the bodies that callers send: the pictures and fields of a form, and JSON.

A route that accepts either a form or JSON reads by Content-Type; a Litestar handler binds only one of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from litestar.exceptions import InternalServerException
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from server.errors import BadParameter, CallerLeft, MalformedRequest, NoPicture, UnsupportedBody, UploadTooLarge
from server.http.request import Request
from server.http.timing import note_read

Fields = TypeVar("Fields", bound=msgspec.Struct)

MULTIPART = "multipart/form-data"
JSON = "application/json"

# 256 pictures and a handful of fields.
_MOST_PARTS = 300
# A vector of 4,000 numbers as text is a tenth of this; parsing much more would delay everyone else.
_LARGEST_JSON = 1_000_000


@dataclass(frozen=True, slots=True)
class Form:
    files: Sequence[bytes]
    fields: dict[str, str]

    @property
    def file(self) -> bytes:
        """The only picture. Raises NoPicture for none, BadParameter for several."""
        if not self.files:
            raise NoPicture("No picture was sent: the form needs a part named file.")
        if len(self.files) > 1:
            raise BadParameter(f"The form has {len(self.files)} parts named file; this call accepts one.")
        return self.files[0]

    def read(self, kind: type[Fields]) -> Fields:
        """The fields beside the files, checked. Raises BadParameter."""
        # A field left empty in a form is one that was not given.
        given = {name: text for name, text in self.fields.items() if text}
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as exc:
            raise BadParameter(_plain(str(exc))) from exc


def content_type(request: Request) -> str:
    return request.content_type[0].lower()


async def read_form(request: Request) -> Form:
    """The form's `file` parts and its other fields. Raises UnsupportedBody, MalformedRequest, BadParameter.

    Litestar's own reader treats a part without a plain file name as text, and keeps large ones in temporary files.
    """
    if content_type(request) != MULTIPART:
        raise UnsupportedBody(f"Send the picture as {MULTIPART}, in a part named file.")
    boundary = request.content_type[1].get("boundary")
    if not boundary:
        raise MalformedRequest("The form cannot be read: its Content-Type names no boundary.")
    files: list[bytes] = []
    fields: dict[str, str] = {}
    try:
        async for part, data in _parts(request, boundary):
            if part.name == "file":
                files.append(data)
            elif part.filename is not None:
                raise BadParameter(f"The form has a file in a part named {_short(part.name)}; name the part file.")
            elif part.name in fields:
                raise BadParameter(f"The form gives {_short(part.name)} twice.")
            else:
                fields[part.name or ""] = data.decode()
    except ParserLimitReached as exc:
        raise BadParameter(
            f"The form has too many parts or too long headers: at most {_MOST_PARTS} parts, with short headers."
        ) from exc
    except UnicodeDecodeError as exc:
        raise BadParameter("A field of the form is not UTF-8 text.") from exc
    except MultipartError as exc:
        raise MalformedRequest("The form cannot be read: it is no complete multipart/form-data.") from exc
    note_read(request.scope)
    return Form(files, fields)


async def _parts(request: Request, boundary: str) -> AsyncIterator[tuple[MultipartSegment, bytes]]:
    """Each part with its bytes, as soon as it is complete."""
    part: MultipartSegment | None = None
    chunks: list[bytes] = []
    with PushMultipartParser(boundary, max_segment_count=_MOST_PARTS) as parser:
        async for chunk in _stream(request):
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    part, chunks = event, []
                elif event:
                    chunks.append(bytes(event))
                elif part is not None:
                    yield part, b"".join(chunks)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises CallerLeft when it breaks off."""
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException as exc:  # Litestar raises it here for nothing else
        raise CallerLeft from exc


def _short(name: str | None) -> str:
    return repr((name or "")[:40])


async def read_json(request: Request, kind: type[Fields]) -> Fields:
    """The JSON body as `kind`. Raises UnsupportedBody, UploadTooLarge, MalformedRequest, BadParameter."""
    if content_type(request) != JSON:
        raise UnsupportedBody(f"Send the body as {JSON}.")
    body = bytearray()
    async for chunk in _stream(request):
        body += chunk
        if len(body) > _LARGEST_JSON:
            raise UploadTooLarge(f"A JSON body may have at most {_LARGEST_JSON:,} bytes.")
    note_read(request.scope)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise BadParameter(_plain(str(exc))) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedRequest(f"The body is not JSON that can be read: {exc}.") from exc


def _plain(message: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.limit`" as "limit: expected int >= 1."."""
    said, _, place = message.replace("`", "").partition(" - at $.")
    return f"{place}: {said[:1].lower()}{said[1:]}." if place else f"{said}."
