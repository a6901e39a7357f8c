"""What can go wrong, in our words.

One base, a few families. The docstring of a class is the sentence a caller may read when the raiser gives none;
`code` is the snake_case word beside it. Details beyond the sentence are attributes. `problems.py` alone knows which
HTTP status each error becomes.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

# Characters: what an object store says of a failure may be a page.
_LONGEST_CAUSE = 300


class TwinlensError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or inspect.getdoc(type(self)) or "Something went wrong.")

    @property
    def sentence(self) -> str:
        return str(self.args[0])

    @property
    def line(self) -> str:
        """The sentence and what it was raised from, on one line: for the log, which needs no traceback then."""
        causes, cause = [self.sentence], self.__cause__
        while cause is not None and (text := " ".join(str(cause).split())):
            causes.append(f"{type(cause).__name__}: {text[:_LONGEST_CAUSE]}")
            cause = cause.__cause__
        return " Cause: ".join("".join(one if one.isprintable() else "?" for one in text) for text in causes)


@contextmanager
def first_of_ours() -> Iterator[None]:
    """Raises the first error of ours in place of a group of errors, such as a TaskGroup raises. Others pass as they
    are."""
    try:
        yield
    except ExceptionGroup as exc:
        if (ours := exc.subgroup(TwinlensError)) is None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__ or exc


# --- media: the bytes of an upload are not a picture that we can use ------------------------------------------------


class MediaRejected(TwinlensError):
    """The upload cannot be used as a picture."""

    code = "picture_rejected"


class NoPicture(MediaRejected):
    """No picture was sent: the upload is empty or missing."""

    code = "no_picture"


class NotAPicture(MediaRejected):
    """The upload is not a picture in a format we read: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC."""

    code = "not_a_picture"


class UnreadablePicture(MediaRejected):
    """The picture is damaged or cut short and cannot be decoded."""

    code = "unreadable_picture"


class UnsupportedPicture(MediaRejected):
    """The picture is sound, but of a kind of its format that is not read here."""

    code = "unsupported_picture"


class PictureTooLarge(MediaRejected):
    """The picture has more pixels than this server accepts."""

    code = "picture_too_large"

    def __init__(self, width: int, height: int, most: int) -> None:
        super().__init__(f"The picture is {width} x {height} pixels; this server accepts at most {most:,} in all.")
        self.width, self.height, self.most = width, height, most


class UploadTooLarge(MediaRejected):
    """The upload is larger than this server accepts."""

    code = "upload_too_large"


# --- request: the parameters do not make sense ---------------------------------------------------------------------


class BadParameter(TwinlensError):
    """A parameter of the request has a value that makes no sense."""

    code = "bad_parameter"


class NoTextTower(BadParameter):
    """This model has no text tower: it can search by picture only."""

    code = "no_text_tower"


class TextRejected(BadParameter):
    """The text cannot be read by this model."""

    code = "text_rejected"


class NoText(TextRejected):
    """There are no words to search with: the text is empty or all white space."""

    code = "no_text"


class TextTooLong(TextRejected):
    """The text is longer than this server reads."""

    code = "text_too_long"

    def __init__(self, characters: int, most: int) -> None:
        super().__init__(f"The text has {characters:,} characters; this server reads at most {most:,}.")
        self.characters, self.most = characters, most


class UrlRefused(BadParameter):
    """This server fetches no picture from this URL."""

    code = "url_refused"


class IdempotencyKeyReused(BadParameter):
    """This Idempotency-Key came with another request in the last 24 hours: give each request a key of its own."""

    code = "idempotency_key_reused"


class MalformedRequest(TwinlensError):
    """The body of the request cannot be read."""

    code = "malformed_request"


class UnsupportedBody(TwinlensError):
    """This call does not read bodies of the request's Content-Type."""

    code = "unsupported_body"


class UnsupportedEncoding(UnsupportedBody):
    """The body is compressed in a way that is not read here."""

    code = "unsupported_encoding"


# --- fetching: a picture was to come from a URL ---------------------------------------------------------------------


class FetchFailed(TwinlensError):
    """The picture could not be fetched from its URL."""

    code = "fetch_failed"

    def __init__(self, sentence: str | None = None, *, temporary: bool = True) -> None:
        """`temporary`: whether another try may well succeed."""
        super().__init__(sentence)
        self.temporary = temporary


