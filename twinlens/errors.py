"""What can go wrong, as exceptions: one base, and a family for each kind of answer.

    try:
        client.get_product("shoe-1")
    except twinlens.NotFound:
        ...
    except twinlens.TwinlensError as error:
        print(error.code, error.request_id, error.sentence)

`code` is the server's own word for it; the table of codes in the documentation says when each comes. Later versions of
the server may have further ones, so the classes go by the status.
"""

from __future__ import annotations

from http import HTTPStatus


class TwinlensError(Exception):
    """Something went wrong between this program and the server, or there."""

    code = "error"
    """A word for programs: the server's, or one of this library's where the server has said nothing."""

    status: int | None = None
    """The answer's HTTP status; None where there was no answer."""

    request_id: str | None = None
    """The id by which the server's log has the request, if it reached the server."""

    retry_after: float | None = None
    """Seconds after which the server asks to try again, where it says so."""

    def __init__(
        self,
        sentence: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code or self.code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def sentence(self) -> str:
        """What went wrong, for a person."""
        return str(self.args[0])

    def __str__(self) -> str:
        status = "" if self.status is None else f"{self.status} "
        request = "" if self.request_id is None else f", request {self.request_id}"
        return f"{self.sentence} ({status}{self.code}{request})"


# --- no answer that can be used --------------------------------------------------------------------------------------


class ConnectionFailed(TwinlensError):
    """The server cannot be reached, or the connection broke before the answer was there."""

    code = "connection_failed"


class DeadlinePassed(TwinlensError):
    """The answer was not there within the client's deadline. Whether a change was made is not known."""

    code = "deadline_passed"


class AnswerUnreadable(TwinlensError):
    """What answered does not speak as Twinlens does: most likely the URL leads somewhere else."""

    code = "answer_unreadable"


class PictureNotFetched(TwinlensError):
    """The picture to search with could not be fetched from its URL."""

    code = "picture_not_fetched"


# --- the server's refusals, by status --------------------------------------------------------------------------------


class Refused(TwinlensError):
    """The server answered with an error."""


class BadRequest(Refused):
    """400: there is no picture, it is unreadable, or the request cannot be read."""


class Unauthorized(Refused):
    """401: there is no key, or one that is not good here."""


class Forbidden(Refused):
    """403: the key does not allow this."""


class NotFound(Refused):
    """404: there is no such thing in this client's catalogue."""


class Conflict(Refused):
    """409: it does not fit what the catalogue holds, or the vector is of another embedding space."""


class PreconditionFailed(Refused):
    """412: it has changed since it was read."""


class TooLarge(Refused):
    """413: the picture or the request is larger than this server accepts."""


class UnsupportedMediaType(Refused):
    """415: not a picture that is read here."""


class Unprocessable(Refused):
    """422: a parameter makes no sense."""


class FailedDependency(Refused):
    """424: the picture was to be fetched from a URL, and its host did not give it."""


class RateLimited(Refused):
    """429: there were too many requests; `retry_after` says when there is room."""


class ServerError(Refused):
    """5xx: the fault is the server's."""


class Unavailable(ServerError):
    """503: not now; `retry_after` says when another try is likely to succeed."""


_FAMILIES: dict[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    415: UnsupportedMediaType,
    422: Unprocessable,
    424: FailedDependency,
    429: RateLimited,
    503: Unavailable,
}


def family_of(status: int) -> type[Refused]:
    """The class of the errors with this status."""
    return _FAMILIES.get(status, ServerError if status >= 500 else Refused)


def phrase_of(status: int) -> str:
    """`404 Not Found`: for answers that say no more."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
