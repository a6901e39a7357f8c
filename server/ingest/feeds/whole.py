"""A feed as a whole: its rows, checked one by one and with one another, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from server.errors import BadParameter
from server.ingest.feed import FileOf, Row, Wrong
from server.ingest.feeds.agreement import Agreement, agreement
from server.ingest.feeds.cells import shown
from server.ingest.feeds.folder import Looked
from server.ingest.storage import MediaStore


class Reading(Protocol):
    """The rows of a source, each checked by itself."""

    def read(self) -> Iterator[Row | Wrong]: ...


@dataclass
class Checked:
    """What a whole feed holds."""

    rows: int = 0
    """Without the wrong lines."""
    products: int = 0
    clients: int = 0
    pictures: int = 0
    """Rows that name one. A picture that two rows name counts twice."""
    wrong: int = 0
    """Lines that are no rows, with those whose file is missing."""
    missing: int = 0
    """Of these, lines whose file is not there."""
    first_wrong: list[Wrong] = field(default_factory=list)
    passed_over: int = 0
    """Files of a folder or bucket that are no pictures."""
    passed_over_such_as: tuple[str, ...] = ()


class OpenedFeed:
    """A feed whose rows have been checked one by one, and with one another.

    It can be read again and again, and lazily: nothing is kept from one reading to the next.
    """

    def __init__(self, reading: Reading, kind: str, bucket: MediaStore | None = None) -> None:
        self._reading = reading
        self.kind = kind
        """What it is read as: `folder`, `bucket`, or a format."""
        self.bucket = bucket
        """Where the pictures that are named by a key lie, if the source says so; None: in the media store."""

    @property
    def like_numbers(self) -> tuple[str, ...]:
        """Columns of texts that looked like numbers in all rows of the last reading, and that nobody said are."""
        names: tuple[str, ...] = getattr(self._reading, "like_numbers", ())
        return names

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable."""
        with agreement() as seen:
            yield from self._agreed(seen)

    def check(
        self, *, first: int = 20, files: bool = True, on_wrong: Callable[[Wrong], None] = lambda _: None
    ) -> Checked:
        """Read it all. Raises FeedUnreadable.

        `first`: how many of the wrong lines to keep; `files`: whether to look if each file is there; `on_wrong` is
        called for each wrong line.
        """
        checked = Checked()
        with agreement() as seen:
            for one in self._agreed(seen):
                if isinstance(one, Wrong):
                    wrong = one
                elif files and isinstance(picture := one.picture, FileOf) and not picture.path.is_file():
                    wrong = Wrong(one.number, f"There is no file {shown(picture.path)}.")
                    checked.missing += 1
                else:
                    checked.rows += 1
                    checked.pictures += one.picture is not None
                    continue
                checked.wrong += 1
                if len(checked.first_wrong) < first:
                    checked.first_wrong.append(wrong)
                on_wrong(wrong)
            checked.products, checked.clients = seen.products, seen.clients
        looked: Looked | None = getattr(self._reading, "looked", None)
        if looked is not None:
            checked.passed_over, checked.passed_over_such_as = looked.passed_over, looked.examples
        return checked

    def _agreed(self, seen: Agreement) -> Iterator[Row | Wrong]:
        for one in self._reading.read():
            if isinstance(one, Row):
                try:
                    seen.take(one)
                except BadParameter as exc:
                    yield Wrong(one.number, exc.sentence)
                    continue
            yield one
