"""The gate: its pictures, what it measures, and what it lets pass."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.checkpoints.preprocessing import processor_of
from export.errors import ExportRefused
from export.proof import gate, parity
from export.proof.gate import BATCH, Measured, judge, judge_texts, measure_images, measure_texts, own_space
from export.proof.parity import (
    MOST_CALIBRATION,
    PICTURES,
    GatePicture,
    calibration_pictures,
    gate_pictures,
    prove_pixels,
)
from server.artifact.artifact import Artifact, PreprocessingSpec
from server.errors import EncoderFailed
from server.inference.encoder import Encoder
from tests import STARTER
from tests.support.pictures import in_format
from tests.support.vectors import directions, turned

SPEC = PreprocessingSpec(
    size=48,
    resize="shortest-edge",
    edge=48,
    resample="bicubic",
    rescale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


@pytest.fixture(scope="module")
def bundled() -> list[GatePicture]:
    return gate_pictures(SPEC)


# --- the pictures ----------------------------------------------------------------------------------------------------


def test_the_bundled_pictures_are_varied_and_not_too_many(bundled: Sequence[GatePicture]) -> None:
    assert 60 <= len(bundled) <= 100
    assert sum(len(picture.data) for picture in bundled) < 7_000_000
    opened = [picture.open() for picture in bundled]
    assert {image.format for image in opened} >= {"JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"}
    assert {image.mode for image in opened} >= {"RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"}
    assert {image.getexif().get(0x0112) for image in opened} >= {2, 3, 5, 6, 8}
    assert any(image.info.get("progressive") for image in opened)
    large = [image for image in opened if image.format == "JPEG" and image.width * image.height > 5_000_000]
    assert len(large) >= 3
    shapes = [image.width / image.height for image in opened]
    assert min(shapes) < 0.3
    assert max(shapes) > 10


def test_every_bundled_picture_has_its_licence(bundled: Sequence[GatePicture]) -> None:
    text = (PICTURES / "LICENCES.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == [picture.name for picture in bundled]
    assert f"{len(rows)} real pictures" in text
    for row in rows:
        assert len(row) == 5, row
        assert all(row), row
        assert " by " in row[1] or "NASA" in row[1], row
        named = re.match(r"\[(CC[^\]]+)\]|public domain|Apache-2.0", row[2])
        assert named, row
        assert named[1] is None or f"[{named[1]}]: https://creativecommons.org/" in text
    assert not any("NC" in row[2] or "ND" in row[2] for row in rows if row[2].startswith("["))


def test_bundled_pictures_carry_no_metadata_but_their_orientation(bundled: Sequence[GatePicture]) -> None:
    for picture in bundled:
        image = picture.open()
        assert set(image.getexif()) <= {0x0112} or image.format == "TIFF", picture.name
        assert not {"xmp", "icc_profile", "comment", "photoshop"} & set(image.info), picture.name


def test_pixels_are_proved_to_the_last_bit_where_the_checkpoints_pipeline_means_the_same(
    bundled: Sequence[GatePicture],
) -> None:
    equal = prove_pixels(processor_of(SPEC), bundled)
    others = [picture.name for picture in bundled if not picture.alike]
    assert equal == len(bundled) - len(others)
    assert {"eiffel-tower.jpg", "wine-bottle.png", "gravel.png", "birthday-cake.gif", "fedora.avif"} <= set(others)
    assert {"mount-rushmore.jpg", "handwriting.png", "photographer.png", "koala.jpg"}.isdisjoint(others)


@pytest.mark.parametrize("name", ["cat.png", "eiffel-tower.jpg", "cherries.png", "gravel.png"])
def test_one_sample_that_differs_stops_the_export(name: str, bundled: Sequence[GatePicture]) -> None:
    picture = next(picture for picture in bundled if picture.name == name)
    pixels = picture.pixels.copy()
    pixels[20, 20, 1] ^= 1
    changed = GatePicture(picture.path, picture.data, pixels, alike=picture.alike)
    with pytest.raises(ExportRefused, match=name):
        prove_pixels(processor_of(SPEC), [changed])


# --- a folder of one's own -------------------------------------------------------------------------------------------


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path.write_bytes(in_format(Image.fromarray(noise), "PNG"))


def test_calibration_reads_nested_folders_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "shoes/red/a.PNG", "shoes/without-a-suffix", ".hidden/c.png", ".d.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "README.md").write_text("# nor this")
    found = calibration_pictures(SPEC, tmp_path)
    assert [picture.name for picture in found] == [
        "calibration/b.png",
        "calibration/shoes/red/a.PNG",
        "calibration/shoes/without-a-suffix",
    ]
    assert found[0].pixels.shape == (48, 48, 3)


@pytest.mark.parametrize("name", ["broken.jpg", "deep/empty.png", "phone.heic"])
def test_a_picture_that_cannot_be_read_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"" if "empty" in name else b"\xff\xd8\xff" + b"nonsense" * 9)
    with pytest.raises(ExportRefused, match=re.escape(name)):
        calibration_pictures(SPEC, tmp_path)


def test_a_folder_without_pictures_or_without_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ExportRefused, match="no picture in"):
        calibration_pictures(SPEC, tmp_path)
    with pytest.raises(ExportRefused, match="There is no folder"):
        calibration_pictures(SPEC, tmp_path / "nowhere")


def test_of_many_pictures_some_are_chosen_evenly_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MOST_CALIBRATION", 4)
    for at in range(10):
        save(tmp_path / f"{at}.png", at)
    names = [picture.name for picture in calibration_pictures(SPEC, tmp_path)]
    assert names == [f"calibration/{at}.png" for at in (0, 2, 5, 7)]
    assert MOST_CALIBRATION >= 100


# --- measuring -------------------------------------------------------------------------------------------------------


class Tower:
    """Looks up a picture's or text's vector by its first number; `spoil` may change a batch's."""

    def __init__(self, vectors: NDArray[Any], spoil: Callable[[NDArray[Any]], None] = lambda batch: None) -> None:
        self.vectors = vectors.astype(np.float32)
        self.spoil = spoil
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        found: NDArray[np.float32] = self.vectors[batch.reshape(len(batch), -1)[:, 0]].copy()
        if len(batch) > 1:
            self.spoil(found)
        return found


