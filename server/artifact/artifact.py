"""The artifact: the folder that export writes and the server runs. Read, checked, self-tested.

    models/<name>/
        manifest.json           what this is, and the SHA-256 of every other file
        manifest.sha256         the SHA-256 of the manifest itself, as sha256sum writes it
        image.<precision>.onnx  pixels uint8[N, S, S, 3] -> embedding float32[N, D], unit length
        text.<precision>.onnx   tokens int64[N, L] -> embedding float32[N, D], unit length; where there is a text tower
        tokenizer.json          words -> tokens, as the `tokenizers` package reads it; likewise
        goldens/                real pictures and texts with what becomes of them, checked at every start

Nothing here knows ONNX Runtime, Pillow or tokenizers: `self_test` is called with the steps that it proves.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.artifact.grades import Grades, Grading, TextGrades, TextGrading
from server.errors import ArtifactInvalid

FORMAT = 3

READABLE = (2, 3)
"""Format 2 had no grades: matches in the space of such an artifact have none."""

SEAL = "manifest.sha256"
"""The file with the manifest's digest, as the manifest has those of all others; `sha256sum -c` reads it, too."""

Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
Vectors = NDArray[np.float32]
Tokens = NDArray[np.int64]

LOSSY_TOLERANCE = 2
"""How far one 8-bit sample of a JPEG may lie from the sample of another decoder: decoders differ in the last bits of
their IDCT."""

MIN_COSINE_IN_SPACE = 0.999
"""The least cosine of two vectors that one space gives the same picture: by fp32 and by another precision of the space,
or now and when a catalogue was filled."""


class _Record(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A part of the manifest: immutable, camelCase in JSON, unknown fields refused."""


_AS_BEFORE = {"icc": "ignored"}
"""Fields of the spec that came later, and what each means where it is left out: in manifests, and in the space's id."""


class PreprocessingSpec(_Record, frozen=True, kw_only=True):
    """How bytes become pixels, and pixels the tensor that the tower was trained on.

    `rescale`, `mean` and `std` (per channel, on the rescaled scale) are inside the graph; the rest is what
    `media.py` does before it. All of it is part of the space's id.
    """

    size: int
    """S: the side of the square that the tower sees, in pixels."""
    resize: Literal["shortest-edge", "squash"]
    """Keep the aspect and crop the middle, or squash to the square."""
    edge: int
    """What the shorter side becomes before the crop, in pixels; S where squashed."""
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour: Literal["rgb"] = "rgb"
    orientation: Literal["exif"] = "exif"
    """Pictures are turned upright as their EXIF orientation says."""
    alpha: Literal["white", "contrast"] = "white"
    """What transparency is laid on: white; or white, and black where what is visible would drown in white."""
    jpeg_at_least: int = 0
    """A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size while neither side falls below this; 0: always in full."""
    icc: Literal["ignored", "srgb"] = "ignored"
    """Whether colours are converted to sRGB by the ICC profile that a picture carries."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.edge <= 4096:
            raise ValueError(f"the crop ({self.size}) must be 1 to the resized edge ({self.edge}), at most 4096")
        # Python's own JSON reader accepts NaN and Infinity, and neither is below zero.
        if not all(map(math.isfinite, (self.rescale, *self.mean, *self.std))):
            raise ValueError("rescale, mean and std must be finite numbers")
        if self.jpeg_at_least and not self.edge <= self.jpeg_at_least <= 65535:
            raise ValueError(
                f"a JPEG's scaled decoding ({self.jpeg_at_least}) must not fall below the edge ({self.edge})"
            )
        if self.rescale <= 0 or any(value <= 0 for value in self.std):
            raise ValueError("rescale and std must be positive")

    def canonical(self) -> bytes:
        """The spec as bytes that are equal exactly when the specs are: sorted keys, shortest exact numbers.

        Without what came later and means "as before", so that the ids of the first spaces stay.
        """
        fields = _without_as_before(msgspec.to_builtins(self))
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _without_as_before(spec: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in _AS_BEFORE or value != _AS_BEFORE[name]}


class Tensor(msgspec.Struct, frozen=True):
    """A weight as it enters the space's id: canonical name, dtype as stored, shape, little-endian C-order bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def space_id(tensors: Iterable[Tensor], spec: PreprocessingSpec) -> str:
    """The embedding space's id: SHA-256 (hex) over the tower's and projection's tensors and the spec.

    Over tensors, not files: the same weights in another container are the same space. The order of the tensors does
    not matter.
    """
    digest = hashlib.sha256(b"twinlens space 1\n")
    _update(digest, tensors)
    digest.update(b"spec " + spec.canonical())
    return digest.hexdigest()


def text_digest(tensors: Iterable[Tensor], tokenizer: bytes) -> str:
    """What identifies a text tower: SHA-256 (hex) over its tensors, as for the space's id, and its tokenizer.json."""
    digest = hashlib.sha256(b"twinlens text tower 1\n")
    _update(digest, tensors)
    digest.update(b"tokenizer " + tokenizer)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensors: Iterable[Tensor]) -> None:
    for tensor in sorted(tensors, key=lambda one: one.name):
        shape = "x".join(map(str, tensor.shape))
        data = memoryview(tensor.data)
        digest.update(f"{tensor.name} {tensor.dtype} {shape} {data.nbytes}\n".encode())
        digest.update(data)


