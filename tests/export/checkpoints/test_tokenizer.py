"""Tokenizers: the one file that the server reads makes the tokens that the checkpoint's own tokenizer makes."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from export.checkpoints.checkpoint import TextTower
from export.checkpoints.sources import open_source
from export.checkpoints.tokenizer import TEXTS, prove_tokens, read_tokenizer
from export.errors import ExportRefused
from tests.support.checkpoints import LENGTH, save_clip_tokenizer, save_spiece, tiny_clip, tiny_siglip

MAKE: dict[str, Callable[[Path], Path]] = {
    "clip": lambda folder: tiny_clip(folder, words=True),
    "spiece": lambda folder: tiny_siglip(folder, words="spiece"),
    "gemma": lambda folder: tiny_siglip(folder, words="gemma"),
}


def text_tower(folder: Path) -> TextTower:
    opened = open_source(str(folder)).text
    assert opened is not None
    return opened()


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTower]:
    folder = tmp_path_factory.mktemp("towers")
    return {name: text_tower(make(folder / name)) for name, make in MAKE.items()}


def frozen(tower: TextTower) -> Tokenizer:
    return Tokenizer.from_str(tower.tokenizer_json.decode())


def test_the_battery_is_varied() -> None:
    assert len(set(TEXTS)) == len(TEXTS) >= 40
    assert {"", " "} < set(TEXTS)
    assert any(len(text) > 600 for text in TEXTS)


@pytest.mark.parametrize("family", MAKE)
def test_what_is_frozen_makes_the_checkpoints_tokens(family: str, towers: dict[str, TextTower]) -> None:
    assert prove_tokens(towers[family]) == len(TEXTS)
    # The proof could have failed: texts become different tokens, and not the unknown one alone.
    made = [frozen(towers[family]).encode(text).ids for text in TEXTS]
    assert len({tuple(tokens) for tokens in made}) > 0.7 * len(TEXTS)


def test_clips_older_files_make_the_same_tokens(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "old")
    save_clip_tokenizer(folder, form="slow")
    new = text_tower(tiny_clip(tmp_path / "new", words=True))
    old = text_tower(folder)
    assert prove_tokens(old) == len(TEXTS)
    assert [frozen(old).encode(text).ids for text in TEXTS] == [frozen(new).encode(text).ids for text in TEXTS]


def test_a_tokenizer_that_was_repackaged_without_its_model_is_read_from_its_json(
    tmp_path: Path, towers: dict[str, TextTower]
) -> None:
    folder = tiny_siglip(tmp_path / "repackaged", words="spiece")
    (folder / "spiece.model").unlink()
    (folder / "tokenizer.json").write_bytes(towers["spiece"].tokenizer_json)
    assert prove_tokens(text_tower(folder)) == len(TEXTS)


@pytest.mark.parametrize("family", MAKE)
def test_length_and_padding_are_inside(family: str, towers: dict[str, TextTower]) -> None:
    tower = towers[family]
    lengths = {len(frozen(tower).encode(text).ids) for text in TEXTS}
    assert tower.length == LENGTH == max(lengths)
    assert tower.padded is (family != "clip")
    assert (lengths == {LENGTH}) is tower.padded
    if not tower.padded:
        assert min(lengths) == 2


@pytest.mark.parametrize("family", MAKE)
def test_all_families_are_lower_case(family: str, towers: dict[str, TextTower]) -> None:
    # SigLIP 2 was trained so, though its tokenizer's files do not say it.
    made = frozen(towers[family])
    assert made.encode("Red SHOES").ids == made.encode("red shoes").ids


def test_a_tokenizer_that_makes_other_tokens_is_refused_with_a_table(towers: dict[str, TextTower]) -> None:
    wrong = json.loads(towers["clip"].tokenizer_json)
    wrong["normalizer"]["normalizers"] = wrong["normalizer"]["normalizers"][:-1]
    tower = dataclasses.replace(towers["clip"], tokenizer_json=json.dumps(wrong).encode())
    with pytest.raises(ExportRefused, match=r"of \d+ texts differ") as refused:
        prove_tokens(tower)
    assert "MiXeD CaSe AND UPPER" in refused.value.sentence
    assert "'red shoe'" not in refused.value.sentence


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def cut(name: str, part: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * part)])

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def wrote(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "cut short": ("clip", cut("tokenizer.json", 0.5), "cannot be read; it is damaged"),
    "empty": ("clip", wrote("tokenizer.json", b""), "cannot be read; it is damaged"),
    "no tokenizer": ("clip", wrote("tokenizer.json", b"{}"), "cannot be read; it is damaged"),
    "a list": ("clip", wrote("tokenizer.json", b"[1, 2]"), "cannot be read; it is damaged"),
    "not text": ("clip", wrote("tokenizer.json", b"\xff\xfe\x00"), "cannot be read; it is damaged"),
    "no vocabulary": ("clip", without("tokenizer.json"), "cannot be read; it is damaged, or a part of it is missing"),
    "a config cut short": ("clip", cut("tokenizer_config.json", 0.5), "tokenizer_config.json cannot be read"),
    "a config that is a list": ("clip", wrote("tokenizer_config.json", b"[]"), "is not a JSON object"),
    "a BERT's": (
        "clip",
        config(tokenizer_class="BertTokenizer"),
        "is tokenised by 'BertTokenizer', which this version",
    ),
    "one that unpickles": ("clip", config(tokenizer_class="TransfoXLTokenizer"), "'TransfoXLTokenizer', which this"),
    "a class that is a number": ("clip", config(tokenizer_class=7), "is tokenised by 7"),
    "a special token that is a number": ("clip", config(eos_token=7), "cannot be read"),
    "longer than the tower": (
        "clip",
        config(model_max_length=77),
        f"77 tokens of a text, but its text tower has {LENGTH}",
    ),
    "longer than SigLIP's tower": ("gemma", config(model_max_length=512), "512 tokens of a text"),
    "a length in words": ("clip", config(model_max_length="16"), "cannot be read"),
    "no length": ("clip", config(model_max_length=0), "model_max_length 0"),
    "without padding": ("gemma", config(pad_token=None), "no padding token"),
    "a piece of a model": ("spiece", cut("spiece.model", 0.5), "cannot be read; it is damaged"),
    "no model": ("spiece", wrote("spiece.model", b""), "cannot be read; it is damaged"),
    "no model at all": (
        "spiece",
        wrote("spiece.model", b"not a model of sentencepiece"),
        "cannot be read; it is damaged",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tokenizer_that_is_wrong_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    family, damage, sentence = REFUSED[case]
    folder = MAKE[family](tmp_path / "bad")
    damage(folder)
    with pytest.raises(ExportRefused) as refused:
        prove_tokens(text_tower(folder))
    assert sentence in refused.value.sentence
    assert "\n" not in refused.value.sentence


def test_a_model_of_sentencepiece_without_its_package_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_spiece(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ExportRefused, match="needs the package sentencepiece"):
        read_tokenizer(tmp_path, "it")


def test_a_tokenizer_with_more_tokens_than_its_tower_is_refused(tmp_path: Path) -> None:
    folders = [
        tiny_clip(tmp_path / "clip", words=True, text={"vocab_size": 300}),
        tiny_siglip(tmp_path / "spiece", words="spiece", text={"vocab_size": 300}),
        tiny_siglip(tmp_path / "gemma", words="gemma", text={"vocab_size": 300}),
    ]
    for folder in folders:
        with pytest.raises(ExportRefused, match=r"knows 300: it is not this tower's tokenizer"):
            open_source(str(folder))


def test_a_tokenizer_that_never_ends_a_text_is_refused(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "bad", words=True, text={"eos_token_id": 5})
    with pytest.raises(ExportRefused, match="ends with token 5, which its tokenizer does not write"):
        open_source(str(folder))


def test_freezing_is_reproducible(tmp_path: Path, towers: dict[str, TextTower]) -> None:
    for family, make in MAKE.items():
        assert text_tower(make(tmp_path / family)).tokenizer_json == towers[family].tokenizer_json
