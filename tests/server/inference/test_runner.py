"""Runners: batches laid out and run, on the CPU; where CUDA would be, the same with its buffers on the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from server.artifact.artifact import Artifact
from server.inference.cuda import BoundRunner
from server.inference.runner import PlainRunner
from tests import STARTER
from tests.support import artifacts

MOST = 6
LENGTH = artifacts.LENGTH


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.read(artifacts.with_words(tmp_path_factory.mktemp("runner") / "artifact", padded=True))


def session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def pictures_session() -> Any:
    return session(Artifact.read(STARTER).graph("fp32"))


@pytest.fixture(scope="module")
def texts_session(artifact: Artifact) -> Any:
    return session(artifact.text_graph("fp32"))


@pytest.fixture(scope="module", params=[PlainRunner, BoundRunner])
def runner(request: pytest.FixtureRequest, pictures_session: Any) -> Iterator[BoundRunner | PlainRunner]:
    made = request.param(pictures_session, MOST)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (MOST, 224, 224, 3), np.uint8))


@pytest.fixture(scope="module")
def alone(pictures_session: Any, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.concatenate([pictures_session.run(None, {"pixels": one[None]})[0] for one in pictures])


def test_a_batch_of_any_size_gives_what_each_picture_gives_alone(
    runner: BoundRunner | PlainRunner, pictures: list[NDArray[np.uint8]], alone: NDArray[np.float32]
) -> None:
    # Downwards, so that the rows behind a batch hold another one's pictures.
    for count in range(MOST, 0, -1):
        np.testing.assert_array_equal(runner(pictures[-count:]), alone[-count:])


def test_vectors_are_the_callers_own(
    runner: BoundRunner | PlainRunner, pictures: list[NDArray[np.uint8]], alone: NDArray[np.float32]
) -> None:
    kept = runner(pictures[:2])
    runner(pictures[2:])[...] = 0
    np.testing.assert_array_equal(kept, alone[:2])
    np.testing.assert_array_equal(runner(pictures), alone)


def test_callers_may_be_several_threads_one_after_another(
    runner: BoundRunner | PlainRunner, pictures: list[NDArray[np.uint8]], alone: NDArray[np.float32]
) -> None:
    found = []
    for one in pictures:
        thread = Thread(target=lambda one=one: found.append(runner([one])))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(np.concatenate(found), alone)


def test_more_entries_than_the_runner_accepts_are_refused_and_so_are_none(
    runner: BoundRunner | PlainRunner, pictures: list[NDArray[np.uint8]]
) -> None:
    for wrong in ([], [*pictures, pictures[0]]):
        with pytest.raises(ValueError, match=f"1 to {MOST} entries, not {len(wrong)}"):
            runner(wrong)


def test_a_picture_of_another_shape_is_refused_and_the_next_batch_runs(
    runner: BoundRunner | PlainRunner, pictures: list[NDArray[np.uint8]], alone: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=r"\(224, 224, 3\), not \(1, 1, 3\)"):
        runner([pictures[0], pictures[1][:1, :1]])
    np.testing.assert_array_equal(runner(pictures), alone)


def test_texts_of_any_length_run(texts_session: Any) -> None:
    runner = PlainRunner(texts_session, MOST)
    for length in (3, 1, LENGTH):
        texts = np.random.default_rng(length).integers(4, 12, (MOST, length))
        np.testing.assert_array_equal(runner(list(texts)), texts_session.run(None, {"tokens": texts})[0])


def test_texts_of_one_length_can_be_bound_when_their_shape_is_given(texts_session: Any) -> None:
    with pytest.raises(ValueError, match="tokens of any shape cannot be bound"):
        BoundRunner(texts_session, MOST)
    runner = BoundRunner(texts_session, MOST, shape=(LENGTH,))
    texts = np.random.default_rng(1).integers(4, 12, (3, LENGTH))
    np.testing.assert_array_equal(runner(list(texts)), texts_session.run(None, {"tokens": texts})[0])
    runner.close()


def test_a_run_that_fails_raises_and_the_next_works(texts_session: Any) -> None:
    good, bad = np.full(LENGTH, 5), np.full(LENGTH, 10**6)
    for runner in (PlainRunner(texts_session, MOST), BoundRunner(texts_session, MOST, shape=(LENGTH,))):
        expected = runner([good])
        with pytest.raises(Exception, match="indices element out of data bounds"):
            runner([good, bad])
        np.testing.assert_array_equal(runner([good]), expected)
        runner.close()


@pytest.mark.parametrize("kind", [PlainRunner, BoundRunner])
def test_a_closed_runner_runs_nothing(
    kind: type[BoundRunner] | type[PlainRunner], pictures_session: Any, pictures: list[NDArray[np.uint8]]
) -> None:
    runner = kind(pictures_session, 1)
    runner.close()
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner(pictures[:1])