class Space(_Record, frozen=True):
    """The set of vectors that may be compared with each other."""

    id: str
    dimensions: int

    @property
    def short_id(self) -> str:
        return short_id(self.id)


def short_id(space_id: str) -> str:
    """The beginning of a space's id, as people read it and type it: 12 of its 64 digits."""
    return space_id[:12]


class Source(_Record, frozen=True):
    """Where the weights came from: a hub id with its commit, a folder's name, or the built-in starter's packages."""

    kind: Literal["hub", "folder", "starter"]
    id: str
    revision: str | None = None


class Drift(_Record, frozen=True, kw_only=True):
    """How far vectors are from reference vectors of the same pictures (or texts). Cosines are taken in float64."""

    count: int
    """Pictures, or texts."""
    min_cosine: float
    mean_cosine: float
    min_centred_cosine: float
    """After the references' mean vector was subtracted from both: what all pictures share raises the raw cosine."""
    mean_centred_cosine: float
    self_first: int
    """How many have their own reference vector as their first match, among all references."""
    recall_at_10: float
    """The part of the ten nearest references that reference and measured vectors agree on; the mean."""
    largest_rank_change: int
    """By how many ranks the reference's nearest other picture moved, at most."""
    batch_identical: bool
    """Whether each vector was bit-identical alone and in any batch, where it was exported."""


class Parity(_Record, frozen=True, kw_only=True):
    """What the export measured on one device against the checkpoint's own pipeline, on real pictures and texts."""

    pixels_equal: int
    """Pictures whose pixels, decoded in full, equal the reference processor's to the last bit: all but those that the
    processor reads otherwise (it drops alpha, clips 16 bits and ignores the orientation)."""
    image: Drift
    text: Drift | None = None
    scaled_decoding: Drift | None = None
    """The gate's JPEGs decoded at the scale that the spec allows, against themselves decoded in full; in fp32."""


class Variant(_Record, frozen=True, kw_only=True):
    """One precision of the towers."""

    image: str
    """The image tower's file name."""
    text: str | None = None
    """The text tower's file name; it may be that of another precision, when this one's own did not pass the gate."""
    space: str
    min_cosine: float
    """The cosine to the reference that the gate required of each picture."""
    min_golden_cosine: float
    """The least cosine of a golden's vector to the stored one, at every start."""
    parity: dict[str, Parity]
    """By device: `cpu`, `cuda`."""
    grades: Grades | None = None
    """The least cosine of each grade, between two pictures; None where none were calibrated."""
    grading: Grading | None = None
    """What `grades` was chosen by."""
    text_grades: TextGrades | None = None
    """The same between words and a picture; None where there were no captions to calibrate it by."""
    text_grading: TextGrading | None = None
    """What `text_grades` was chosen by."""