def numbered(count: int) -> list[GatePicture]:
    return [GatePicture(Path(f"{at:02}.png"), b"", np.full((2, 2, 3), at, np.uint8)) for at in range(count)]


@pytest.mark.parametrize("count", [1, 2, 9, 16, 31])
def test_every_picture_is_measured_alone_and_in_batches_of_bounded_size(count: int) -> None:
    seen: set[float] = set()
    tower = Tower(directions(count), lambda batch: seen.update(batch[:, 0].tolist()))
    measured = measure_images(directions(count), tower, numbered(count))
    assert measured.batch_identical
    assert measured.compared.cosine.min() > 1 - 1e-12
    assert tower.shapes[:count] == [(1, 2, 2, 3)] * count
    assert max(shape[0] for shape in tower.shapes) <= BATCH
    assert len(seen) == (count if count > 1 else 0)


def test_a_vector_that_depends_on_its_batch_is_judged_by_the_worse_of_the_two() -> None:
    def spoil(batch: NDArray[Any]) -> None:
        batch[0] += np.float32(0.05)

    measured = measure_images(directions(), Tower(directions(), spoil), numbered(30))
    assert not measured.batch_identical
    assert not measured.drift.batch_identical
    assert measured.compared.cosine.min() < 0.99


def test_the_starter_gives_the_same_bits_alone_and_in_any_batch() -> None:
    artifact = Artifact.read(STARTER)
    pictures = gate_pictures(artifact.spec)[::6]
    with Encoder(artifact, "fp32", "cpu") as encoder:
        measured = measure_images(None, encoder, pictures)
    assert measured.batch_identical
    assert measured.drift.self_first == len(pictures)


def test_texts_of_different_lengths_never_share_a_batch() -> None:
    lengths = (3, 5, 3, 9, 5, 3)
    tokens = [np.full(length, at, np.int64) for at, length in enumerate(lengths)]
    tower = Tower(directions(6))
    measured = measure_texts(directions(6), tower, list("abcdef"), tokens)
    assert measured.batch_identical
    assert measured.compared.cosine.min() > 1 - 1e-12
    # The one that has no other of its length is tried in a batch as well.
    assert {shape for shape in tower.shapes if shape[0] > 1} == {(3, 3), (2, 3), (2, 5), (2, 9)}


