"""The layout that is found by trying, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.errors import EncoderFailed
from server.inference.cores import BATCHES, Layout, find, plain, remembered, widths


class Runner:
    """Takes so many seconds for a run, and so many for each entry in it."""

    def __init__(self, run: float | int, entry: float, most: int) -> None:
        self.run, self.entry, self.most = run, entry, most

    def __call__(self, entries: Sequence[Any]) -> NDArray[np.float32]:
        assert len(entries) <= self.most
        time.sleep(self.run + self.entry * len(entries))
        return np.zeros((len(entries), 1), np.float32)

    def close(self) -> None: ...


def machine(per_run: dict[int, float] | dict[int, int], per_entry: dict[int, float]) -> Callable[..., Any]:
    """Runners of a machine on which those figures are by width."""

    def runners(count: int, width: int, most: int) -> list[Runner]:
        return [Runner(per_run[width], per_entry[width], most) for _ in range(count)]

    return runners


def test_widths_leave_no_thread_over() -> None:
    assert widths(1) == [1]
    assert widths(2) == [1, 2]
    assert widths(6) == [1, 2, 6]
    assert widths(16) == [1, 2, 4, 8, 16]


def test_narrow_runs_are_chosen_where_they_do_more_together() -> None:
    # Two at 10 ms each do 200 a second, a wide one at 9 ms does 111, whatever the batch.
    layout = find(machine({1: 0, 2: 0}, {1: 0.010, 2: 0.009}), None, 2)
    assert (layout.count, layout.width) == (2, 1)


def test_a_wide_run_is_chosen_where_it_does_more() -> None:
    layout = find(machine({1: 0, 2: 0}, {1: 0.010, 2: 0.003}), None, 2)
    assert (layout.count, layout.width) == (1, 2)


def test_a_larger_batch_is_chosen_only_as_far_as_it_gains() -> None:
    # What a run costs by itself is shared by its batch: 1 entry 21 ms, 16 entries 36 ms.
    layout = find(machine({1: 0.020}, {1: 0.001}), None, 1)
    assert layout == Layout(1, 1, BATCHES[-1], 1)


def test_what_comes_alone_gets_the_width_that_is_quickest_for_it() -> None:
    # Two threads hinder each other here: 30 ms against 10.
    layout = find(machine({1: 0, 2: 0}, {1: 0.010, 2: 0.030}), None, 2)
    assert (layout.count, layout.width, layout.alone) == (2, 1, 1)


class Counting(Runner):
    """Keeps the sizes that it was given, and fails at larger ones than it can run."""

    can = 100

    def __call__(self, entries: Sequence[Any]) -> NDArray[np.float32]:
        self.sizes = {*getattr(self, "sizes", ()), len(entries)}
        if len(entries) > self.can:
            raise EncoderFailed
        return super().__call__(entries)


def test_no_size_is_tried_whose_run_would_take_too_long() -> None:
    slow = Counting(0.2, 0.1, 16)  # 0.3 s for one; two would take 0.6 s at that pace
    assert find(lambda *_: [slow], None, 1) == Layout(1, 1, 1, 1)
    assert slow.sizes == {1}


def test_a_size_that_does_not_run_ends_the_sizes_and_not_the_start(caplog: pytest.LogCaptureFixture) -> None:
    small = Counting(0.02, 0.001, 16)  # more in one run is better, as far as it goes
    small.can = 4
    assert find(lambda *_: [small], None, 1) == Layout(1, 1, 4, 1)
    assert "Batches of 8 do not run" in caplog.text


def test_a_batch_that_was_given_is_used() -> None:
    layout = find(machine({1: 0, 2: 0}, {1: 0.010, 2: 0.009}), None, 2, batch=3)
    assert (layout.count, layout.width, layout.batch) == (2, 1, 3)


def test_what_the_model_raises_stops_the_search() -> None:
    class Failing(Runner):
        def __call__(self, entries: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
            raise EncoderFailed

    def runners(count: int, width: int, most: int) -> list[Runner]:
        return [Failing(0, 0, most)] * count

    with pytest.raises(EncoderFailed):
        find(runners, None, 2)


def test_what_was_found_is_kept_and_what_cannot_be_read_is_found_again(tmp_path: Path) -> None:
    found = []

    def search() -> Layout:
        found.append(Layout(2, 1, 4, 2))
        return found[-1]

    file = tmp_path / "cache" / "layout.json"
    assert remembered(file, search) == remembered(file, search) == Layout(2, 1, 4, 2)
    assert len(found) == 1
    for damage in (b"{", b'{"count":0,"width":1,"batch":1,"alone":1}'):
        file.write_bytes(damage)
        assert remembered(file, search) == Layout(2, 1, 4, 2)
    assert len(found) == 3
    assert sorted(one.name for one in file.parent.iterdir()) == ["layout.json", "layout.lock"]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert remembered(tmp_path / "cache" / "layout.json", lambda: plain(2, 8)) == Layout(2, 1, 8, 2)


def test_it_says_what_it_is() -> None:
    assert str(plain(2, 8)) == "2 runs of 1 thread side by side, batches of up to 8, 2 threads for one that comes alone"
    assert str(Layout(1, 4, 16, 4)) == "4 threads, batches of up to 16"
