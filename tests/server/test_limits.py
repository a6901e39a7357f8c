"""Limits as a person writes them, and the arithmetic of an allowance."""

from __future__ import annotations

import pytest

from server.limits import FORM, NAMES, Allowance, Limits, as_written, limits_in


def test_limits_are_written_and_read_alike() -> None:
    limits = limits_in(FORM)
    assert set(limits) == set(NAMES)
    assert (limits["requestsPerSecond"], limits["requestsBurst"], limits["bytesPerDay"]) == (50, 100, 10**10)
    assert as_written(limits) == FORM
    assert limits_in("requests=0.5  bytes=1500") == {"requestsPerSecond": 0.5, "bytesPerDay": 1500}
    assert as_written(limits_in("requests=0.5,bytes=1500")) == "requests=0.5,bytes=1500"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "requests",
        "requests=",
        "requests=0",
        "requests=-1",
        "requests=5/0",
        "requests=5/0.5",
        "requests=x",
        "requests=1e400",
        "request=5",
        "concurrent=0",
        "concurrent=1.5",
        "bytes=0",
        "bytes=5XB",
        "requests=1,requests=2",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="limits"):
        limits_in(text)


def test_without_a_burst_it_is_what_comes_in_a_second_and_one_at_least() -> None:
    assert Limits.of({"requestsPerSecond": 5}).requests == Allowance(5, 5)
    assert Limits.of({"requestsPerSecond": 0.1}).requests == Allowance(0.1, 1)


def test_own_limits_go_before_the_usual_ones_each_with_its_own_burst() -> None:
    usual = Limits.of(limits_in("requests=50/100,concurrent=4"))
    own = Limits.of(limits_in("requests=10"))
    assert own.beside(usual) == Limits(requests=Allowance(10, 10), concurrent=4)
    assert not Limits.of({})


def test_what_is_full_gives_its_burst_and_then_its_rate() -> None:
    two_a_second = Allowance(2, 5)
    full_at = 100.0
    for left in (4, 3, 2, 1, 0):
        assert two_a_second.wait(full_at, 100.0) == 0
        full_at = two_a_second.after(1, full_at, 100.0)
        assert two_a_second.left(full_at, 100.0) == pytest.approx(left)
    assert two_a_second.wait(full_at, 100.0) == pytest.approx(0.5)
    assert two_a_second.wait(full_at, 100.5) == 0
    assert two_a_second.left(full_at, 110.0) == 5


def test_who_has_one_left_may_take_more_and_waits_until_it_is_paid_for() -> None:
    one_a_second = Allowance(1, 4)
    full_at = one_a_second.after(10, 0.0, 0.0)
    assert one_a_second.left(full_at, 0.0) == pytest.approx(-6)
    assert one_a_second.wait(full_at, 0.0) == pytest.approx(7)
    assert one_a_second.wait(full_at, 7.0) == 0


def test_workers_share_a_limit_evenly_and_each_has_one_at_least() -> None:
    limits = Limits.of(limits_in("requests=10/20,pictures=1/2,concurrent=2,bytes=8000"))
    assert limits.share(4) == Limits(Allowance(2.5, 5), Allowance(0.25, 1), Allowance(8000 / 86_400 / 4, 2000), 1)
    assert limits.share(4, all_of_it=False) == Limits(limits.requests, limits.pictures, limits.bytes, 1)
    assert limits.share(1) is limits
