"""Reading what callers send: pictures and fields of a form, JSON, the deadline header.

A route that takes either a form or JSON reads by Content-Type; a Litestar handler binds only one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException, SerializationException

from server.clients import Request
from server.errors import BadParameter, MalformedRequest, NoPicture, UnsupportedBody

Fields = TypeVar("Fields", bound=msgspec.Struct)

MULTIPART = "multipart/form-data"
JSON = "application/json"

DEADLINE_HEADER = "Twinlens-Deadline"


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
            raise BadParameter(f"The form has {len(self.files)} parts named file; this call takes one.")
        return self.files[0]

    def read(self, kind: type[Fields]) -> Fields:
        """The fields beside the files, checked. Raises BadParameter."""
        # A field left empty in a form is one that was not given.
        return _convert({name: text for name, text in self.fields.items() if text}, kind, strict=False)


def content_type(request: Request) -> str:
    return request.content_type[0].lower()


async def read_form(request: Request) -> Form:
    """The form's `file` parts and its other fields. Raises UnsupportedBody, MalformedRequest, BadParameter."""
    if content_type(request) != MULTIPART:
        raise UnsupportedBody(f"Send the picture as {MULTIPART}, in a part named file.")
    try:
        form = await request.form()
    except HTTPException as exc:
        if exc.status_code == 413:
            raise
        raise MalformedRequest(f"The form cannot be read: {exc.detail}.") from exc
    except ValueError as exc:
        raise MalformedRequest("The form cannot be read: it is not valid multipart/form-data.") from exc
    files: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise BadParameter(f"The form has a file named {name!r}; name the part file.")
            files.append(await value.read())
            await value.close()
        elif name == "file":
            # Litestar hands a part without a file name over as text: what matters is what it holds.
            files.append(value if isinstance(value, bytes) else str(value).encode())
        elif name in fields:
            raise BadParameter(f"The form gives {name} twice.")
        else:
            fields[name] = str(value)
    return Form(files, fields)


async def read_json(request: Request, kind: type[Fields]) -> Fields:
    """The JSON body as `kind`. Raises UnsupportedBody, MalformedRequest, BadParameter."""
    if content_type(request) != JSON:
        raise UnsupportedBody(f"Send the body as {JSON}.")
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, SerializationException, UnicodeDecodeError) as exc:
        raise MalformedRequest(f"The body is not JSON: {exc}.") from exc
    return _convert(body, kind, strict=True)


def _convert(value: Any, kind: type[Fields], *, strict: bool) -> Fields:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise BadParameter(_plain(str(exc))) from exc


def _plain(message: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.limit`" as "limit: expected int >= 1."."""
    said, _, place = message.replace("`", "").partition(" - at $.")
    return f"{place}: {said[:1].lower()}{said[1:]}." if place else f"{said}."


def deadline_of(request: Request, most: float) -> float:
    """Seconds this request may take: what its Twinlens-Deadline header asks for, at most `most`.

    Raises BadParameter for a header that is no number above 0.
    """
    asked = request.headers.get(DEADLINE_HEADER)
    if asked is None:
        return most
    try:
        seconds = float(asked)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadParameter(f"The header {DEADLINE_HEADER} takes a number of seconds above 0, not {asked!r}.")
    return min(seconds, most)
