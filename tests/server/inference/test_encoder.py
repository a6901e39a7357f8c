"""The encoders with the real runtime: what they take, what they give, and what they refuse to load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from server.artifact.artifact import Artifact, Golden, TextGolden
from server.errors import ArtifactInvalid, EncoderFailed
from server.inference.encoder import Encoder, TextEncoder
from tests import STARTER
from tests.support import artifacts
from tests.support.artifacts import LENGTH, VOCABULARY


@pytest.fixture
def artifact(with_words: Path) -> Artifact:
    return Artifact.read(with_words)


@pytest.fixture
def reader(artifact: Artifact) -> Iterator[TextEncoder]:
    with TextEncoder(artifact, "fp32", "cpu") as reader:
        yield reader


def texts(count: int, length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, len(VOCABULARY), (count, length))


def test_texts_become_vectors_of_unit_length_in_the_pictures_space(artifact: Artifact, reader: TextEncoder) -> None:
    with Encoder(artifact, "fp32", "cpu") as encoder:
        assert reader.space == encoder.space
        assert (reader.device, reader.model, reader.precision) == (encoder.device, encoder.model, "fp32")
    for shape in ((1, 1), (3, 5), (32, LENGTH)):
        vectors = reader.encode(texts(*shape))
        assert vectors.shape == (shape[0], artifact.manifest.space.dimensions)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_texts_vector_is_bit_identical_alone_and_in_any_batch(reader: TextEncoder) -> None:
    for length in (1, 2, 7, LENGTH):
        many = texts(40, length)
        alone = np.concatenate([reader.encode(one[None]) for one in many])
        for batch in (2, 3, 8, 32):
            for start in range(0, len(many), batch):
                together = reader.encode(many[start : start + batch])
                np.testing.assert_array_equal(together, alone[start : start + batch])


class Watched:
    """A runner that says what it was given."""

    most = 32

    def __init__(self) -> None:
        self.ran: set[tuple[int, int]] = set()

    def __call__(self, entries: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.ran.add((len(entries), len(entries[0])))
        return np.zeros((len(entries), 1), np.float32)

    def close(self) -> None: ...


def test_warming_up_runs_every_length_that_a_golden_has(artifact: Artifact) -> None:
    with TextEncoder(artifact, "fp32", "cpu") as reader:
        watched = Watched()
        reader.runners = [watched]
        reader.warm_up()
    lengths = {len(golden.tokens) for golden in artifact.manifest.text_goldens}
    assert watched.ran == {(batch, length) for batch in (1, 32) for length in lengths}


@pytest.mark.parametrize("token", [len(VOCABULARY), -len(VOCABULARY) - 1])
def test_a_token_that_the_tower_does_not_know_fails_and_the_next_text_works(reader: TextEncoder, token: int) -> None:
    with pytest.raises(EncoderFailed):
        reader.encode(np.array([[2, token, 3]]))
    assert reader.encode(texts(1, 3)).shape[0] == 1


def test_an_encoder_that_is_not_open_fails(artifact: Artifact) -> None:
    with pytest.raises(EncoderFailed, match="not open"):
        Encoder(artifact, "fp32", "cpu").encode(np.zeros((1, 224, 224, 3), np.uint8))
    with pytest.raises(EncoderFailed, match="not open"):
        TextEncoder(artifact, "fp32", "cpu").encode(texts(1, 3))


def test_an_artifact_without_a_text_tower_has_no_text_encoder(image_only: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="has no text tower"):
        TextEncoder(Artifact.read(image_only), "fp32", "cpu")


# --- graphs that are not what the manifest says -----------------------------------------------------------------------


def opened_with(folder: Path, graph: Any, *, padded: bool = False) -> tuple[int, int]:
    """Open the text encoder of an artifact whose text graph was replaced."""
    artifacts.with_words(folder, padded=padded)
    onnx.save(graph, folder / "text.fp32.onnx")
    with TextEncoder(Artifact.read(artifacts.rewrite(folder)), "fp32", "cpu") as reader:
        return reader.encode(texts(2, LENGTH)).shape


def graph(dimensions: int | None = None, **options: Any) -> Any:
    size = dimensions or Artifact.read(STARTER).manifest.space.dimensions
    vectors = np.random.default_rng(0).standard_normal((len(VOCABULARY), size)).astype(np.float32)
    return artifacts.text_graph(vectors, **options)


def test_a_padded_towers_graph_may_insist_on_its_length(tmp_path: Path) -> None:
    assert opened_with(tmp_path / "any", graph(), padded=True)[0] == 2
    assert opened_with(tmp_path / "fixed", graph(length=LENGTH), padded=True)[0] == 2


def test_another_towers_graph_may_not(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match=r"not tokens int64\[N, L\]"):
        opened_with(tmp_path / "fixed", graph(length=LENGTH))
    with pytest.raises(ArtifactInvalid, match=r"not tokens int64\[N, L\]"):
        opened_with(tmp_path / "other", graph(length=LENGTH + 1), padded=True)


def test_a_graph_of_another_size_or_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match=r"gives .* not embedding float32\[N, "):
        opened_with(tmp_path / "small", graph(dimensions=7))
    ids = graph()
    ids.graph.input[0].name = ids.graph.node[0].input[1] = "input_ids"
    with pytest.raises(ArtifactInvalid, match=r"input_ids.* not tokens int64\[N, L\]"):
        opened_with(tmp_path / "ids", ids)


def test_an_image_graph_of_one_batch_size_is_refused(tmp_path: Path) -> None:
    folder = artifacts.image_only(tmp_path / "frozen")
    name = Artifact.read(folder).variant("fp32").image
    frozen = onnx.load(folder / name)
    size = frozen.graph.input[0].type.tensor_type.shape.dim[0]
    size.Clear()
    size.dim_value = 1
    onnx.save(frozen, folder / name)
    with pytest.raises(ArtifactInvalid, match=r"not pixels uint8\[N, "), Encoder(Artifact.read(folder), "fp32", "cpu"):
        pass


# --- the self-test ---------------------------------------------------------------------------------------------------


def never(data: object) -> NoReturn:
    raise AssertionError("there are no golden pictures")


def prove(artifact: Artifact, tokenizer: Any = None, reader: Callable[..., Any] | None = None) -> float:
    """The texts' part of the self-test."""
    pictures = Artifact(artifact.folder, msgspec.structs.replace(artifact.manifest, goldens=[]))
    made = tokenizer or artifacts.tokenizer()
    with TextEncoder(artifact, "fp32", "cpu") as own:
        return pictures.self_test(
            "fp32", never, never, lambda text: np.array(made.encode(text).ids, np.int64), reader or own.encode
        )


