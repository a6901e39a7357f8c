"""What passes between the stages comes out as it went in: batches, pixels, errors."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

from server import errors
from server.bulk.on_ray.records import Batch, Told, Trouble, batch_of, number_of, packed, pixels_of
from server.errors import IngestRefused, PictureTooLarge, StoreUnavailable, TwinlensError

KINDS = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, TwinlensError)]


def test_a_record_holds_its_batch_and_its_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), np.uint8)
    record = packed(Batch(7, told=[Told(1, "failed", trouble=Trouble.of(IngestRefused("No.")))]), pixels)
    assert (number_of(record), batch_of(record).told[0].trouble) == (7, Trouble("IngestRefused", "No.", {}))
    assert np.array_equal(pixels_of(record, 3, 4), pixels)


@pytest.mark.parametrize(
    "error",
    [PictureTooLarge(9, 9, 5), StoreUnavailable(reason="full", known=True), IngestRefused("No.")],
    ids=lambda one: one.code,
)
def test_an_error_is_the_same_on_the_other_side(error: TwinlensError) -> None:
    there = pickle.loads(pickle.dumps(Trouble.of(error))).error()
    assert (type(there), there.sentence, there.line, vars(there)) == (
        type(error),
        error.sentence,
        error.line,
        vars(error),
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_every_kind_of_error_can_pass(kind: type[TwinlensError]) -> None:
    assert type(Trouble(kind.__name__, "A sentence.", {}).error()) is kind
