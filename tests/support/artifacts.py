"""Artifacts made for the tests from the committed starter: one that knows no words, and one with a few of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from server.artifact.artifact import SEAL, Artifact, File, Manifest, TextGolden, TextTower, seal
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.media import decode, to_pixels
from tests import DEMO_PICTURES, STARTER
from tests.support.vectors import directions

WORDS = ("keyboard", "notebook", "teapot", "bicycle", "scissors", "violin", "television", "saxophone")
"""Each is a token whose vector is that of the demo catalogue's picture of this name."""

LENGTH = 16
GOLDEN_TEXTS = ("keyboard", "A VIOLIN, and a teapot!", "", "scissors " * 40, "\U0001f511 קומקום")

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz,!"
VOCABULARY = [*_SPECIAL, *WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]


def image_only(folder: Path) -> Path:
    """The starter without a text tower, if it has one."""
    shutil.copytree(STARTER, folder)
    manifest = Artifact.read(folder).manifest
    for name in _text_files(manifest):
        (folder / name).unlink()
    precisions = {
        precision: msgspec.structs.replace(variant, text=None, text_grades=None, text_grading=None)
        for precision, variant in manifest.precisions.items()
    }
    return rewrite(folder, text=None, text_goldens=[], precisions=precisions)


def _text_files(manifest: Manifest) -> list[str]:
    if manifest.text is None:
        return []
    graphs = {variant.text for variant in manifest.precisions.values() if variant.text is not None}
    vectors = [name for golden in manifest.text_goldens for name in golden.embeddings.values()]
    beside = [name for name in manifest.files if name.startswith(tuple(f"{graph}." for graph in graphs))]
    return [manifest.text.tokenizer, *graphs, *vectors, *beside]


def with_words(folder: Path, *, padded: bool = False) -> Path:
    """The starter with a text tower of its own making: the mean of its tokens' vectors, normalised."""
    image_only(folder)
    tokenizer(padded=padded).save(str(folder / "tokenizer.json"))
    onnx.save(text_graph(token_vectors(Artifact.read(folder))), folder / "text.fp32.onnx")
    manifest = Artifact.read(folder).manifest
    tower = TextTower(architecture="a mean of tokens", digest="0" * 64, length=LENGTH, padded=padded)
    precisions = {
        precision: msgspec.structs.replace(variant, text="text.fp32.onnx")
        for precision, variant in manifest.precisions.items()
    }
    draft = Artifact(folder, msgspec.structs.replace(manifest, text=tower, precisions=precisions))
    goldens = []
    with TextEncoder(draft, "fp32", "cpu") as encoder:
        for number, text in enumerate(GOLDEN_TEXTS):
            tokens = tokenizer(padded=padded).encode(text).ids
            name = f"goldens/text-{number}.npy"
            np.save(folder / name, encoder.encode(np.array([tokens], np.int64))[0])
            goldens.append(TextGolden(text, tokens, dict.fromkeys(precisions, name)))
    return rewrite(folder, text=tower, text_goldens=goldens, precisions=precisions)


def rewrite(folder: Path, **changes: Any) -> Path:
    """Change the manifest, bring its digests up to date with the files that are there, and seal it."""
    path = folder / "manifest.json"
    manifest = msgspec.structs.replace(msgspec.json.decode(path.read_bytes(), type=Manifest), **changes)
    found = {one.relative_to(folder).as_posix(): one for one in sorted(folder.rglob("*")) if one.is_file()}
    files = {
        name: File(one.stat().st_size, hashlib.sha256(one.read_bytes()).hexdigest())
        for name, one in found.items()
        if name not in ("manifest.json", SEAL)
    }
    data = msgspec.structs.replace(manifest, files=files).to_json()
    path.write_bytes(data)
    (folder / SEAL).write_bytes(seal(data))
    return folder


def tokenizer(vocabulary: Sequence[str] = VOCABULARY, *, padded: bool = False, lowercase: bool = True) -> Tokenizer:
    """A small WordPiece, as BERT's is, that cuts to LENGTH tokens, and pads to as many where `padded`."""
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(end, vocabulary.index(end)) for end in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.enable_truncation(LENGTH)
    if padded:
        made.enable_padding(length=LENGTH, pad_id=vocabulary.index("[PAD]"), pad_token="[PAD]")
    return made


def token_vectors(artifact: Artifact) -> NDArray[np.float32]:
    """float32[V, D]: the words' are their pictures'; those of marks hardly weigh; letters are anything."""
    vectors = directions(len(VOCABULARY), artifact.manifest.space.dimensions)
    vectors[: len(_SPECIAL)] *= 1e-4
    with Encoder(artifact, "fp32", "cpu") as encoder:
        for word in WORDS:
            picture = decode((DEMO_PICTURES / f"{word}.webp").read_bytes(), max_pixels=10**8, alpha=artifact.spec.alpha)
            vectors[VOCABULARY.index(word)] = encoder.encode(to_pixels(picture, artifact.spec)[None])[0]
    found: NDArray[np.float32] = vectors.astype(np.float32)
    return found


def text_graph(vectors: NDArray[np.float32], *, length: int | str = "L") -> onnx.ModelProto:
    """tokens int64[N, L] to embedding float32[N, D]: look up, take the mean, normalise."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["vectors", "tokens"], ["looked_up"]),
            # ReduceMean over the middle axis adds up in another order for one text than for several.
            helper.make_node("Transpose", ["looked_up"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("GlobalAveragePool", ["turned"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["mean"]),
            helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=1, p=2),
        ],
        "words",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", length])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", vectors.shape[1]])],
        [numpy_helper.from_array(vectors, "vectors")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def another_space(folder: Path) -> Path:
    """An artifact of a space of its own, to whose pictures those of the starter are as unlike as can be: its opposite.

    A vector that met one of the other space would show: a picture's similarity to itself would be 0.
    """
    image_only(folder)
    manifest = Artifact.read(folder).manifest
    variant = manifest.precisions["fp32"]
    model = onnx.load(folder / variant.image)
    last = next(node for node in model.graph.node if "embedding" in node.output)
    last.output[list(last.output).index("embedding")] = "turned_away"
    model.graph.node.append(helper.make_node("Neg", ["turned_away"], ["embedding"]))
    onnx.save(model, folder / variant.image)
    for golden in manifest.goldens:
        path = folder / golden.embeddings["fp32"]
        np.save(path, -np.load(path))
    other = hashlib.sha256(b"the opposite of " + variant.space.encode()).hexdigest()
    return rewrite(
        folder,
        name="opposite",
        model="tests/opposite",
        space=msgspec.structs.replace(manifest.space, id=other),
        precisions={"fp32": msgspec.structs.replace(variant, space=other)},
        goldens=[
            msgspec.structs.replace(golden, embeddings={"fp32": golden.embeddings["fp32"]})
            for golden in manifest.goldens
        ],
    )
