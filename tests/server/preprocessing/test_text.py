"""Text to tokens: as tokenizer.json says, whatever comes in."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer as Reference

from server.artifact.artifact import Artifact, TextTower
from server.errors import ArtifactInvalid, TextRejected, TextTooLong
from server.lifespan import open_services
from server.preprocessing.text import MOST_CHARACTERS, Tokenizer
from server.settings import Settings
from tests import ROOT
from tests.support import artifacts
from tests.support.artifacts import LENGTH, VOCABULARY


def tower(**changes: Any) -> TextTower:
    return TextTower(**{"architecture": "none", "digest": "0" * 64, "length": LENGTH, "padded": False, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    artifacts.tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def read(path: Path, text: str, **changes: Any) -> NDArray[np.int64]:
    return Tokenizer.read(path, tower(**changes)).tokens(text)


def named(tokens: NDArray[np.int64]) -> list[str]:
    return [VOCABULARY[token] for token in tokens]


def test_a_text_becomes_its_own_number_of_tokens(path: Path) -> None:
    tokens = read(path, "A Violin, scissors")
    assert tokens.dtype == np.int64
    assert named(tokens) == ["[CLS]", "a", "violin", ",", "scissors", "[SEP]"]
    assert named(read(path, "violin")) == ["[CLS]", "violin", "[SEP]"]


def test_a_long_text_is_cut_to_the_towers_length_and_ends_as_it_should(path: Path) -> None:
    tokens = read(path, "violin " * 100)
    assert named(tokens) == ["[CLS]", *["violin"] * (LENGTH - 2), "[SEP]"]


def test_a_padded_towers_texts_are_all_of_its_length(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    artifacts.tokenizer(padded=True).save(str(path))
    for text in ("", "violin", "violin " * 100):
        assert read(path, text, padded=True).shape == (LENGTH,)
    assert named(read(path, "violin", padded=True))[3:] == ["[PAD]"] * (LENGTH - 3)


ODD = {
    "empty": "",
    "spaces": " \t\n\r ",
    "nul": "violin\0violin",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "right to left": "\u202eקומקום",
    "combining": "e" + "\u0301" * 9_000,
    "one long word": "x" * MOST_CHARACTERS,
    "many words": ("violin " * MOST_CHARACTERS)[:MOST_CHARACTERS],
    "han": "琴" * MOST_CHARACTERS,
    "unassigned": "\u0378\U0010ffff\ufffe",
    "control": "".join(map(chr, range(32))),
    "special tokens by name": "[CLS] [SEP] [PAD] [UNK]",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_an_odd_text_has_tokens_that_the_tower_knows(path: Path, text: str) -> None:
    tokens = read(path, text)
    assert 2 <= len(tokens) <= LENGTH
    assert all(0 <= token < len(VOCABULARY) for token in tokens)
    assert tokens.tolist() == Reference.from_file(str(path)).encode(text).ids


@pytest.mark.parametrize("text", ["\ud800", "violin \udfff violin"])
def test_half_a_surrogate_pair_is_refused(path: Path, text: str) -> None:
    with pytest.raises(TextRejected, match="half of a surrogate pair"):
        read(path, text)


def test_a_text_of_more_characters_than_we_read_is_refused_before_anything_walks_through_it(path: Path) -> None:
    with pytest.raises(TextTooLong, match=r"has 10,001 characters; this server reads at most 10,000\.") as caught:
        read(path, "x" * (MOST_CHARACTERS + 1))
    assert (caught.value.characters, caught.value.most) == (10_001, 10_000)


def test_a_text_that_leaves_no_token_is_refused(path: Path) -> None:
    tokenizer = Reference.from_file(str(path))
    tokenizer.post_processor = None
    tokenizer.save(str(path))
    with pytest.raises(TextRejected, match="nothing in it"):
        read(path, "   ")


def test_a_text_that_the_tokenizer_has_no_token_for_is_refused(path: Path) -> None:
    path.write_text(path.read_text().replace('"unk_token": "[UNK]"', '"unk_token": "[NONE]"'))
    assert named(read(path, "violin")) == ["[CLS]", "violin", "[SEP]"]
    with pytest.raises(TextRejected, match="cannot be read by this model"):
        read(path, "\U0001f600")


def test_one_tokenizer_serves_many_threads(path: Path) -> None:
    tokenizer = Tokenizer.read(path, tower())
    texts = [f"violin {'scissors ' * number}" for number in range(40)]
    expected = [tokenizer.tokens(text).tolist() for text in texts]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            tokens = [tokenizer.tokens(text).tolist() for text in texts]
            wrong.extend(text for text, one, other in zip(texts, tokens, expected, strict=True) if one != other)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- files that are not the tower's tokenizer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"not json", b"\xff\xfe", b'{"version": "1.0", "model": {"type": "Odd"}}']
)
def test_a_file_that_is_no_tokenizer_is_an_invalid_artifact(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactInvalid, match=r"cannot read .*tokenizer\.json"):
        Tokenizer.read(path, tower())


def test_a_missing_file_is_an_invalid_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match=r"cannot read .*tokenizer\.json"):
        Tokenizer.read(tmp_path / "tokenizer.json", tower())


@pytest.mark.parametrize("changes", [{"length": LENGTH + 1}, {"padded": True}])
def test_a_tokenizer_that_cuts_or_pads_otherwise_than_the_tower_needs_is_an_invalid_artifact(
    path: Path, changes: dict[str, bool] | dict[str, int]
) -> None:
    with pytest.raises(ArtifactInvalid, match="cuts texts to 16 tokens and pads them to None"):
        Tokenizer.read(path, tower(**changes))


def test_a_tokenizer_that_cuts_nothing_is_an_invalid_artifact(path: Path) -> None:
    tokenizer = Reference.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.save(str(path))
    with pytest.raises(ArtifactInvalid, match="cuts texts to None tokens"):
        Tokenizer.read(path, tower())


# --- what it brings --------------------------------------------------------------------------------------------------


def python(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_reading_texts_brings_nothing_that_could_reach_a_network(path: Path) -> None:
    """The package `tokenizers` depends on huggingface_hub, which only its `from_pretrained` imports."""
    code = """if True:
        import sys
        from pathlib import Path
        from server.artifact.artifact import TextTower
        from server.preprocessing.text import Tokenizer
        tower = TextTower(architecture="", digest="", length=16, padded=False)
        print(len(Tokenizer.read(Path(sys.argv[1]), tower).tokens("violin")))
        packages = {name.split(".")[0] for name in sys.modules}
        print(*packages & {"huggingface_hub", "requests", "urllib3", "transformers", "torch", "hf_xet"})"""
    assert python(code, str(path)) == ["3"]


def test_a_model_without_words_does_not_load_the_tokenizers() -> None:
    assert python("import sys, server.app; print('tokenizers' in sys.modules)") == ["False"]


def test_a_fork_after_texts_were_read_is_not_complained_about(path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        from server.artifact.artifact import TextTower
        from server.preprocessing.text import Tokenizer
        tower = TextTower(architecture="", digest="", length=16, padded=False)
        Tokenizer.read(Path(sys.argv[1]), tower).tokens("violin")
        if os.fork() == 0:
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.wait()[1]))"""
    assert python(code, str(path)) == ["0"]


