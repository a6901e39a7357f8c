"""What a shop has on this machine: a folder of pictures, or a table of products, as rows.

The columns mean what they mean to the server's own `ingest`, which reads more kinds of source and needs the database.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EXTENSIONS = frozenset(
    f".{one}"
    for one in "jpg jpeg jpe jfif png webp gif bmp dib tif tiff avif heic heif".split()  # noqa: SIM905 - to be read
)
"""Of the files of a folder that are taken for pictures."""

COLUMNS = ("productId", "name", "sku", "file", "url", "isActive", "attributes")
"""Those of a table that are no attributes."""

_SQUEEZED = {one.lower(): one for one in COLUMNS}
_NOT_HERE = frozenset({"clientid", "s3key"})
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_LARGEST_CELL = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """A product, and at most one picture of it. What is None is not said, and stays as it is where the product exists.

    Several rows of a product name several pictures of it.
    """

    number: int
    """The line where the row begins, from 1; in a folder the place of the picture."""
    product_id: str
    name: str | None = None
    sku: str | None = None
    is_active: bool | None = None
    attributes: Mapping[str, Any] | None = None
    picture: Path | None = None
    url: str | None = None
    """Of a picture that the server fetches."""

    @property
    def says(self) -> dict[str, Any]:
        """What it says of its product, as a merge patch."""
        values = {"name": self.name, "sku": self.sku, "isActive": self.is_active, "attributes": self.attributes}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def where(self) -> str:
        """Where its picture is, for people; empty where it has none."""
        return str(self.picture or self.url or "")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that is no row, and why, in a sentence."""

    number: int
    reason: str


class FeedUnreadable(ValueError):
    """The source as a whole cannot be read; its text is a sentence."""


class Feed(Protocol):
    """Rows, one after the other. They can be read more than once."""

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable."""
        ...


def feed_of(source: Path) -> Feed:
    """The rows of a folder or a table. Raises FeedUnreadable."""
    if source.is_dir():
        return Folder(source)
    if not source.exists():
        raise FeedUnreadable(f"There is no folder and no file {source}.")
    if source.suffix.lower() in (".csv", ".tsv", ".txt"):
        return Table(source)
    raise FeedUnreadable(f"{source} is neither a folder nor a table (.csv or .tsv).")


def agreed(rows: Iterable[Row | Wrong]) -> Iterator[Row | Wrong]:
    """The rows, where one that contradicts an earlier one of the same product is wrong."""
    seen: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        if isinstance(row, Wrong):
            yield row
            continue
        # Of what is said, 64 bits and the line: a table of a million products still fits into memory.
        says = {name: (hash(json.dumps(value, sort_keys=True)), row.number) for name, value in row.says.items()}
        said = seen.setdefault(row.product_id, {})
        differs = [name for name, (what, _) in says.items() if said.get(name, (what, 0))[0] != what]
        if differs:
            at = said[differs[0]][1]
            yield Wrong(row.number, f"It says another {differs[0]} than line {at} of the same product.")
            continue
        seen[row.product_id] = {**says, **said}
        yield row


class Folder:
    """The pictures below a folder: each belongs to the product that the first folder on the way to it is named after,
    or the picture itself where it lies in no other folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Iterator[Row | Wrong]:
        """In the order of their paths. Hidden files, and those whose names do not end as pictures' do, are left out."""
        number = 0
        try:
            for path in _files(self._folder):
                number += 1
                inner = path.relative_to(self._folder)
                yield Row(number, inner.parts[0] if len(inner.parts) > 1 else inner.stem, picture=path)
        except OSError as exc:
            raise FeedUnreadable(f"{exc.filename} cannot be read: {exc.strerror}.") from exc


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _LITTER:
            continue
        if path.is_dir():
            if not path.is_symlink():  # which may lead back up
                yield from _files(path)
        elif path.suffix.lower() in EXTENSIONS:
            yield path


