"""Two spaces: one live, one beside it."""

import pytest

from tests.support.spaces import open_old, register_new


@pytest.fixture
def old(database_url):
    return open_old(database_url)


@pytest.fixture
def new(database_url, old):
    return register_new(database_url)