# --- the artifact ----------------------------------------------------------------------------------------------------


def test_an_artifacts_golden_texts_give_their_tokens(with_words: Path) -> None:
    artifact = Artifact.read(with_words)
    tower = artifact.manifest.text
    assert tower is not None
    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    for golden in artifact.manifest.text_goldens:
        assert tokenizer.tokens(golden.text).tolist() == golden.tokens
    assert {len(golden.tokens) for golden in artifact.manifest.text_goldens} >= {2, 3, LENGTH}


def test_the_files_to_run_are_those_of_both_towers_and_no_others_are_read(with_words: Path, image_only: Path) -> None:
    artifact = Artifact.read(with_words)
    names = artifact.files_to_run("fp32")
    assert {"image.fp32.onnx", "text.fp32.onnx", "tokenizer.json", "goldens/text-0.npy"} <= {*names}
    artifact.check_files(names)
    plain = Artifact.read(image_only)
    assert not any("text" in name or "token" in name for name in plain.files_to_run("fp32"))


def test_weights_beside_a_text_graph_are_files_to_run_too(tmp_path: Path) -> None:
    folder = artifacts.with_words(tmp_path / "artifact")
    (folder / "text.fp32.onnx.data").write_bytes(b"weights")
    artifacts.rewrite(folder)
    assert "text.fp32.onnx.data" in Artifact.read(folder).files_to_run("fp32")