class TextTower(_Record, frozen=True, kw_only=True):
    """How words become tokens; its graphs are named by the precisions."""

    architecture: str
    digest: str
    """SHA-256 over its tensors and its tokenizer; not in the space's id: a new text tower asks no re-embedding."""
    tokenizer: str = "tokenizer.json"
    """The file that the `tokenizers` package reads; it truncates to `length` by itself, and pads where `padded`."""
    length: int
    """L at most: how many tokens the tower was trained for, with those that mark beginning and end."""
    padded: bool
    """Whether every text runs at `length` tokens, because the tower was trained to see its padding; else at its own."""


class Golden(_Record, frozen=True):
    """A real picture and what becomes of it: file names inside the artifact."""

    picture: str
    lossless: bool
    pixels: str
    """uint8[S, S, 3] as .npy"""
    embeddings: dict[str, str]
    """precision -> float32[D] as .npy"""


class TextGolden(_Record, frozen=True):
    """A text and what becomes of it."""

    text: str
    tokens: list[int]
    embeddings: dict[str, str]
    """precision -> float32[D] as .npy, a file name inside the artifact"""


class File(_Record, frozen=True):
    bytes: int
    sha256: str


class Manifest(_Record, frozen=True, kw_only=True):
    """What an artifact is. Holds no time and no machine, so that the same export gives the same bytes."""

    format: int
    name: str
    model: str
    source: Source
    architecture: str
    space: Space
    preprocessing: PreprocessingSpec
    opset: int
    precisions: dict[Precision, Variant]
    goldens: list[Golden]
    text: TextTower | None = None
    text_goldens: list[TextGolden] = []
    versions: dict[str, str]
    files: dict[str, File]

    def as_written(self) -> dict[str, Any]:
        """What stands in manifest.json. An older server refuses fields that it does not know: so those that came later
        and mean "as before" are left out, and it goes on reading every manifest that asks nothing new of it."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        for variant in fields["precisions"].values():
            if variant["textGrading"] is None:
                del variant["textGrading"]
        return fields | {"preprocessing": _without_as_before(fields["preprocessing"])}

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.as_written()), indent=2) + b"\n"


def seal(manifest: bytes) -> bytes:
    """The content of the seal of a manifest, given its bytes on disk."""
    return f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n".encode()


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact on disk whose manifest has been read and found sound. `read` makes it."""

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> Artifact:
        """Read and check the manifest. Raises ArtifactInvalid in plain words."""
        path = folder / "manifest.json"
        try:
            data = path.read_bytes()
            # Without a seal (a manifest made by hand) only its form can be checked; `export verify` requires one.
            sealed = not (folder / SEAL).exists() or (folder / SEAL).read_bytes() == seal(data)
            manifest = msgspec.json.decode(data, type=Manifest)
        except FileNotFoundError as exc:
            raise ArtifactInvalid(f"There is no model artifact in {folder}: it has no manifest.json.") from exc
        except OSError as exc:
            raise ArtifactInvalid(f"{path} cannot be read: {exc.strerror}.") from exc
        except (msgspec.DecodeError, ValueError) as exc:
            raise ArtifactInvalid(f"{path} is not a manifest that this version reads: {exc}.") from exc
        if not sealed:
            raise ArtifactInvalid(
                f"{path} is not the manifest that was exported: {SEAL} says another digest. Copy the artifact again, "
                "or export it again."
            )
        if manifest.format not in READABLE:
            raise ArtifactInvalid(
                f"{path} is of format {manifest.format}; this version reads the formats "
                f"{' and '.join(map(str, READABLE))}."
            )
        if not manifest.precisions or not manifest.goldens:
            raise ArtifactInvalid(f"{path} names no precision or no goldens: the export was not finished.")
        if flaw := _flaw(manifest):
            raise ArtifactInvalid(f"{path} does not fit together: {flaw}.")
        for name in manifest.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ArtifactInvalid(f"{path} names a file outside its folder: {name}.")
        return cls(folder, manifest)

    @property
    def spec(self) -> PreprocessingSpec:
        return self.manifest.preprocessing

    def variant(self, precision: str) -> Variant:
        """The towers in one precision. Raises ArtifactInvalid, with the precisions that there are."""
        known = self.manifest.precisions
        for name, variant in known.items():
            if name == precision:
                return variant
        have = ", ".join(known)
        raise ArtifactInvalid(f"The artifact {self.manifest.name} has no {precision} graph; it has {have}.")

    def space(self, precision: str) -> Space:
        return Space(self.variant(precision).space, self.manifest.space.dimensions)

    def graph(self, precision: str) -> Path:
        return self.folder / self.variant(precision).image

    def text_graph(self, precision: str) -> Path:
        """Raises ArtifactInvalid where there is no text tower."""
        name = self.variant(precision).text
        if name is None:
            raise ArtifactInvalid(f"The artifact {self.manifest.name} has no text tower in {precision}.")
        return self.folder / name

    def digest_of(self, graph: str) -> str:
        """SHA-256 (hex) of a graph and of the weights beside it, over their digests in the manifest."""
        files = sorted((name, file.sha256) for name, file in self.manifest.files.items() if name.startswith(graph))
        return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in files).encode()).hexdigest()

    def check_files(self, names: Iterable[str] | None = None) -> None:
        """Compare files with the manifest's digests; all of them when none are named.

        Raises ArtifactInvalid that names the first file that is missing or differs.
        """
        for name in self.manifest.files if names is None else names:
            expected = self.manifest.files.get(name)
            if expected is None:
                raise ArtifactInvalid(f"The manifest of {self.manifest.name} has no digest for {name}.")
            try:
                with (self.folder / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as exc:
                raise ArtifactInvalid(f"{self.folder / name} cannot be read: {exc.strerror}.") from exc
            if found != expected.sha256:
                raise ArtifactInvalid(
                    f"{self.folder / name} is not the file that was exported: its SHA-256 is {found}, "
                    f"the manifest says {expected.sha256}. Copy the artifact again, or export it again."
                )

    def files_to_run(self, precision: str) -> list[str]:
        """The files that running one precision reads: its graphs (with weights beside them), tokenizer and goldens."""
        variant = self.variant(precision)
        graphs = [graph for graph in (variant.image, variant.text) if graph is not None]
        beside = tuple(f"{graph}." for graph in graphs)
        ours = [*graphs, *(name for name in self.manifest.files if name.startswith(beside))]
        for golden in self.manifest.goldens:
            ours += [golden.picture, golden.pixels, golden.embeddings[precision]]
        if self.manifest.text is not None:
            ours += [self.manifest.text.tokenizer]
            ours += [golden.embeddings[precision] for golden in self.manifest.text_goldens]
        return ours

    def without_words(self) -> Artifact:
        """The artifact without its text tower, for pictures alone."""
        return Artifact(self.folder, msgspec.structs.replace(self.manifest, text=None, text_goldens=[]))

    def self_test(
        self,
        precision: str,
        to_pixels: Callable[[bytes], NDArray[np.uint8]],
        encode: Callable[[NDArray[np.uint8]], Vectors],
        to_tokens: Callable[[str], Tokens] | None = None,
        encode_text: Callable[[Tokens], Vectors] | None = None,
    ) -> float:
        """Run the goldens through every link of the chain, here and now; return the lowest cosine.

        `to_pixels` turns a picture's bytes into uint8[S, S, 3]; `encode` turns uint8[N, S, S, 3] into float32[N, D].
        Where there is a text tower, `to_tokens` turns a text into int64[L], `encode_text` int64[N, L] into
        float32[N, D].
        Raises ArtifactInvalid that names the link that drifted and by how much.
        """
        lowest = 1.0
        for golden in self.manifest.goldens:
            stored = self._array(golden.pixels)
            _prove_pixels(golden, stored, to_pixels((self.folder / golden.picture).read_bytes()))
            found = encode(stored[None])[0]
            lowest = min(lowest, self._prove_vector(golden, precision, golden.picture, "pixels to vector", found))
        if self.manifest.text is None:
            return lowest
        if to_tokens is None or encode_text is None:
            raise ValueError("an artifact with a text tower is tested with to_tokens and encode_text")
        for words in self.manifest.text_goldens:
            name = json.dumps(words.text, ensure_ascii=False)
            _prove_tokens(words, name, to_tokens(words.text))
            found = encode_text(np.array([words.tokens], np.int64))[0]
            lowest = min(lowest, self._prove_vector(words, precision, name, "tokens to vector", found))
        return lowest

    def _prove_vector(
        self, golden: Golden | TextGolden, precision: str, name: str, link: str, found: NDArray[np.float32]
    ) -> float:
        """The cosine to the golden's stored vector. Raises ArtifactInvalid when it is too low."""
        least = self.variant(precision).min_golden_cosine
        expected = self._array(golden.embeddings[precision]).astype(np.float64)
        found = found.astype(np.float64)
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise ArtifactInvalid(f"{link}: {name} gave {found.shape}, or not finite.")
        cosine = float(expected @ found / (np.linalg.norm(expected) * np.linalg.norm(found)))
        # Not `cosine < least`: a golden of zeros has no cosine, and passes no comparison.
        if not cosine >= least:
            raise ArtifactInvalid(
                f"The golden {name} no longer gives the vector of its export (link: {link}): "
                f"cosine {cosine:.8f}, at least {least} is needed. Another runtime, driver or provider is the "
                "likely cause; the search would not be comparable, so nothing was started."
            )
        return cosine

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / name, allow_pickle=False)
        return array


