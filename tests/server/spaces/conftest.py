"""Two spaces: one live, one beside it."""

from __future__ import annotations

import pytest

from server.catalogue.rows import SpaceRow
from server.spaces.spaces import ListedSpace
from tests.support.spaces import open_old, register_new


@pytest.fixture
def old(database_url: str) -> SpaceRow:
    return open_old(database_url)


@pytest.fixture
def new(database_url: str, old: SpaceRow) -> ListedSpace:
    return register_new(database_url)
