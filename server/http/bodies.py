"""Reading the bodies that callers send: the pictures and fields of a form, and JSON.

A route that accepts either a form or JSON reads by Content-Type; a Litestar handler binds only one of them.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar.exceptions import InternalServerException
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from server.batching.embedder import digest_of
from server.errors import BadParameter, CallerLeft, MalformedRequest, NoPicture, UnsupportedBody, UploadTooLarge
from server.http.account import account_of
from server.http.encodings import inflated
from server.http.idempotency import digest_of_form, has_key, note_body
from server.http.memory import room_of
from server.http.request import Request
from server.http.timing import note_read
from server.wording import explained, plainly

Fields = TypeVar("Fields", bound=msgspec.Struct)

MULTIPART = "multipart/form-data"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

BODY_LIMITS = "body_limits"
"""Where the state of an app has its BodyLimits."""

# Some write it before UTF-8, to say that it is UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Of one body: the most parts of a form, and the most bytes of JSON."""

    parts: int
    json: int


@dataclass(frozen=True, slots=True)
class Form:
    files: Sequence[bytes]
    fields: dict[str, str]

    @property
    def file(self) -> bytes:
        """The only picture. Raises NoPicture for none, BadParameter for several."""
        if len(self.pictures) > 1:
            raise BadParameter(f"The form has {len(self.files)} parts named file; this call accepts one.")
        return self.files[0]

    @property
    def pictures(self) -> Sequence[bytes]:
        """All of them, of which there is at least one. Raises NoPicture."""
        if not self.files:
            raise NoPicture("No picture was sent: the form needs a part named file.")
        return self.files

    def read(self, kind: type[Fields]) -> Fields:
        """The fields beside the files, checked. Raises BadParameter."""
        # A field left empty in a form is one that was not given.
        given = {name: text for name, text in self.fields.items() if text}
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as exc:
            raise BadParameter(plainly(str(exc))) from exc


def decoded_field(name: str, text: str, kind: Any) -> Any:
    """A field of a form that holds JSON, as `kind`. Raises BadParameter."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as exc:
        raise BadParameter(f"{name}: {plainly(str(exc))}") from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadParameter(f"{name} is not JSON that can be read: {exc}.") from exc


def content_type(request: Request) -> str:
    return request.content_type[0].lower()


async def read_form(request: Request) -> Form:
    """The form's `file` parts and its other fields.

    Raises UnsupportedBody, MalformedRequest, BadParameter, UploadTooLarge, Overloaded, RateLimited.

    Litestar's own reader treats a part without a plain file name as text, and keeps large ones in temporary files.
    """
    if content_type(request) != MULTIPART:
        raise UnsupportedBody(f"Send the picture as {MULTIPART}, in a part named file.")
    boundary = request.content_type[1].get("boundary")
    if not boundary:
        raise MalformedRequest("The form cannot be read: its Content-Type names no boundary.")
    files: list[bytes] = []
    fields: dict[str, str] = {}
    most = _limits_of(request).parts
    try:
        async for part, data in _parts(request, boundary, most):
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
            f"The form has too many parts or too long headers: at most {most:,} parts, with short headers."
        ) from exc
    except UnicodeDecodeError as exc:
        raise BadParameter("A field of the form is not UTF-8 text.") from exc
    except MultipartError as exc:
        raise MalformedRequest("The form cannot be read: it is no complete multipart/form-data.") from exc
    note_read(request.scope)
    if (account := account_of(request.scope)) is not None:
        await account.take_pictures(len(files))
    if has_key(request):
        note_body(request, digest_of_form([await digest_of(data) for data in files], fields.items()))
    return Form(files, fields)


async def _parts(request: Request, boundary: str, most: int) -> AsyncIterator[tuple[MultipartSegment, bytes]]:
    """Each part with its bytes, as soon as it is complete."""
    part: MultipartSegment | None = None
    data = io.BytesIO()
    with PushMultipartParser(boundary, max_segment_count=most) as parser:
        async for chunk in _stream(request):
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    part, data = event, io.BytesIO()
                elif event:
                    data.write(event)
                elif part is not None:
                    yield part, data.getvalue()  # its own buffer, where pieces that are joined would be there twice
                    data = io.BytesIO()


async def _stream(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes, decompressed, and counted in the server's memory.

    Raises UnsupportedEncoding, UploadTooLarge, Overloaded, MalformedRequest, and CallerLeft when it breaks off.
    """
    room = room_of(request)
    most = request.route_handler.resolve_request_max_body_size() or 0
    chunks = inflated(_received(request), request.headers.get("content-encoding", ""), most)
    while (chunk := await room.next(chunks)) is not None:
        yield chunk