# --- access: who calls, and what they may -----------------------------------------------------------------------------


class ClientRequired(BadParameter):
    """This key is every client's: name the client that the request is about, as clientId."""

    code = "client_required"


class KeyRefused(TwinlensError):
    """The request has no key that is good here."""


class KeyMissing(KeyRefused):
    """A key is needed here: send it as Authorization: Bearer KEY, or as X-API-Key."""

    code = "key_missing"


class KeyInvalid(KeyRefused):
    """The key is unknown, revoked or expired."""

    code = "key_invalid"


class SignatureInvalid(KeyRefused):
    """The signature of this address is wrong."""

    code = "signature_invalid"


class Forbidden(TwinlensError):
    """The caller may not do this."""


class ScopeMissing(Forbidden):
    """The key does not allow this."""

    code = "scope_missing"

    def __init__(self, *scopes: str) -> None:
        """`scopes`: any one of them would do."""
        super().__init__(f"The key does not allow this: it needs the scope {' or '.join(scopes)}.")
        self.scopes = scopes


class SearchesOnly(ScopeMissing):
    """This is a search key, which only searches, and reads thumbnails and regions."""

    def __init__(self) -> None:
        super(ScopeMissing, self).__init__()
        self.scopes = ()


class FieldHidden(ScopeMissing):
    """The search key does not show this field of products."""

    def __init__(self, field: str) -> None:
        super(ScopeMissing, self).__init__(
            f"The search key does not show {field[:120]}: whoever derives the key says so, in its fields."
        )
        self.scopes = ()


class ClientMismatch(Forbidden):
    """The key belongs to another client than the clientId of the request."""

    code = "client_mismatch"


class OriginRefused(Forbidden):
    """The page that this request comes from may not send it."""

    code = "origin_refused"


class HostRefused(Forbidden):
    """Without keys this server answers only to the names localhost, 127.0.0.1 and [::1]."""

    code = "host_refused"


class RateLimited(TwinlensError):
    """There were too many requests; please wait before the next one."""

    code = "rate_limited"

    def __init__(self, sentence: str | None = None, *, retry_after: float = 1.0) -> None:
        """`retry_after`: seconds after which the request would be answered."""
        super().__init__(sentence)
        self.retry_after = retry_after


# --- catalogue: the request makes sense but does not fit what the catalogue holds -----------------------------------


class NotFound(TwinlensError):
    """There is nothing here by that name."""

    code = "not_found"


class ProductNotFound(NotFound):
    """There is no such product in this client's catalogue."""

    code = "product_not_found"


class MediaNotFound(NotFound):
    """There is no such media in this client's catalogue."""

    code = "media_not_found"


class CatalogueConflict(TwinlensError):
    """The request does not fit what the catalogue holds."""

    code = "conflict"


class SkuTaken(CatalogueConflict):
    """Another product of this client has this SKU."""

    code = "sku_taken"


class PreconditionFailed(TwinlensError):
    """The product is not what the request expects (If-Match, If-None-Match): read it again, and decide anew."""

    code = "precondition_failed"


class PictureTaken(CatalogueConflict):
    """Another media of this product has these bytes."""

    code = "picture_taken"


class IdempotencyKeyInUse(CatalogueConflict):
    """The first request with this Idempotency-Key is under way: ask again for its answer."""

    code = "idempotency_key_in_use"
    retry_after = 1.0


class SpaceMismatch(CatalogueConflict):
    """The vector belongs to another embedding space than the one searched here."""

    code = "space_mismatch"

    def __init__(self, given: str, expected: str) -> None:
        super().__init__(
            f"The vector is of the embedding space {given}, but this server searches {expected}: "
            "vectors of different spaces cannot be compared."
        )
        self.given, self.expected = given, expected


class VectorRefused(TwinlensError):
    """The vector is not one that can be searched or stored: it must be finite and of unit length."""

    code = "bad_vector"


class CatalogueUnavailable(TwinlensError):
    """The database cannot be reached at the moment; please try again shortly."""

    code = "database_unavailable"
    retry_after = 1.0


