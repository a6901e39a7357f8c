"""Captioned pictures of the user's own, by which the grade of words is chosen.

A file of two columns, as CSV with the heading `picture,text` or as JSON Lines with these names: where each picture is,
relative to the file, and what it shows, in words that somebody might search for. A picture may have several captions,
and a caption several pictures.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportRefused
from server.artifact.artifact import PreprocessingSpec, Tokens
from server.errors import MediaRejected, TextRejected
from server.preprocessing.media import read_pixels
from server.preprocessing.text import Tokenizer
from server.settings import MAX_PIXELS

FEWEST = 50
"""Of pictures, and of different texts: 2,450 wrong pairs, of which a dozen may reach the threshold."""

MOST = 2000
"""Of lines: four million pairs. Of more, so many are used, evenly spread."""

_LARGEST = 100_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Caption:
    """A line of the file."""

    picture: Path
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Captioned:
    """Pictures and texts, and which belong to each other."""

    pixels: Sequence[NDArray[np.uint8]]
    """uint8[S, S, 3] of each picture, as served; the same bytes are one picture."""
    tokens: Sequence[Tokens]
    """Of each text; texts that differ in case or blanks alone are one."""
    own: NDArray[np.bool_]
    """bool[texts, pictures]: whether the text is a caption of the picture."""


def read_captions(path: Path) -> list[Caption]:
    """The lines of a file, at most MOST. Raises ExportRefused, which names the line."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ExportRefused(
                f"{path} has more than {_LARGEST // 1_000_000} MB: --captions needs a few thousand lines."
            )
        content = path.read_text("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ExportRefused(f"{path} is not in UTF-8, as the file of --captions must be.") from exc
    except OSError as exc:
        raise ExportRefused(f"The file of --captions cannot be read: {path}: {exc.strerror or exc}.") from exc
    rows = _json_lines(path, content) if content.lstrip().startswith("{") else _csv(path, content)
    found = []
    for line, row in rows:
        picture, text = row.get("picture"), row.get("text")
        if not (isinstance(picture, str) and picture.strip() and isinstance(text, str) and text.strip()):
            raise ExportRefused(f"{path}, line {line}: a caption has a picture, a path, and a text.")
        found.append(Caption(path.parent / picture.strip(), text.strip(), line))
    step = max(1.0, len(found) / MOST)
    return [found[int(at * step)] for at in range(min(len(found), MOST))]


def _json_lines(path: Path, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise ExportRefused(f"{path}, line {number}: it is no JSON that can be read: {exc}.") from exc
        yield number, row if isinstance(row, dict) else {}


def _csv(path: Path, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(content.splitlines(keepends=True))
    if not {"picture", "text"} <= set(reader.fieldnames or ()):
        raise ExportRefused(f"{path} has neither the heading picture,text of CSV nor objects of JSON Lines.")
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as exc:
        raise ExportRefused(f"{path}, line {reader.line_num}: {exc}.") from exc


def captioned(captions: Sequence[Caption], spec: PreprocessingSpec, tokenizer: Tokenizer) -> Captioned:
    """The captions' pictures as the server reads them, and their texts as it tokenises them.

    Raises ExportRefused for a picture or a text that it would refuse, and for fewer than FEWEST of either.
    """
    pixels: dict[str, NDArray[np.uint8]] = {}
    tokens: dict[str, Tokens] = {}
    pairs: list[tuple[str, str]] = []
    for one in captions:
        text = " ".join(one.text.casefold().split())
        try:
            data = one.picture.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if digest not in pixels:
                pixels[digest] = read_pixels(data, spec, max_pixels=MAX_PIXELS)
            if text not in tokens:
                tokens[text] = tokenizer.tokens(one.text)
        except OSError as exc:
            raise ExportRefused(f"--captions, line {one.line}: {one.picture}: {exc.strerror or exc}.") from exc
        except (MediaRejected, TextRejected) as exc:
            raise ExportRefused(f"--captions, line {one.line}: {exc.sentence}") from exc
        pairs.append((text, digest))
    if min(len(pixels), len(tokens)) < FEWEST:
        raise ExportRefused(
            f"--captions has {len(pixels)} pictures and {len(tokens)} texts: with fewer than {FEWEST} of either there "
            "are too few wrong pairs to choose a grade by."
        )
    rows, columns = ({key: place for place, key in enumerate(of)} for of in (tokens, pixels))
    own = np.zeros((len(tokens), len(pixels)), bool)
    for text, digest in pairs:
        own[rows[text], columns[digest]] = True
    return Captioned(list(pixels.values()), list(tokens.values()), own)