def test_golden_texts_are_proved_from_words_to_vector(artifact: Artifact) -> None:
    assert prove(artifact) > 0.9999999


def test_a_tokenizer_that_drifted_is_named_as_the_link(artifact: Artifact) -> None:
    with pytest.raises(ArtifactInvalid, match=r'"A VIOLIN, and a teapot!".*\(link: text to tokens\)'):
        prove(artifact, artifacts.tokenizer(lowercase=False))
    shuffled = [*VOCABULARY[:4], *reversed(VOCABULARY[4:])]
    with pytest.raises(ArtifactInvalid, match=r"link: text to tokens"):
        prove(artifact, artifacts.tokenizer(shuffled))


def test_a_text_tower_that_drifted_is_named_as_the_link(artifact: Artifact, reader: TextEncoder) -> None:
    def turned(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = reader.encode(tokens)
        vectors[:, 0] += 0.02
        return vectors

    with pytest.raises(ArtifactInvalid, match=r"link: tokens to vector.*at least 0\.99999 is needed"):
        prove(artifact, reader=turned)
    with pytest.raises(ArtifactInvalid, match=r"tokens to vector: .* not finite"):
        prove(artifact, reader=lambda tokens: reader.encode(tokens) * np.nan)


def test_an_artifact_with_a_text_tower_cannot_be_tested_without_it(artifact: Artifact) -> None:
    pictures = Artifact(artifact.folder, msgspec.structs.replace(artifact.manifest, goldens=[]))
    with pytest.raises(ValueError, match="to_tokens and encode_text"):
        pictures.self_test("fp32", never, never)


def other(golden: Golden | TextGolden, **changes: Any) -> list[Golden | TextGolden]:
    return [msgspec.structs.replace(golden, **changes)]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda manifest: {"text": None}, "describes no text tower"),
        (lambda manifest: {"text_goldens": []}, "has no golden text"),
        (lambda manifest: {"text_goldens": other(manifest.text_goldens[0], tokens=[])}, "another number of tokens"),
        (lambda manifest: {"text_goldens": other(manifest.text_goldens[0], tokens=[4] * 17)}, "another number of"),
        (lambda manifest: {"text": msgspec.structs.replace(manifest.text, padded=True)}, "another number of tokens"),
        (lambda manifest: {"text_goldens": other(manifest.text_goldens[0], embeddings={})}, "no vector in one of"),
        (lambda manifest: {"goldens": other(manifest.goldens[0], embeddings={})}, "no vector in one of"),
        (
            lambda manifest: {
                "precisions": {
                    name: msgspec.structs.replace(variant, text=None) for name, variant in manifest.precisions.items()
                }
            },
            "not every precision names a text graph",
        ),
    ],
)
def test_a_manifest_whose_words_do_not_fit_together_is_refused(
    tmp_path: Path, change: Callable[..., Any], flaw: str
) -> None:
    folder = artifacts.with_words(tmp_path / "artifact")
    artifacts.rewrite(folder, **change(Artifact.read(folder).manifest))
    with pytest.raises(ArtifactInvalid, match=f"does not fit together: .*{flaw}"):
        Artifact.read(folder)
