"""Errors of ours, and groups of them."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import CatalogueBusy, CatalogueUnavailable, first_of_ours


def test_of_a_group_the_first_error_of_ours_is_raised_however_deep_it_lies() -> None:
    reason = OSError("the cable")
    busy = CatalogueBusy()
    busy.__cause__ = reason
    with pytest.raises(CatalogueBusy) as caught, first_of_ours():
        raise ExceptionGroup("outer", [ValueError("theirs"), ExceptionGroup("inner", [busy, CatalogueUnavailable()])])
    assert caught.value is busy
    assert caught.value.__cause__ is reason  # which the log shows


def test_errors_that_are_not_ours_pass_as_they_are() -> None:
    group = ExceptionGroup("theirs", [ValueError("a"), KeyError("b")])
    with pytest.raises(ExceptionGroup) as caught, first_of_ours():
        raise group
    assert caught.value is group
    alone = CatalogueBusy()
    with pytest.raises(CatalogueBusy) as single, first_of_ours():
        raise alone
    assert single.value is alone


@pytest.mark.anyio
async def test_so_is_that_of_a_task() -> None:
    async def fail() -> None:
        raise CatalogueBusy

    with pytest.raises(CatalogueBusy), first_of_ours():
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
