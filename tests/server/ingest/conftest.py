"""Fixtures of this room: a house, and an S3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.house import House, open_house
from tests.support.s3 import VARIABLES, make_bucket
from tests.support.s3 import s3 as running_s3


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(database_url, tmp_path / "store") as house:
        yield house


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Its address."""
    with running_s3() as address:
        yield address


@pytest.fixture
def s3_url(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store in it, whose bucket is made; the variables that reach it are set."""
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    return make_bucket(s3)