@pytest.mark.parametrize("name", ["text.fp32.onnx", "tokenizer.json", "goldens/text-1.npy"])
def test_a_text_file_that_is_missing_or_changed_is_named(tmp_path: Path, name: str) -> None:
    folder = artifacts.with_words(tmp_path / "artifact")
    artifact = Artifact.read(folder)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data + b" ")
    with pytest.raises(ArtifactInvalid, match=f"{name} is not the file that was exported"):
        artifact.check_files(artifact.files_to_run("fp32"))
    (folder / name).unlink()
    with pytest.raises(ArtifactInvalid, match=f"{name} cannot be read"):
        artifact.check_files(artifact.files_to_run("fp32"))
    artifacts.rewrite(folder)  # as if it had never been listed
    artifact = Artifact.read(folder)
    with pytest.raises(ArtifactInvalid, match=f"has no digest for {name}"):
        artifact.check_files(artifact.files_to_run("fp32"))


# --- a start that must be refused ------------------------------------------------------------------------------------


def drifted_tokenizer(folder: Path) -> None:
    artifacts.tokenizer(lowercase=False).save(str(folder / "tokenizer.json"))


def drifted_graph(folder: Path) -> None:
    vectors = artifacts.token_vectors(Artifact.read(folder))
    vectors[VOCABULARY.index("violin")] *= -1
    onnx.save(artifacts.text_graph(vectors), folder / "text.fp32.onnx")


def smaller_table(folder: Path) -> None:
    """As if a tokenizer of more tokens had been put beside a tower of fewer."""
    vectors = artifacts.token_vectors(Artifact.read(folder))
    onnx.save(artifacts.text_graph(vectors[: VOCABULARY.index("violin")]), folder / "text.fp32.onnx")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


async def refusal(folder: Path) -> str:
    """The sentence with which a worker refuses to start; no database is asked before."""
    with pytest.raises(ArtifactInvalid) as caught:
        async with open_services(Settings(model=folder, device="cpu")):
            pass
    return caught.value.sentence


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            drifted_tokenizer,
            '"A VIOLIN, and a teapot!" no longer gives the tokens of its export (link: text to tokens)',
        ),
        (drifted_graph, "no longer gives the vector of its export (link: tokens to vector)"),
        (smaller_table, "The model does not run on cpu"),
        (no_tokenizer, "cannot read"),
    ],
)
async def test_words_that_drifted_stop_the_start_and_name_the_link(
    tmp_path: Path, change: Callable[..., Any], said: str
) -> None:
    folder = artifacts.with_words(tmp_path / "artifact")
    change(folder)
    assert said in await refusal(artifacts.rewrite(folder))


def test_a_start_that_words_refuse_ends_in_one_sentence(serve: Callable[..., Any], tmp_path: Path) -> None:
    folder = artifacts.with_words(tmp_path / "artifact")
    drifted_tokenizer(folder)
    refused = serve(model=artifacts.rewrite(folder))
    assert refused.end() == 2
    log = "".join(refused.log)
    assert "(link: text to tokens)" in " ".join(log.split())
    assert "Traceback" not in log
    (folder / "tokenizer.json").unlink()
    refused = serve(model=folder)
    assert refused.end() == 2
    assert "tokenizer.json cannot be read" in " ".join("".join(refused.log).split())
