"""How far it is, how fast, and how long it will take."""

from __future__ import annotations

import io

from server.operations.progress import Progress, duration, unseen


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_now_and_then_with_the_rate_and_the_time_that_remains() -> None:
    clock, log = Clock(), io.StringIO()
    progress = Progress(log, 1000, "pictures", clock=clock)
    for _ in range(25):
        clock.now += 1
        progress.add(4)
    assert log.getvalue().splitlines() == [
        "40 of 1,000 pictures (4.0%), 4.0/s, 4 min 0 s to go",
        "80 of 1,000 pictures (8.0%), 4.0/s, 3 min 50 s to go",
    ]


def test_a_terminal_gets_one_line_that_is_drawn_over() -> None:
    clock, screen = Clock(), Terminal()
    progress = Progress(screen, 10, "pictures", clock=clock)
    for _ in range(10):
        clock.now += 1
        progress.add(1)
    progress.close()
    assert screen.getvalue().count("\n") == 1
    drawn = screen.getvalue().split("\r")
    assert drawn[5].startswith("[############............] 5 of 10 pictures (50.0%), 1.0/s, 5 s to go")
    assert drawn[-1].rstrip() == "[########################] 10 of 10 pictures (100.0%), 1.0/s"


def test_a_bar_that_is_cleared_leaves_the_line_of_the_terminal_empty() -> None:
    clock, screen = Clock(), Terminal()
    progress = Progress(screen, 10, "pictures", clock=clock)
    progress.clear()
    assert screen.getvalue() == ""
    clock.now += 1
    progress.add(5)
    (drawn,) = screen.getvalue().split("\r")[1:]
    progress.clear()
    assert screen.getvalue() == f"\r{drawn}\r{' ' * len(drawn)}\r"


def test_what_nobody_sees_is_counted_all_the_same() -> None:
    progress = unseen(10, "pictures")
    progress.add(5)
    progress.close()
    progress.clear()
    assert progress.line().startswith("5 of 10 pictures (50.0%)")


def test_the_rate_is_that_of_late() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), 10_000, "pictures", clock=clock)
    for rate in (100, 2):
        for _ in range(60):
            clock.now += 1
            progress.add(rate)
    assert progress.rate() == 2.0


def test_durations_are_told_as_people_do() -> None:
    assert [duration(seconds) for seconds in (4.6, 190, 7500)] == ["5 s", "3 min 10 s", "2 h 5 min"]