async def _received(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except InternalServerException as exc:  # Litestar raises it here for nothing else
        if "transfer-encoding" in request.headers:
            # The server says the same of a chunk that cannot be read, whose sender is there, as of one who has left.
            raise MalformedRequest("The body ended in the midst of its chunks, or one of them cannot be read.") from exc
        raise CallerLeft from exc


def _limits_of(request: Request) -> BodyLimits:
    limits: BodyLimits = request.app.state[BODY_LIMITS]
    return limits


def _short(name: str | None) -> str:
    return repr((name or "")[:40])


def read_query(request: Request, kind: type[Fields]) -> Fields:
    """The query's parameters, checked. Raises BadParameter, also for one that is not known or comes twice."""
    given = request.query_params.dict()
    known = msgspec.structs.fields(kind)
    for name, values in given.items():
        if name not in (field.encode_name for field in known):
            raise BadParameter(f"This call knows no parameter {_short(name)}.")
        if len(values) > 1:
            raise BadParameter(f"{name} is given twice in the query.")
    try:
        return msgspec.convert({name: values[0] for name, values in given.items()}, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise BadParameter(plainly(str(exc))) from exc


async def read_json(request: Request, kind: type[Fields], *, kinds: Sequence[str] = (JSON,)) -> Fields:
    """The JSON body as `kind`, of one of these content types.

    Raises UnsupportedBody, UploadTooLarge, MalformedRequest, BadParameter, Overloaded.
    """
    return decoded_json(await read_text(request, kinds=kinds, most=_limits_of(request).json), kind)


async def read_text(request: Request, *, kinds: Sequence[str] = (JSON,), most: int | None = None) -> bytearray:
    """The bytes of a JSON body, at most so many, or as many as any body may have.

    Raises UnsupportedBody, UploadTooLarge, MalformedRequest, Overloaded.
    """
    if content_type(request) not in kinds:
        raise UnsupportedBody(f"Send the body as {' or '.join(kinds)}.")
    charset = request.content_type[1].get("charset", "utf-8")
    if charset.strip("\"'").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"Send JSON as UTF-8: the charset {_short(charset)} is not read here.")
    body = bytearray()
    async for chunk in _stream(request):
        body += chunk
        if most is not None and len(body) > most:
            raise UploadTooLarge(f"A JSON body may have at most {most:,} bytes.")
    note_read(request.scope)
    if body.startswith(_BYTE_ORDER_MARK):
        del body[: len(_BYTE_ORDER_MARK)]
    if has_key(request):
        note_body(request, await digest_of(body))
    return body


def decoded_json(text: bytearray, kind: type[Fields], large: Callable[[Fields], msgspec.Raw] | None = None) -> Fields:
    """JSON as `kind`. `large`: a member of it that is read later, and may be megabytes.

    Raises MalformedRequest, BadParameter.
    """
    try:
        decoded = msgspec.json.decode(text, type=kind)
        # What takes long with a body of megabytes is not done with the member that makes it so long.
        _refuse_two_clients(text if large is None else text.replace(memoryview(large(decoded)), b"0", 1))
        return decoded
    except msgspec.ValidationError as exc:
        raise BadParameter(explained(exc, text, kind)) from exc
    except (msgspec.DecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedRequest(f"The body is not JSON that can be read: {exc}.") from exc


def converted(text: msgspec.Raw, kind: Any) -> Any:
    """A part of a JSON body, of which the whole was decoded, as `kind`. Raises BadParameter."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as exc:
        raise BadParameter(explained(exc, text, kind)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadParameter(f"It is not JSON that can be read: {exc}.") from exc


def _refuse_two_clients(text: bytearray) -> None:
    """Of a member that is given twice, decoders take one or the other; a gateway may have checked the other one.

    Raises BadParameter.
    """
    # Written with an escape, the name has other letters. Most bodies hold none, and are not read a second time.
    if text.count(b'"clientId"') < 2 and b"\\" not in text:
        return
    members: Sequence[tuple[str, Any]] = json.loads(text, object_pairs_hook=tuple)
    if sum(name == "clientId" for name, _ in members) > 1:
        raise BadParameter("clientId is given twice in the body.")
