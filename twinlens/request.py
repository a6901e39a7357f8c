"""A call as a plain value: what is asked of the server, and how its answer is read. Nothing here sends anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from twinlens.errors import AnswerUnreadable
from twinlens.pictures import bytes_of

if TYPE_CHECKING:
    from twinlens.pictures import Picture

Result = TypeVar("Result")
Item = TypeVar("Item")

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whoever it is."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON body."""

    value: Any
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class FromUrl:
    """A picture that is fetched before the call is sent."""

    url: str


@dataclass(frozen=True, slots=True)
class Form:
    """A form with pictures in its parts `file`."""

    files: Sequence[bytes | FromUrl] = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict)


Body = Document | Form


@dataclass(frozen=True, slots=True)
class Request(Generic[Result]):
    """One call of the API."""

    method: str
    path: str
    """Below the server's address, with its parameters percent-encoded."""
    read: Callable[[Answer], Result]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    of_client: bool = True
    """Whether it is about one client's catalogue, which the query names then."""
    retried: bool = True
    """Whether it is sent again where that can help. Those who ask how a server is want to know how it is now."""
    once: bool = False
    """Whether all its tries have one Idempotency-Key: for writes whose answer is another one when they are repeated.
    The others have the same effect, and the same answer, however often they are sent."""

    def with_query(self, **more: str) -> Request[Result]:
        return replace(self, query={**self.query, **more})


class Paging(Protocol):
    """What the body of every page has."""

    @property
    def next(self) -> str | None: ...


Paged = TypeVar("Paged", bound=Paging)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of many, and where the next ones begin."""

    items: Sequence[Item]
    next: str | None
    """The cursor of the next page; None at the end."""


def page_of(items: Callable[[Paged], Sequence[Item]], kind: type[Paged]) -> Callable[[Answer], Page[Item]]:
    """Reads an answer as a page; `items`: where it has them."""
    read = decoded(kind)

    def paged(answer: Answer) -> Page[Item]:
        page = read(answer)
        return Page(items(page), page.next)

    return paged


def decoded(kind: type[Result]) -> Callable[[Answer], Result]:
    """Reads an answer's JSON as this type."""
    decoder = msgspec.json.Decoder(kind)

    def read(answer: Answer) -> Result:
        try:
            return decoder.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:  # a ValidationError is a DecodeError, too
            raise AnswerUnreadable(
                f"The answer is not what Twinlens answers with: {exc}. Is this the address of a Twinlens?",
                status=answer.status,
                request_id=answer.headers.get("x-request-id"),
            ) from exc

    return read


def content(answer: Answer) -> bytes:
    """Reads an answer as the bytes that it is."""
    return answer.content


def exactly_one(given: Mapping[str, object]) -> None:
    """Raises ValueError unless one of these, by their names, is given."""
    if sum(value is not None for value in given.values()) != 1:
        *names, last = given
        raise ValueError(f"Give exactly one of {', '.join(names)} and {last}.")


def file_of(picture: Picture | None, url: str | None) -> bytes | FromUrl:
    """A picture of a form. Raises ValueError where none is given, and as `bytes_of`."""
    if url is not None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"A picture is fetched by http or https, not from {url!r}.")
        return FromUrl(url)
    if picture is None:
        raise ValueError("Give a picture or its URL.")
    return bytes_of(picture)


def below(*parts: str) -> str:
    """A path of these parts, each percent-encoded as one. Raises ValueError for a part that no path can hold."""
    for part in parts:
        if re.fullmatch(r"\.{0,2}", part):  # whatever is sent would be taken for a step in the path
            raise ValueError(f"An id cannot be {part!r}.")
    return "/" + "/".join(quote(part, safe=":@") for part in parts)


def parameters(**given: Any) -> dict[str, str]:
    """Those that are given, by their names in camelCase, as a query or a form has them."""
    return {_camel(name): _text(value) for name, value in given.items() if value is not None}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(one.title() for one in others)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return msgspec.json.encode(value).decode()
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)
