"""Errors to statuses and codes. Every error has the same body; no other module knows the status of an error."""

from __future__ import annotations

import logging
import math
import uuid

import msgspec
from litestar import MediaType, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap, Receive, Scope, Send

from server import errors
from server.http.encodings import GZIP
from server.http.request import CODE, Request
from server.http.wire import Checks, NotReadyProblem, Problem

REQUEST_ID_HEADER = "X-Request-Id"

BAD_REQUEST = "bad_request"
INTERNAL_ERROR = "internal_error"

_log = logging.getLogger(__name__)

# The first family that fits decides, so a subclass stands before its base.
STATUSES: tuple[tuple[type[errors.TwinlensError], int], ...] = (
    (errors.NotAPicture, 415),
    (errors.UnsupportedPicture, 415),
    (errors.PictureTooLarge, 413),
    (errors.UploadTooLarge, 413),
    (errors.MediaRejected, 400),
    (errors.MalformedRequest, 400),
    (errors.UnsupportedBody, 415),
    (errors.BadParameter, 422),
    (errors.VectorRefused, 422),
    (errors.FetchFailed, 424),  # neither the caller's request nor this server is at fault
    (errors.KeyRefused, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.CatalogueConflict, 409),
    (errors.PreconditionFailed, 412),
    (errors.RateLimited, 429),
    (errors.Overloaded, 503),
    (errors.CallerLeft, 499),  # nobody reads it; with nginx's number, the metrics distinguish it from an answer
    (errors.NotReady, 503),
    (errors.CatalogueUnavailable, 503),
    (errors.StoreUnavailable, 503),
    (errors.BytesMissing, 503),
    (errors.TwinlensError, 500),
)

_HTTP_CODES = {
    400: ("malformed_request", "The request cannot be read."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not accept that method."),
    413: ("upload_too_large", "The request's body is larger than this server accepts."),
}


def status_of(error: errors.TwinlensError) -> int:
    return status_of_class(type(error))


def status_of_class(error: type[errors.TwinlensError]) -> int:
    return next(status for family, status in STATUSES if issubclass(error, family))


def answered() -> list[type[errors.TwinlensError]]:
    """The errors that a caller may read, each code once: neither what stops a start or stays inside, nor families."""
    unread = (errors.StartRefused, errors.CallerLeft, errors.BytesRemain)
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type)
        and issubclass(error, errors.TwinlensError)
        and "code" in vars(error)
        and error is not errors.TwinlensError
        and not issubclass(error, unread)
    ]


def answered_with(status: int) -> list[type[errors.TwinlensError]]:
    """Those of `answered` that become this status."""
    return [error for error in answered() if status_of_class(error) == status]


def codes() -> list[str]:
    """Every code that an answer can have: ours, and those of errors that the framework raises or nobody foresaw."""
    framework = {code for code, _ in _HTTP_CODES.values()} | {BAD_REQUEST, INTERNAL_ERROR}
    return sorted({error.code for error in answered()} | framework)


def request_id(request: Request) -> str:
    """The id that the middleware gave this request."""
    state = request.scope.setdefault("state", {})
    return str(state.setdefault("request_id", uuid.uuid4().hex))


def _problem(
    request: Request, status: int, code: str, sentence: str, headers: dict[str, str], checks: Checks | None = None
) -> Response[Problem]:
    body = Problem(error=sentence, code=code, request_id=request_id(request))
    if checks is not None:
        body = NotReadyProblem(error=body.error, code=body.code, request_id=body.request_id, checks=checks)
    request.scope["state"][CODE] = code
    # What is not there now may be there in a moment, and must not be remembered as missing.
    headers = {**headers, REQUEST_ID_HEADER: body.request_id, "Cache-Control": "no-store"}
    return Response(body, status_code=status, media_type=MediaType.JSON, headers=headers)


def raw(error: errors.TwinlensError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an error that is answered before there is a request: the log is not told."""
    body = msgspec.json.encode(Problem(error=error.sentence, code=error.code, request_id=request_id))
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    headers |= {"Retry-After": _retry_after(error)} if isinstance(error, errors.RateLimited) else {}
    return status_of(error), [(name.lower().encode(), value.encode()) for name, value in headers.items()], body


def _retry_after(error: errors.TwinlensError) -> str:
    return str(math.ceil(getattr(error, "retry_after", 1.0)))


def _ours(request: Request, error: errors.TwinlensError) -> Response[Problem]:
    status = status_of(error)
    headers = {}
    if status >= 500:
        # What failed is known by name: its sentence and its cause say all that a traceback would.
        level, how, event = logging.ERROR, "failed", "request_failed"
        if status == 503:
            level, how, event = logging.WARNING, "was refused for now", "request_refused"
        if getattr(error, "known", False):  # the log has said so already
            level = logging.DEBUG
        _log.log(
            level,
            "%s %r %s (%d %s): %s",
            request.method,
            request.url.path,
            how,
            status,
            error.code,
            error.line,
            extra={"fields": {"event": event, "status": status, "code": error.code}},
        )
    if status in (429, 503) or isinstance(error, errors.IdempotencyKeyInUse):
        headers["Retry-After"] = _retry_after(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.UnsupportedEncoding):
        headers["Accept-Encoding"] = GZIP
    checks = Checks.of(error.checks) if isinstance(error, errors.Unready) else None
    return _problem(request, status, error.code, error.sentence, headers, checks)


async def answer(error: errors.TwinlensError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with this error where Litestar's own handling does not reach: around the whole app."""
    request: Request = Request(scope, receive, send)
    await _ours(request, error).to_asgi_response(app=None, request=request)(scope, receive, send)


def _framework(request: Request, error: HTTPException) -> Response[Problem]:
    """Errors that Litestar raises itself: no route, wrong method, body too large, a parameter that is wrong."""
    headers = dict(error.headers or {})
    if isinstance(error, ValidationException):
        return _problem(request, 422, "bad_parameter", _said(error), headers)
    if error.status_code >= 500:
        return _unforeseen(request, error)
    code, sentence = _HTTP_CODES.get(error.status_code, (BAD_REQUEST, str(error.detail)))
    if error.detail == "Invalid host header":
        sentence = "The header Host is not one that a server can have."
    return _problem(request, error.status_code, code, sentence, headers)


def _said(error: ValidationException) -> str:
    """Which parameter is wrong, and how; Litestar's own sentence only names the address."""
    parts = error.extra if isinstance(error.extra, list) else []
    said = [
        f"{one['key']}: {_begun_small(str(one['message']).replace('`', ''))}"
        for one in parts
        if {"key", "message"} <= one.keys()
    ]
    return f"{'; '.join(said)}." if said else str(error.detail)


def _begun_small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _unforeseen(request: Request, error: Exception) -> Response[Problem]:
    fields = {"event": "request_failed", "status": 500, "code": INTERNAL_ERROR}
    _log.error("%s %r failed", request.method, request.url.path, exc_info=error, extra={"fields": fields})
    sentence = "Something went wrong on our side; it has been logged with this request's id."
    return _problem(request, 500, INTERNAL_ERROR, sentence, {})


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    errors.TwinlensError: _ours,
    HTTPException: _framework,
    Exception: _unforeseen,
}