class CatalogueBusy(CatalogueUnavailable):
    """Another transaction holds what this request needs; nothing was changed, please try again shortly."""

    code = "database_busy"


class CatalogueReadOnly(CatalogueUnavailable):
    """The database accepts no changes at the moment; nothing was changed, please try again shortly."""

    code = "database_read_only"


class OutcomeUnknown(CatalogueUnavailable):
    """The connection to the database broke while it was writing; please ask again whether the change was made."""

    code = "outcome_unknown"


class CatalogueFailed(TwinlensError):
    """The database could not do this; the fault is ours and has been logged."""

    code = "database_failed"


# --- overload -------------------------------------------------------------------------------------------------------


class Overloaded(TwinlensError):
    """The server has more work than it can answer in time; please try again shortly."""

    code = "overloaded"

    def __init__(self, sentence: str | None = None, *, retry_after: float = 1.0) -> None:
        """`retry_after`: seconds after which another try is likely to succeed."""
        super().__init__(sentence)
        self.retry_after = retry_after


class DeadlineMissed(Overloaded):
    """The answer could not be given within the request's deadline; please try again shortly."""

    code = "deadline_missed"


class CallerLeft(TwinlensError):
    """The caller closed the connection before the answer was there."""

    code = "caller_left"


# --- our own faults -------------------------------------------------------------------------------------------------


class NotReady(TwinlensError):
    """The server is not ready to answer."""

    code = "not_ready"
    retry_after: float = 1.0


class KeysUnknown(NotReady):
    """Whether keys are good cannot be asked at the moment; please try again shortly."""

    code = "keys_unknown"


class SpaceDropped(NotReady):
    """The embedding space of this server has been dropped from the database: start it with the live space's model."""

    code = "space_dropped"


class Unready(NotReady):
    """The server is not ready to answer."""

    def __init__(self, checks: Mapping[str, TwinlensError | None]) -> None:
        """`checks`: what was looked at, and what is wrong with it; at least one is wrong, and the first one counts."""
        wrong = [error for error in checks.values() if error is not None]
        super().__init__(wrong[0].sentence)
        self.checks = checks
        self.code = wrong[0].code
        self.retry_after = float(getattr(wrong[0], "retry_after", self.retry_after))
        self.known = all(getattr(error, "known", False) for error in wrong)

    @property
    def line(self) -> str:
        return " ".join(error.line for error in self.checks.values() if error is not None)


class Unhealthy(NotReady):
    """Something that this server needs is not as it should be."""

    known = True
    """Whoever finds it logs it; each look at the health need not."""


class DiskFull(Unhealthy):
    """A disk of this server is full: pictures and changes cannot be stored."""

    code = "disk_full"


class ModelStuck(Unhealthy):
    """The model has not finished a batch for longer than a request may take."""

    code = "model_stuck"


class ModelFailing(Unhealthy):
    """The model fails, also on a picture or text that it has encoded before."""

    code = "model_failing"


class EncoderFailed(TwinlensError):
    """The model failed on this picture or text; the fault is ours and has been logged."""

    code = "encoder_failed"


class StorageFailed(TwinlensError):
    """The picture's bytes could not be read from or written to the media store; the fault is ours."""

    code = "storage_failed"

    def __init__(self, sentence: str | None = None, *, reason: str = "") -> None:
        """`reason`: what the store said, for the log."""
        super().__init__(sentence)
        self.reason = reason

    @property
    def line(self) -> str:
        return f"{self.sentence} ({self.reason})" if self.reason else self.sentence


class StoreUnavailable(StorageFailed):
    """The store of pictures cannot be used at the moment; please try again shortly."""

    code = "storage_unavailable"
    retry_after = 5.0

    def __init__(self, sentence: str | None = None, *, reason: str = "", known: bool = False) -> None:
        """`known`: the log has it already, and need not repeat it for each request that is refused."""
        super().__init__(sentence, reason=reason)
        self.known = known


class BytesMissing(StorageFailed):
    """The bytes of this picture are not in the media store, although the catalogue has the picture."""

    code = "bytes_missing"
    retry_after = 60.0


