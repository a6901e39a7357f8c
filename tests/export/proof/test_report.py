"""The report: one page that needs nothing else, the same for the same figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.proof.decoding import compare_vectors, decode_twice, scaled_by_default
from export.proof.gate import Measured
from export.proof.parity import GatePicture, gate_pictures
from export.proof.report import render
from server.artifact.artifact import Artifact, Manifest
from tests import ROOT, STARTER
from tests.support.vectors import directions, turned

SPACE = "ab" * 32
TEXTS = (
    "red shoe",
    "",
    "  ",
    "<script>alert(1)</script>",
    'quote " and & amp',
    "\x1b[31m\x00\r\n",
    "حذاء أحمر",
    "x" * 400,
)


@pytest.fixture(scope="module")
def pictures() -> list[GatePicture]:
    spec = scaled_by_default(Artifact.read(STARTER).spec)
    return gate_pictures(spec)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    whole = Artifact.read(STARTER).manifest
    fp32 = whole.precisions["fp32"]
    return msgspec.structs.replace(
        whole,
        preprocessing=scaled_by_default(whole.preprocessing),
        precisions={
            "fp32": msgspec.structs.replace(fp32, text="text.fp32.onnx"),
            "int8": msgspec.structs.replace(fp32, space=SPACE, min_cosine=0.9, text="text.fp32.onnx"),
        },
    )


def images(pictures: Sequence[GatePicture]) -> dict[str, dict[str, Measured]]:
    names = [picture.name for picture in pictures]
    references = directions(len(names))
    drifted = turned(turned(references, 4, 9, 0.91), 7, 8, 0.3)
    return {
        "fp32": {"cpu": Measured(names, references, references.astype(np.float32), True)},
        "int8": {"cpu": Measured(names, references, drifted, True)},
    }


def texts() -> dict[str, dict[str, Measured]]:
    references = directions(len(TEXTS))
    return {
        "fp32": {"cpu": Measured(TEXTS, references, references.astype(np.float32), True)},
        "int8": {"cpu": Measured(TEXTS, references, turned(references, 3, 1, 0.8), True)},
    }


@pytest.fixture(scope="module")
def page(manifest: Manifest, pictures: Sequence[GatePicture]) -> str:
    twice = decode_twice(((one.name, one.data) for one in pictures), manifest.preprocessing)
    decoding = (twice, compare_vectors(twice, lambda pixels: pixels[:, ::16, ::16].reshape(len(pixels), -1) + 1.0))
    return render(manifest, images(pictures), pictures, texts=texts(), decoding=decoding)


class Elements(HTMLParser):
    """Which elements were opened and not closed, and with which attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "circle", "line", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    assert elements.tags.isdisjoint({"script", "link", "iframe", "img", "object"})
    assert not any(name in ("src", "href") or name.startswith("on") for name, _ in elements.attributes)
    assert "http" not in page
    assert set(re.findall(r"url\((\w+:[\w/]+)", page)) == {"data:image/webp"}
    assert len(page.encode()) < 1_500_000


def test_the_page_tells_the_verdicts_and_what_they_rest_on(page: str) -> None:
    assert "✓ shares the space" in page
    assert "◆ a space of its own" in page
    assert "left out: another reads" in page
    assert "0.300000" in page
    assert re.search(r'class="bad">\d+ others? nearer than itself', page)


def test_the_worst_pictures_come_first_with_their_neighbours(page: str, pictures: Sequence[GatePicture]) -> None:
    shown = re.findall(r"<p><strong>(.+?)</strong></p>", page)
    # Of fp32 nothing drifted, and no picture is shown for it.
    assert shown == [pictures[7].name, pictures[4].name]
    assert "No picture drifted farther than a millionth." in page
    assert page.count("nearest others, reference") == 2
    assert ", not among those of the other row" in page


def test_every_dot_has_its_picture(page: str, pictures: Sequence[GatePicture]) -> None:
    for picture in pictures:
        assert page.count(f"<title>{picture.name}: cosine") >= 2, picture.name


def test_each_thumbnail_is_in_the_page_once(page: str) -> None:
    defined = re.findall(r"^\.(t\d+) \{", page, re.MULTILINE)
    used = set(re.findall(r'class="t (?:s )?(t\d+)', page))
    assert len(defined) == len(set(defined))
    assert used == set(defined)


def test_texts_cannot_break_out_of_the_page(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)
    assert "(nothing)" in page
    assert "(400 characters)" in page


def test_the_page_holds_nothing_of_this_machine_and_is_the_same_again(
    manifest: Manifest, pictures: Sequence[GatePicture]
) -> None:
    once, again = (render(manifest, images(pictures), pictures) for _ in range(2))
    assert once == again
    assert str(ROOT) not in once
    assert str(Path.home()) not in once
    assert not re.search(r"\b20[2-9]\d-\d\d", once)


def test_an_artifact_without_words_says_why(manifest: Manifest, pictures: Sequence[GatePicture]) -> None:
    why = "The checkpoint has no tokenizer."
    page = render(manifest, images(pictures), pictures, without_text=why)
    assert f"Without words: {why}" in page
    assert "Drift per text" not in page


def test_what_is_not_a_number_is_drawn_as_the_worst(manifest: Manifest, pictures: Sequence[GatePicture]) -> None:
    measured = images(pictures)
    found = measured["int8"]["cpu"].found.copy()
    found[5] = np.nan
    page = render(
        manifest,
        {"int8": {"cpu": Measured(measured["int8"]["cpu"].names, directions(len(found)), found, True)}},
        pictures,
    )
    assert re.findall(r"<p><strong>(.+?)</strong></p>", page)[0] == pictures[5].name
    assert 'cx="nan"' not in page
    assert 'cy="nan"' not in page


def test_a_precision_that_was_not_published_is_told_as_such(
    manifest: Manifest, pictures: Sequence[GatePicture]
) -> None:
    measured = images(pictures)
    page = render(manifest, {**measured, "fp16": measured["int8"]}, pictures)
    assert "not published" in page
