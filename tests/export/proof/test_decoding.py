"""How the gate measures JPEGs that are decoded at a scale."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.errors import ExportRefused
from export.proof import decoding
from export.proof.drift import Compared
from export.proof.parity import PICTURES
from server.preprocessing import media
from tests.support.pictures import in_format
from tests.support.stand_ins import SPEC, encode

SCALED = decoding.scaled_by_default(SPEC)


def photographs(*names: str) -> list[tuple[str, bytes]]:
    return [(name, (PICTURES / name).read_bytes()) for name in names]


def test_the_default_is_twice_the_edge_and_changes_nothing_else() -> None:
    assert SCALED.jpeg_at_least == 128
    assert msgspec.structs.replace(SCALED, jpeg_at_least=0) == SPEC
    for spec in (SPEC, msgspec.structs.replace(SPEC, edge=80, resize="shortest-edge")):
        assert decoding.scaled_by_default(spec).jpeg_at_least == 2 * spec.edge


def test_every_jpeg_is_decoded_in_full_and_at_its_scale_and_nothing_else_is() -> None:
    found = decoding.decode_twice(photographs("cat.png", "two-dogs.jpg", "paintbrushes.webp", "brick-wall.jpg"), SCALED)
    assert [(one.name, one.scale) for one in found] == [("two-dogs.jpg", 8), ("brick-wall.jpg", 2)]
    for one in found:
        data = (PICTURES / one.name).read_bytes()
        np.testing.assert_array_equal(one.full, media.read_pixels(data, SPEC, max_pixels=10**8))
        np.testing.assert_array_equal(one.scaled, media.read_pixels(data, SCALED, max_pixels=10**8))
        assert 0 < one.apart.mean() < 3


def test_a_spec_that_decodes_in_full_moves_nothing() -> None:
    found = decoding.decode_twice(photographs("two-dogs.jpg", "astronaut.jpg"), SPEC)
    assert [(one.scale, int(one.apart.max())) for one in found] == [(1, 0), (1, 0)]
    compared = decoding.compare_vectors(found, encode)
    np.testing.assert_allclose(compared.cosine, 1)
    decoding.prove_decoding(found, compared)


def test_the_gates_photographs_keep_their_vectors() -> None:
    found = decoding.decode_twice(photographs(*(path.name for path in sorted(PICTURES.glob("*.jpg")))), SCALED)
    assert sum(one.scale > 1 for one in found) >= 6
    compared = decoding.compare_vectors(found, encode)
    assert 0.999 < compared.cosine.min() < 1
    assert (compared.rank == 0).all()
    decoding.prove_decoding(found, compared)
    drift = compared.drift(batch_identical=True)
    assert (drift.count, drift.self_first, drift.largest_rank_change) == (len(found), len(found), 0)


def test_pictures_are_encoded_alone_and_only_when_their_pixels_may_have_moved() -> None:
    asked: list[int] = []

    def watched(pixels: media.Pixels) -> NDArray[np.float64]:
        asked.append(len(pixels))
        return encode(pixels)

    found = decoding.decode_twice(photographs("two-dogs.jpg", "brick-wall.jpg"), decoding.scaled_by_default(SPEC))
    small = decoding.decode_twice([("small", in_format(Image.new("RGB", (100, 100)), "JPEG"))], SCALED)
    decoding.compare_vectors([*found, *small], watched)
    assert asked == [1] * 5


def test_a_tower_that_depends_on_what_a_scale_leaves_out_is_refused_by_name() -> None:
    found = decoding.decode_twice(photographs("two-dogs.jpg", "brick-wall.jpg"), SCALED)

    def picky(pixels: media.Pixels) -> NDArray[np.float64]:
        """The last bits of a few samples, and nothing of the picture."""
        bits: NDArray[np.float64] = (pixels[:, ::8, ::8, 0].reshape(len(pixels), -1) & 1).astype(np.float64)
        return bits - 0.4

    with pytest.raises(ExportRefused, match=r"moves the vectors of 2 of 2 pictures too far") as caught:
        decoding.prove_decoding(found, decoding.compare_vectors(found, picky))
    assert "\n  two-dogs.jpg    at 1/8: cosine " in str(caught.value)
    assert "--jpeg full" in str(caught.value)


def test_the_gate_asks_for_a_cosine_of_every_picture_and_not_for_a_rank() -> None:
    found = decoding.decode_twice(photographs("two-dogs.jpg", "brick-wall.jpg"), SCALED)
    compared = decoding.compare_vectors(found, encode)
    decoding.prove_decoding(found, compared)
    compared.rank[1] = 1  # as where a folder holds one photograph twice
    decoding.prove_decoding(found, compared)
    for bad in (0.9899, np.nan):
        compared.cosine[0] = bad
        with pytest.raises(ExportRefused, match=rf"1 of 2 pictures.*\n  two-dogs.jpg  at 1/8: cosine {bad}"):
            decoding.prove_decoding(found, compared)
    decoding.prove_decoding(found[1:], compared_of(compared, 1))


def compared_of(compared: Compared, at: int) -> Compared:
    parts: list[Any] = [getattr(compared, field.name)[at:] for field in dataclasses.fields(compared)]
    return Compared(*parts)


def test_a_large_jpeg_and_a_smaller_copy_of_it_are_as_alike_as_when_both_are_decoded_in_full() -> None:
    """The one is decoded at a scale and the other is not, or at another one."""
    original = Image.open(PICTURES / "two-dogs.jpg")
    large = (PICTURES / "two-dogs.jpg").read_bytes()
    for parts in (2, 3, 5):
        out = io.BytesIO()
        original.resize((original.width // parts, original.height // parts), Image.Resampling.LANCZOS).save(out, "JPEG")
        alike = {}
        for spec in (SPEC, SCALED):
            one, other = (
                encode(media.read_pixels(data, spec, max_pixels=10**8)[None])[0] for data in (large, out.getvalue())
            )
            alike[spec.jpeg_at_least] = one @ other
        assert alike[128] > 0.999
        assert alike[128] == pytest.approx(alike[0], abs=5e-4)