class Table:
    """A CSV or TSV file in UTF-8, whose first line names the columns: `productId` at least. A column of any other name
    than ours is an attribute of that name, a text. Files are relative to the table. An empty cell says nothing."""

    def __init__(self, path: Path) -> None:
        """Raises FeedUnreadable where the heading makes no sense."""
        self._path = path
        csv.field_size_limit(_LARGEST_CELL)
        with self._opened() as file:
            try:
                first = file.readline(_LARGEST_CELL)
            except UnicodeDecodeError as exc:
                raise self._not_utf8() from exc
        self._delimiter = max(",;\t|", key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
        self._names = self._named(next(csv.reader([first], delimiter=self._delimiter), []))

    def _opened(self) -> Any:
        try:
            return self._path.open(encoding="utf-8-sig", newline="")
        except OSError as exc:
            raise FeedUnreadable(f"{self._path} cannot be read: {exc.strerror}.") from exc

    def _not_utf8(self) -> FeedUnreadable:
        return FeedUnreadable(f"{self._path} is not text in UTF-8; save it as such.")

    def _named(self, heading: Sequence[str]) -> list[str]:
        squeezed = [one.strip().lower().replace(" ", "").replace("_", "").replace("-", "") for one in heading]
        names = [_SQUEEZED.get(key, one.strip()) for key, one in zip(squeezed, heading, strict=True)]
        if "productId" not in names:
            raise FeedUnreadable(
                f"{self._path} has no column productId. Its first line is: {', '.join(names) or '(empty)'}."
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise FeedUnreadable(f"{self._path} has several columns {twice[0] or 'without a name'}.")
        if others := sorted(_NOT_HERE & {*squeezed}):
            raise FeedUnreadable(
                f"{self._path} has a column {others[0]}, which only the server's own ingest reads: remove it."
            )
        return names

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable."""
        with self._opened() as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            end = 0
            try:
                next(reader)
                while True:
                    number, end = reader.line_num + 1, reader.line_num
                    try:
                        cells = next(reader)
                    except StopIteration:
                        return
                    if any(cell.strip() for cell in cells):
                        yield self._row(number, cells)
            except UnicodeDecodeError as exc:
                raise self._not_utf8() from exc
            except csv.Error as exc:
                raise FeedUnreadable(f"{self._path} cannot be read from line {end + 1} on: {exc}.") from exc

    def _row(self, number: int, cells: Sequence[str]) -> Row | Wrong:
        if len(cells) != len(self._names):
            return Wrong(number, f"The row has {len(cells)} cells, and the first line {len(self._names)}.")
        said = {name: text.strip() for name, text in zip(self._names, cells, strict=True) if text.strip()}
        own = {name: said.pop(name, None) for name in COLUMNS}
        product_id, file, url = own["productId"], own["file"], own["url"]
        try:
            if product_id is None:
                raise ValueError("The row has no productId.")
            if file is not None and url is not None:
                raise ValueError("A row has one picture: as file or as url.")
            if url is not None and not url.lower().startswith(("http://", "https://")):
                raise ValueError(f"url must begin with http:// or https://, and is {url!r}.")
            return Row(
                number,
                product_id,
                name=own["name"],
                sku=own["sku"],
                is_active=_boolean(own["isActive"]),
                attributes=_attributes(own["attributes"], said),
                picture=None if file is None else self._path.parent / file,
                url=url,
            )
        except ValueError as exc:
            return Wrong(number, str(exc))


def _boolean(text: str | None) -> bool | None:
    if text is None or text.lower() in _TRUE | _FALSE:
        return None if text is None else text.lower() in _TRUE
    raise ValueError(f"isActive must be true or false (or yes, no, 1, 0), and is {text!r}.")


def _attributes(document: str | None, others: Mapping[str, str]) -> dict[str, Any] | None:
    """Those of columns of their own, and those of the column `attributes`; None where the row names none."""
    if document is None:
        return dict(others) or None
    try:
        given = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"attributes must hold a JSON object, and cannot be read: {exc}.") from exc
    if not isinstance(given, dict):
        raise ValueError('attributes must hold a JSON object, such as {"colour": "red"}.')  # noqa: TRY004  # of a cell
    if twice := sorted(given.keys() & others.keys()):
        raise ValueError(f"The attribute {twice[0]} has a column, and is in attributes as well.")
    return {**given, **others}
