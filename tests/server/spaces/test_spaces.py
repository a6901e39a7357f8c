"""Spaces in a real database: which of them a server may start in, and what a caller's own SQL finds."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from server.catalogue.rows import SpaceRow
from server.errors import SpaceNotLive
from server.spaces import spaces
from server.spaces.spaces import ListedSpace
from server.spaces.switch import drop, switch
from tests import ROOT
from tests.support.spaces import NEW, OLD, D, add_media, described


def test_a_server_starts_in_the_live_space_alone_and_its_worker_also_in_the_one_that_was(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    with pytest.raises(SpaceNotLive, match=f"{NEW}.*{OLD}.*python -m server reembed --artifact /models/"):
        spaces.open_space(database_url, described(NEW))
    with pytest.raises(SpaceNotLive):  # registered, never live: no caller was ever answered from it
        spaces.open_space(database_url, described(NEW), or_retired=True)
    switch(database_url, new)
    with pytest.raises(SpaceNotLive):
        spaces.open_space(database_url, described(OLD))
    assert spaces.open_space(database_url, described(OLD), or_retired=True).number == old.number
    drop(database_url, spaces.choose(database_url, OLD))
    with pytest.raises(SpaceNotLive):
        spaces.open_space(database_url, described(OLD), or_retired=True)


def test_a_caller_s_own_sql_finds_nothing_once_its_space_is_no_longer_the_live_one(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    statement = documented("SELECT")

    def ask(space: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url, cursor_factory=psycopg.RawCursor) as connection:
            vector = str([1.0] + [0.0] * (D - 1))
            return connection.execute(statement.encode(), [vector, "c", 24, space]).fetchall()

    assert [row[0] for row in ask(OLD)] == ["a"]
    assert ask(NEW) == []
    switch(database_url, new)
    assert ask(OLD) == []
    assert [row[0] for row in ask(NEW)] == ["a"]


def documented(first_word: str) -> str:
    """The statement in docs/operations.md, as it stands there."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text[text.index("## Releasing a new model") :]
    return next(block.removeprefix("sql\n") for block in section.split("```") if block.startswith("sql\n" + first_word))