class BytesRemain(StorageFailed):
    """Some objects could not be deleted from the media store."""

    code = "bytes_remain"

    def __init__(self, keys: Sequence[str] = (), *, reason: str = "") -> None:
        """`keys`: of the objects that remain."""
        super().__init__(f"These could not be deleted from the media store: {', '.join(keys)}.", reason=reason)
        self.keys = tuple(keys)


# --- what stops a start ---------------------------------------------------------------------------------------------


class StartRefused(TwinlensError):
    """The server cannot start."""

    code = "start_refused"


class FolderInUse(StartRefused):
    """Another Twinlens is running with this data folder: stop it first."""

    code = "folder_in_use"


class AddressRefused(StartRefused):
    """The server cannot listen at this address."""

    code = "address_refused"


class WorkerEnded(StartRefused):
    """A worker process ended before it was ready."""

    code = "worker_ended"


class BadSetting(StartRefused):
    """A setting has a value that makes no sense."""

    code = "bad_setting"


class ArtifactInvalid(StartRefused):
    """The model artifact is incomplete, or gives other results on this machine than where it was exported."""

    code = "artifact_invalid"


class DatabaseUnusable(StartRefused):
    """The database cannot be used."""

    code = "database_unusable"


class StoreRefused(StartRefused):
    """The store of pictures cannot be used with this database."""

    code = "store_refused"


class SweepRefused(StartRefused):
    """A sweep of the store would remove more than seems right."""

    code = "sweep_refused"


class IngestRefused(StartRefused):
    """The feed cannot be brought in."""

    code = "ingest_refused"


class BackupRefused(StartRefused):
    """The backup cannot be made, or cannot be restored."""

    code = "backup_refused"


class DumpRefused(StartRefused):
    """The dump cannot be made, or cannot be loaded."""

    code = "dump_refused"


class ExtraMissing(StartRefused):
    """A package that this needs is not installed."""

    code = "extra_missing"

    def __init__(self, module: str, extra: str) -> None:
        """`extra`: of the package twinlens, with which it comes."""
        super().__init__(
            f"This needs {module}, which is not installed. It comes with the extra {extra} of twinlens; in the "
            f"checkout: python -m pip install --constraint constraints.txt --editable '.[{extra}]'"
        )
        self.module, self.extra = module, extra


class FeedUnreadable(StartRefused):
    """The feed cannot be read."""

    code = "feed_unreadable"


class SessionNeeded(DatabaseUnusable):
    """This needs one session of PostgreSQL throughout, which a pooler of transactions does not give."""

    code = "session_needed"

    def __init__(self, what: str) -> None:
        """`what`: what needs the session, as the beginning of a sentence."""
        super().__init__(
            f"{what} one session of PostgreSQL throughout, and the pooler in front of the database gives each "
            "transaction another one. Give the URL that leads to PostgreSQL itself as TWINLENS_DIRECT_DATABASE_URL, "
            "beside TWINLENS_DATABASE_URL; or say TWINLENS_POOLING=session, if the pooler keeps sessions after all."
        )


class DatabaseUnfit(DatabaseUnusable):
    """The database answers, and is not one that Twinlens can work with as it is: waiting does not change that."""


class SpaceNotLive(StartRefused):
    """The artifact's embedding space is not the one that the database holds."""

    code = "space_not_live"

    def __init__(self, artifact: str, live: str, path: str = "DIR") -> None:
        """`path`: the artifact's folder."""
        super().__init__(
            f"The artifact makes vectors of the embedding space {artifact}, but the live space of this database is "
            f"{live}. Vectors of different spaces cannot be compared, so nothing was started. Embed the catalogue with "
            "this artifact, while other servers go on, and switch to it: python -m server reembed --artifact "
            f"{shlex.quote(path)} - or start with the artifact of the live space, or keep the new one's catalogue "
            "apart by giving another TWINLENS_DATA (or TWINLENS_DATABASE_URL)."
        )
        self.artifact, self.live = artifact, live


class SpaceRefused(StartRefused):
    """This cannot be done to the embedding space in its present state."""

    code = "space_refused"


class SpaceIncomplete(SpaceRefused):
    """The embedding space lacks vectors of pictures that searches must find."""

    code = "space_incomplete"


class ReembeddingStopped(StartRefused):
    """The re-embedding had to stop; its vectors so far are kept, and running it again continues from there."""

    code = "reembedding_stopped"