def test_a_graph_that_fails_is_refused_in_a_sentence() -> None:
    class Failing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def encode(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
            raise self.error

    runtime = EncoderFailed()
    runtime.__cause__ = RuntimeError("no kernel for this node")
    with pytest.raises(ExportRefused, match="no kernel for this node"):
        measure_images(directions(3), Failing(runtime), numbered(3))
    with pytest.raises(ExportRefused, match="not finite in ONNX Runtime"):
        measure_images(directions(3), Failing(EncoderFailed("not finite")), numbered(3))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_checkpoint_whose_own_vectors_have_no_direction_is_refused(value: float) -> None:
    class Reference:
        def reference_vector(self, text: str) -> NDArray[Any]:
            return np.full(4, value if text == "b" else 0.5)

    with pytest.raises(ExportRefused, match="tiny give vectors that are not finite, or have no length"):
        gate.text_references(Reference(), ["a", "b"], "tiny")


def test_references_are_of_the_picture_as_the_checkpoint_reads_it(bundled: Sequence[GatePicture]) -> None:
    class Reference:
        sizes: list[tuple[int, int]]

        def __init__(self) -> None:
            self.sizes = []

        def reference_vector(self, picture: Image.Image) -> NDArray[Any]:
            self.sizes.append(picture.size)
            return np.ones(2)

    reference = Reference()
    chosen = [picture for picture in bundled if picture.name in ("cat.png", "eiffel-tower.jpg")]
    gate.references(reference, chosen, "tiny")
    # Stored on its side, and given upright.
    assert chosen[1].open().size == (320, 180)
    assert reference.sizes == [(301, 200), (180, 320)]


# --- judging ---------------------------------------------------------------------------------------------------------


def measured(found: NDArray[Any], references: NDArray[Any] | None = None) -> Measured:
    names = [f"picture-{at:02}.jpg" for at in range(len(found))]
    return Measured(names, directions(len(found)) if references is None else references, found, True)


def test_fp32_must_come_within_a_millionth_and_no_drift_of_it_is_accepted() -> None:
    good, bad = (measured(turned(directions(), 4, 9, cosine)) for cosine in (0.9999995, 0.9999985))
    assert judge("fp32", {"cpu": good}).shares_space
    for allowed in (None, 0.5):
        with pytest.raises(ExportRefused, match="no drift of it can be accepted") as refused:
            judge("fp32", {"cpu": bad}, allowed)
        assert "picture-04.jpg  0.99999850" in refused.value.sentence
        assert "picture-05" not in refused.value.sentence


def test_fp32_on_another_device_must_reach_what_the_server_asks_of_its_goldens_there() -> None:
    exact = measured(directions())
    assert judge("fp32", {"cpu": exact, "cuda": measured(turned(directions(), 4, 9, 0.999995))}).shares_space
    with pytest.raises(ExportRefused, match=r"on cuda: 1 of 30 pictures drifted \(1 with a cosine below 0\.99999,"):
        judge("fp32", {"cpu": exact, "cuda": measured(turned(directions(), 4, 9, 0.999985))})


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_another_precision_shares_the_space_from_three_nines_on(precision: Any) -> None:
    verdict = judge(precision, {"cpu": measured(turned(directions(), 4, 9, 0.99901))})
    assert (verdict.shares_space, verdict.min_cosine) == (True, 0.999)
    with pytest.raises(ExportRefused, match=r"1 of 30 pictures drifted \(1 with a cosine below 0\.999, 0 that do not"):
        judge(precision, {"cpu": measured(turned(directions(), 4, 9, 0.99899))})


def test_a_precision_that_moves_a_picture_nearer_to_another_is_refused_at_any_cosine() -> None:
    references = directions()
    references[9] = turned(references, 4, 9, 0.9996)[4]
    found = turned(references, 4, 9, 0.9991)
    one = measured(found, references)
    assert one.compared.cosine.min() >= 0.999
    with pytest.raises(ExportRefused, match=r"0 with a cosine below 0\.999, 1 that do not find themselves first"):
        judge("int8", {"cpu": one})


def test_the_same_picture_twice_still_finds_itself_first() -> None:
    references = directions()
    references[9] = references[4]
    assert judge("int8", {"cpu": measured(turned(references, 4, 20, 0.9995), references)}).shares_space


def test_allowed_drift_is_accepted_into_a_space_of_its_own() -> None:
    one = measured(turned(directions(), 4, 9, 0.98))
    verdict = judge("int8", {"cpu": one}, 0.97)
    assert (verdict.shares_space, verdict.min_cosine) == (False, 0.97)
    assert "--allow-drift 0.97" in verdict.sentence
    with pytest.raises(ExportRefused, match=r"--allow-drift 0\.985 is above the lowest cosine, 0\.980000"):
        judge("int8", {"cpu": one}, 0.985)


def test_allowing_drift_changes_nothing_where_there_is_none() -> None:
    verdict = judge("int8", {"cpu": measured(directions())}, 0.9)
    assert (verdict.shares_space, verdict.min_cosine) == (True, 0.999)


def test_the_device_that_drifts_decides_and_is_named() -> None:
    good, bad = measured(directions()), measured(turned(directions(), 4, 9, 0.9))
    with pytest.raises(ExportRefused, match="vectors on cuda") as refused:
        judge("fp16", {"cpu": good, "cuda": bad})
    assert "on cpu" not in refused.value.sentence
    assert not judge("fp16", {"cpu": good, "cuda": bad}, 0.9).shares_space


def test_a_refusal_shows_the_worst_ten_first_and_says_what_to_do() -> None:
    references = directions(40)
    found = references.copy()
    for at in range(14):
        found = turned(found, at, at + 20, 0.95 + at / 1000)
    with pytest.raises(ExportRefused) as refused:
        judge("int8", {"cpu": measured(found, references)})
    lines = refused.value.sentence.splitlines()
    assert "14 of 40 pictures drifted" in lines[0]
    assert [line.split()[0] for line in lines[2:12]] == [f"picture-{at:02}.jpg" for at in range(10)]
    assert lines[12].strip() == "and 4 more"
    assert "--allow-drift 0.95," in lines[13]


@pytest.mark.parametrize("cosine", [0.9985, 0.98765, 0.5, 0.011])
def test_the_drift_that_a_refusal_suggests_would_be_accepted(cosine: float) -> None:
    one = measured(turned(directions(), 4, 9, cosine))
    with pytest.raises(ExportRefused) as refused:
        judge("int8", {"cpu": one})
    suggested = re.search(r"--allow-drift (\S+),", refused.value.sentence)
    assert suggested
    assert cosine - 0.02 < float(suggested[1]) <= cosine
    assert not judge("int8", {"cpu": one}, float(suggested[1])).shares_space


def test_a_vector_that_is_not_a_number_is_the_worst_drift_of_all() -> None:
    found = turned(directions(), 4, 9, 0.2)
    found[7] = np.nan
    for allowed in (None, 0.1):
        with pytest.raises(ExportRefused, match="No --allow-drift accepts them") as refused:
            judge("int8", {"cpu": measured(found)}, allowed)
        assert refused.value.sentence.splitlines()[2].split()[0] == "picture-07.jpg"


def test_a_text_tower_that_drifts_is_left_out_with_a_notice() -> None:
    bad = measured(turned(directions(), 4, 9, 0.99))
    verdict = judge_texts("int8", {"cpu": bad})
    assert not verdict.own
    assert "has no text graph of its own and uses that of fp32: 1 of 30 texts" in verdict.sentence
    assert judge_texts("int8", {"cpu": measured(turned(directions(), 4, 9, 0.9995))}).own
    with pytest.raises(ExportRefused, match="text graph does not give"):
        judge_texts("fp32", {"cpu": bad})


def test_a_text_in_a_table_cannot_send_control_characters_to_the_terminal() -> None:
    one = Measured(["\x1b[31mred\n" + "x" * 99, "b"], directions(2), directions(2).astype(np.float32), True)
    assert "\x1b" not in gate.table(one, [0, 1])
    assert len(gate.table(one, [0, 1]).splitlines()) == 3


def test_the_id_of_an_own_space_depends_on_the_base_the_precision_and_the_graph() -> None:
    ids = {
        own_space("a" * 64, "int8", ["1" * 64]),
        own_space("b" * 64, "int8", ["1" * 64]),
        own_space("a" * 64, "fp16", ["1" * 64]),
        own_space("a" * 64, "int8", ["2" * 64]),
        own_space("a" * 64, "int8", ["1" * 64, "2" * 64]),
    }
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in ids)
    assert own_space("a" * 64, "int8", ["1" * 64]) in ids


def test_a_bundled_gif_and_an_avif_decode_here(bundled: Sequence[GatePicture]) -> None:
    """Some builds of Pillow lack a codec; the gate says so at once, and not in the middle of an export."""
    assert {Image.open(io.BytesIO(picture.data)).format for picture in bundled} >= {"GIF", "AVIF"}