def _flaw(manifest: Manifest) -> str | None:
    """What does not fit together in a manifest, as the end of a sentence; None when everything does."""
    named = [precision for precision, variant in manifest.precisions.items() if variant.text is not None]
    if (tower := manifest.text) is None and (named or manifest.text_goldens):
        return "it has a text graph or a golden text, and describes no text tower"
    if tower is not None:
        if len(named) < len(manifest.precisions):
            return "it describes a text tower, and not every precision names a text graph"
        if not manifest.text_goldens:
            return "it describes a text tower, and has no golden text"
        least = tower.length if tower.padded else 1
        if any(not least <= len(golden.tokens) <= tower.length for golden in manifest.text_goldens):
            return "a golden text has another number of tokens than the text tower accepts"
    goldens: list[Golden | TextGolden] = [*manifest.goldens, *manifest.text_goldens]
    if any(precision not in golden.embeddings for golden in goldens for precision in manifest.precisions):
        return "a golden has no vector in one of the precisions"
    return None


def _prove_pixels(golden: Golden, stored: NDArray[np.uint8], made: NDArray[np.uint8]) -> None:
    if made.shape != stored.shape:
        raise ArtifactInvalid(f"bytes to pixels: {golden.picture} gave {made.shape}, not {stored.shape}.")
    drift = int(np.abs(made.astype(np.int16) - stored.astype(np.int16)).max())
    allowed = 0 if golden.lossless else LOSSY_TOLERANCE
    if drift > allowed:
        raise ArtifactInvalid(
            f"The golden {golden.picture} no longer decodes to the pixels of its export (link: bytes to "
            f"pixels): a sample differs by {drift} of 255, {allowed} is allowed. Another version of Pillow "
            "or of its codecs is the likely cause; the search would not be comparable, so nothing was started."
        )


def _prove_tokens(golden: TextGolden, name: str, made: Tokens) -> None:
    if made.tolist() != golden.tokens:
        raise ArtifactInvalid(
            f"The golden text {name} no longer gives the tokens of its export (link: text to tokens): "
            f"{made.tolist()}, not {golden.tokens}. Another version of the package tokenizers is the likely cause; "
            "the search would not be comparable, so nothing was started."
        )
