"""Many pictures at once: what is uploaded, what came of it, and what is done already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from twinlens.calls import adding
from twinlens.errors import AnswerUnreadable, ConnectionFailed, Forbidden, TwinlensError, Unauthorized
from twinlens.journal import Journal, mark_of
from twinlens.options import Options
from twinlens.pictures import bytes_of
from twinlens.steps import Task
from twinlens.wire import Media

if TYPE_CHECKING:
    from twinlens.pictures import Picture

CONCURRENCY = 4
"""Uploads at a time, by default: enough to keep a server of a few cores busy."""

HOPELESS = (AnswerUnreadable, ConnectionFailed, Forbidden, Unauthorized)
"""What would befall every other upload as well, so that there is no use in trying them."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture for a product that is there."""

    product_id: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What came of an upload."""

    upload: Upload
    outcome: Literal["added", "there", "skipped", "failed"]
    """`there`: the product had the very same bytes already. `skipped`: a journal says that it was uploaded."""
    media: Media | None = None
    """Where it was added or there."""
    error: Exception | None = None
    """Where it failed: a TwinlensError, or what `twinlens.pictures.bytes_of` raises."""


@dataclass(slots=True)
class UploadReport:
    """What came of many uploads, so far or in all."""

    total: int | None = None
    """How many there are, where that is known beforehand."""
    added: int = 0
    there: int = 0
    skipped: int = 0
    failures: list[Uploaded] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.added + self.there + self.skipped + len(self.failures)

    def note(self, one: Uploaded) -> None:
        if one.outcome == "failed":
            self.failures.append(one)
        else:
            setattr(self, one.outcome, getattr(self, one.outcome) + 1)


Progress = Callable[[Uploaded, UploadReport], None]
"""Called after each upload, with what came of it and of all so far; by the thread or task that called `upload_many`."""


class Uploads:
    """The uploads of one call of `upload_many`."""

    def __init__(
        self,
        uploads: Iterable[Upload],
        options: Options,
        resume: str | os.PathLike[str] | None,
        progress: Progress | None,
    ) -> None:
        """Raises ValueError where `resume` is the journal of another server or client, or none at all; OSError."""
        self.report = UploadReport(total=len(uploads) if isinstance(uploads, Sized) else None)
        self._uploads = uploads
        self._journal = Journal(resume, options.identity)
        self._progress = progress

    def tasks(self) -> Iterator[Task[Uploaded]]:
        return (upload(one, self._journal) for one in self._uploads)

    def note(self, one: Uploaded) -> None:
        self.report.note(one)
        if self._progress is not None:
            self._progress(one, self.report)

    def finish(self) -> UploadReport:
        """All were tried. Where none failed, the journal has no more use."""
        if not self.report.failures:
            self._journal.remove()
        return self.report

    def close(self) -> None:
        self._journal.__exit__()


def upload(one: Upload, journal: Journal) -> Task[Uploaded]:
    """One upload. Raises one of `HOPELESS`, and OSError where the journal cannot be written."""
    try:
        data = bytes_of(one.picture)
        mark = mark_of(one.product_id, data)
        if mark in journal:
            return Uploaded(one, "skipped")
        media, added = yield adding(one.product_id, data)
    except HOPELESS:
        raise
    except (TwinlensError, OSError, TypeError, ValueError) as exc:
        return Uploaded(one, "failed", error=exc)
    journal.add(mark)
    return Uploaded(one, "added" if added else "there", media)
