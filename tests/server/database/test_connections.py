"""Single connections."""

from __future__ import annotations

import pytest

from server.database.migrations import migrate
from server.errors import DatabaseUnusable


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hunter2@127.0.0.1:1/nothing",
        "postgresql://someone:hunter2@@127.0.0.1:what/nothing?x=hunter2",
        "host=127.0.0.1 port=1 password=hunter2",
        "hunter2",
    ],
)
def test_a_database_out_of_reach_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as refusal:
        migrate(url)
    assert "hunter2" not in str(refusal.value)
