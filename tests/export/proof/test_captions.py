"""Captions: read from CSV and JSON Lines, refused by their line, and paired with each picture that they are not of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.errors import ExportRefused
from export.proof.captions import FEWEST, MOST, Caption, captioned, read_captions
from server.artifact.artifact import Artifact
from server.preprocessing.text import Tokenizer
from tests import DEMO_PICTURES, ROOT

STARTER = ROOT / "models" / "starter"
PICTURES = sorted(DEMO_PICTURES.iterdir())


@pytest.fixture(scope="module")
def starter() -> Artifact:
    return Artifact.read(STARTER)


@pytest.fixture(scope="module")
def tokenizer(starter: Artifact) -> Tokenizer:
    assert starter.manifest.text is not None
    return Tokenizer.read(STARTER / starter.manifest.text.tokenizer, starter.manifest.text)


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    table, lines = tmp_path / "captions.csv", tmp_path / "captions.jsonl"
    table.write_text('\ufeffpicture,sku,text\r\na.jpg,1,"a red, shiny apple"\r\nb/c.jpg,2, two  boots \r\n', "utf-8")
    rows = [{"picture": "a.jpg", "text": "a red, shiny apple"}, {"picture": "b/c.jpg", "text": " two  boots "}]
    lines.write_text("\n\n".join(json.dumps(row) for row in rows))
    expected = [(tmp_path / "a.jpg", "a red, shiny apple"), (tmp_path / "b" / "c.jpg", "two  boots")]
    for path in (table, lines):
        assert [(one.picture, one.text) for one in read_captions(path)] == expected
    assert [one.line for one in read_captions(table)] == [2, 3]
    assert [one.line for one in read_captions(lines)] == [1, 3]


def test_of_too_many_lines_some_are_taken_evenly_spread(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("picture,text\n" + "".join(f"{number}.jpg,{number}\n" for number in range(3 * MOST)))
    found = read_captions(path)
    assert [one.text for one in found] == [str(3 * number) for number in range(MOST)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,text\na.jpg,x\n", "neither the heading picture,text"),
        ("picture,text\na.jpg,x\nb.jpg,\n", "line 3: a caption has a picture"),
        ("picture,text\n,x\n", "line 2: a caption has a picture"),
        ('{"picture": "a.jpg", "text": "x"}\n{"picture": "b.jpg"\n', "line 2: it is no JSON"),
        ('{"picture": "a.jpg", "text": 7}\n', "line 1: a caption has a picture"),
        ('{"picture": "a.jpg", "text": "x"}\n[1]\n', "line 2: a caption has a picture"),
        ("", "neither the heading picture,text"),
    ],
    ids=["heading", "no-text", "no-picture", "no-json", "number", "list", "empty"],
)
def test_a_line_that_is_no_caption_is_refused_by_its_number(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "captions"
    path.write_text(content)
    with pytest.raises(ExportRefused, match=sentence):
        read_captions(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="No such file"):
        read_captions(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("picture,text\na.jpg,größe\n".encode("latin-1"))
    with pytest.raises(ExportRefused, match="not in UTF-8"):
        read_captions(tmp_path / "latin.csv")


def test_a_text_is_every_pictures_of_which_it_is_a_caption_and_the_same_bytes_are_one_picture(
    tmp_path: Path, starter: Artifact, tokenizer: Tokenizer
) -> None:
    copy = Path(shutil.copy(PICTURES[0], tmp_path / "copy.webp"))
    captions = [Caption(path, path.stem, 0) for path in PICTURES[: FEWEST + 1]]
    more = [
        Caption(copy, "Another  Name", 0),
        Caption(PICTURES[3], "another name", 0),
        Caption(copy, captions[1].text, 0),
    ]
    found = captioned([*captions, *more], starter.spec, tokenizer)
    assert (len(found.pixels), len(found.tokens)) == (FEWEST + 1, FEWEST + 2)
    assert found.own.shape == (FEWEST + 2, FEWEST + 1)
    assert found.own.sum() == FEWEST + 4
    assert [*found.own[-1].nonzero()[0]] == [0, 3]  # another name
    assert [*found.own[1].nonzero()[0]] == [0, 1]


def test_what_the_server_would_refuse_is_refused_by_its_line(
    tmp_path: Path, starter: Artifact, tokenizer: Tokenizer
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for wrong, sentence in [
        (Caption(tmp_path / "none.jpg", "x", 7), "line 7: .*none.jpg: No such file"),
        (Caption(tmp_path / "text.jpg", "x", 8), "line 8: "),
        (Caption(PICTURES[0], "x" * 20_000, 9), "line 9: "),
    ]:
        with pytest.raises(ExportRefused, match=sentence):
            captioned([wrong], starter.spec, tokenizer)


def test_too_few_captions_are_refused(starter: Artifact, tokenizer: Tokenizer) -> None:
    few = [Caption(path, "the same words", 0) for path in PICTURES[:FEWEST]]
    with pytest.raises(ExportRefused, match=f"{FEWEST} pictures and 1 texts"):
        captioned(few, starter.spec, tokenizer)


def test_the_starters_captions_are_the_names_of_the_demo_catalogue() -> None:
    named = json.loads((DEMO_PICTURES.parent / "catalogue.json").read_text("utf-8"))["products"]
    expected = [(DEMO_PICTURES / Path(one["picture"]).name, one["name"]) for one in named]
    found = [(one.picture.resolve(), one.text) for one in read_captions(STARTER / "captions.csv")]
    assert found == [(path.resolve(), name) for path, name in expected]
