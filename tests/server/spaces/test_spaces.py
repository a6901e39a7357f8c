"""Spaces in a real database: registered, switched to, dropped."""

from __future__ import annotations

import argparse
import hashlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import NewMedia, SpaceRow
from server.commands import spaces as command_line
from server.database.connections import open_pool
from server.errors import SpaceDropped, SpaceIncomplete, SpaceNotLive, SpaceRefused
from server.settings import Settings
from server.spaces import spaces
from server.spaces.spaces import Listed
from tests import ROOT

D = 16
OLD, NEW, NEWER = (hashlib.sha256(name).hexdigest() for name in (b"old", b"new", b"newer"))


def about(space_id: str) -> dict[str, Any]:
    return {
        "space_id": space_id,
        "dimensions": D,
        "model": "test",
        "manifest": {},
        "artifact_path": f"/models/{space_id[:4]}",
    }


@pytest.fixture
def old(database_url: str) -> SpaceRow:
    return spaces.open_space(database_url, **about(OLD))


@pytest.fixture
def new(database_url: str, old: SpaceRow) -> Listed:
    spaces.register(database_url, **about(NEW))
    return spaces.choose(database_url, NEW)


def run_sql(url: str, statement: str, parameters: tuple[int, str] | tuple[str, str, str] | None = None) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, parameters)


def add_media(url: str, *ids: str, vectors_in: Sequence[SpaceRow | Listed] = (), status: str = "ready") -> None:
    run_sql(url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'c', 'P') ON CONFLICT DO NOTHING""")
    for one in ids:
        run_sql(
            url,
            """INSERT INTO media (id, "productId", "clientId", "s3Key", status) VALUES (%s, 'p', 'c', %s, %s)""",
            (one, one, status),
        )
    for space in vectors_in:
        fill(url, space, ids)


def fill(url: str, space: Listed | SpaceRow, ids: Sequence[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for one in ids:
            vector = np.zeros(D)
            vector[0] = 1
            parameters = {"number": space.number, "media_id": one, "embedding": str(vector.tolist())}
            connection.execute(
                f"INSERT INTO twinlens_space_{space.number} VALUES (%(number)s, %(media_id)s, '', true, %(embedding)s) "
                "ON CONFLICT DO NOTHING",
                parameters,
            )


def record_failure(url: str, space: Listed | SpaceRow, media: str) -> None:
    run_sql(url, "INSERT INTO twinlens_unreadable VALUES (%s, %s, 'it is a poem')", (space.number, media))


def states(url: str) -> dict[str, str]:
    return {one.id: one.state for one in spaces.list_spaces(url)}


def shown(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute('SELECT "mediaId" FROM image_embeddings').fetchall()}


def test_a_space_is_filled_beside_the_live_one_and_takes_its_place_when_nothing_is_missing(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "a", "b", vectors_in=[old])
    add_media(database_url, "later", status="pending")
    assert states(database_url) == {OLD: "live", NEW: "filling"}
    fill(database_url, new, ["a"])
    with pytest.raises(SpaceIncomplete, match=r"1 pictures are not embedded .*\(b\).*server reembed --artifact"):
        spaces.switch(database_url, new)
    assert states(database_url) == {OLD: "live", NEW: "filling"}
    fill(database_url, new, ["b"])
    spaces.switch(database_url, new)
    assert states(database_url) == {OLD: "retired", NEW: "live"}
    spaces.switch(database_url, spaces.choose(database_url, OLD))  # the way back
    assert states(database_url) == {OLD: "live", NEW: "retired"}


def test_a_media_that_becomes_ready_must_be_embedded_too(database_url: str, old: SpaceRow, new: Listed) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    add_media(database_url, "later", status="pending", vectors_in=[old])
    run_sql(database_url, "UPDATE media SET status = 'ready' WHERE id = 'later'")
    with pytest.raises(SpaceIncomplete, match="later"):
        spaces.switch(database_url, new)


def test_what_cannot_be_embedded_and_is_found_now_stops_the_switch_and_what_is_not_found_does_not(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "good", vectors_in=[old, new])
    add_media(database_url, "never")
    record_failure(database_url, new, "never")
    add_media(database_url, "lost", vectors_in=[old])
    record_failure(database_url, new, "lost")
    found = spaces.missing(database_url, new.row)
    assert (found.untried, found.lost, found.unreadable, found.examples) == (0, 1, 1, ("lost",))
    with pytest.raises(SpaceIncomplete, match=r"1 could not be embedded .*\(lost\).*--leave-out-unreadable"):
        spaces.switch(database_url, new)
    assert shown(database_url) == {"good", "lost"}
    spaces.switch(database_url, new, leave_out_unreadable=True)
    assert shown(database_url) == {"good"}


def test_nothing_is_missing_at_the_switch_while_others_add_media_all_the_time(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "first", vectors_in=[old, new])
    ended = threading.Event()
    failures = []

    def add(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '2s'")
            at = 0
            while not ended.is_set():
                at += 1
                try:
                    connection.execute(
                        """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p', 'c', 'x')""",
                        (f"{number}-{at}",),
                    )
                except psycopg.Error as exc:
                    failures.append(exc)
                time.sleep(0.02)  # between two uploads; nothing is awaited by it

    def embed(ids: Sequence[str], within: float | None) -> None:
        assert ids
        fill(database_url, new, ids)

    writers = [threading.Thread(target=add, args=(number,)) for number in range(2)]
    for one in writers:
        one.start()
    try:
        spaces.switch(database_url, new, fill=embed)
        with psycopg.connect(database_url) as connection:
            # Of what was committed before the switch was.
            ((until,),) = connection.execute("SELECT xmin::text FROM twinlens_spaces WHERE live").fetchall()
            missing = connection.execute(
                f"SELECT count(*) FROM media WHERE revision::text::bigint < %s AND id NOT IN "
                f'(SELECT "mediaId" FROM twinlens_space_{new.number})',
                (int(until),),
            ).fetchone()
    finally:
        ended.set()
        for one in writers:
            one.join()
    assert missing == (0,)
    assert not failures
    assert states(database_url)[NEW] == "live"


def test_a_transaction_in_flight_is_waited_for_and_what_it_added_is_embedded_before_the_switch(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "first", vectors_in=[old, new])
    asked: list[str] = []
    with psycopg.connect(database_url) as slow:
        slow.execute("""INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES ('slow', 'p', 'c', 'x')""")
        # A later one is committed first.
        add_media(database_url, "quick", vectors_in=[old, new])

        def embed(ids: Sequence[str], within: float | None) -> None:
            asked.extend(ids)
            fill(database_url, new, ids)

        switching = threading.Thread(target=spaces.switch, args=(database_url, new), kwargs={"fill": embed})
        switching.start()
        until_somebody_waits(database_url)
        slow.commit()
    switching.join()
    assert asked == ["slow"]
    assert shown(database_url) == {"first", "quick", "slow"}


def until_somebody_waits(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'media'::regclass"
        ).fetchall()[0][0]:
            pass


def test_a_server_starts_in_the_live_space_alone_and_its_worker_also_in_the_one_that_was(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    with pytest.raises(SpaceNotLive, match=f"{NEW}.*{OLD}.*python -m server reembed --artifact /models/"):
        spaces.open_space(database_url, **about(NEW))
    with pytest.raises(SpaceNotLive):  # registered, never live: nobody was ever answered from it
        spaces.open_space(database_url, **about(NEW), or_retired=True)
    spaces.switch(database_url, new)
    with pytest.raises(SpaceNotLive):
        spaces.open_space(database_url, **about(OLD))
    assert spaces.open_space(database_url, **about(OLD), or_retired=True).number == old.number
    spaces.drop(database_url, spaces.choose(database_url, OLD))
    with pytest.raises(SpaceNotLive):
        spaces.open_space(database_url, **about(OLD), or_retired=True)


@pytest.mark.anyio
async def test_a_space_that_is_dropped_takes_its_records_along_and_whoever_works_in_it_is_told(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    record_failure(database_url, old, "a")
    with pytest.raises(SpaceRefused, match="is the live one"):
        spaces.drop(database_url, spaces.choose(database_url, OLD))
    spaces.switch(database_url, new)
    async with open_pool(database_url, min_size=1, max_size=1, timeout=5) as pool:
        catalogue = Catalogue(pool, old)
        vector = np.eye(D, dtype=np.float32)[0]
        await catalogue.ping()
        spaces.drop(database_url, spaces.choose(database_url, OLD))
        with pytest.raises(SpaceDropped):
            await catalogue.ping()
        with pytest.raises(SpaceDropped):
            await catalogue.search("c", vector)
        with pytest.raises(SpaceDropped):
            await catalogue.add_media(
                NewMedia("b", "p", "c", "b", None, None, 1, 1, 1, hashlib.sha256(b"b").digest()), vector
            )
        await catalogue.put_product("c", "p", name="Changed", is_active=False)  # walks through the spaces' tables
    with psycopg.connect(database_url) as connection:
        left = connection.execute(
            "SELECT (SELECT count(*) FROM twinlens_unreadable), to_regclass(%s), (SELECT count(*) FROM media)",
            (old.table,),
        ).fetchone()
    assert left == (0, None, 1)


def test_the_command_lists_switches_and_drops_by_the_beginning_of_an_id(
    database_url: str, old: SpaceRow, new: Listed, capsys: pytest.CaptureFixture[str]
) -> None:
    add_media(database_url, "a", vectors_in=[old, new])

    def command(*words: str) -> str:
        parser = argparse.ArgumentParser()
        command_line.add_arguments(parser)
        assert command_line.run(Settings(), parser.parse_args(words), database_url) == 0
        printed: str = capsys.readouterr().out
        return printed

    lines = command().splitlines()
    assert [line.split()[:3] for line in lines] == [[OLD[:12], "live", "1"], [NEW[:12], "filling", "1"]]
    assert "is live now" in command("switch", NEW[:6])
    assert "is live already" in command("switch", NEW[:6])
    assert "Dropped" in command("drop", OLD[:5])
    with pytest.raises(SpaceRefused, match=f"There are: {NEW[:12]} .live."):
        command("switch", OLD[:6])
    with pytest.raises(SpaceRefused, match="at least 4 digits"):
        command("switch", NEW[:3])


def test_a_caller_s_own_sql_finds_nothing_once_its_space_is_no_longer_the_live_one(
    database_url: str, old: SpaceRow, new: Listed
) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    statement = documented("SELECT")

    def ask(space: str) -> list[tuple[str, str, str, float]]:
        with psycopg.connect(database_url, cursor_factory=psycopg.RawCursor) as connection:
            vector = str([1.0] + [0.0] * (D - 1))
            return connection.execute(statement, [vector, "c", 24, space]).fetchall()

    assert [row[0] for row in ask(OLD)] == ["a"]
    assert ask(NEW) == []
    spaces.switch(database_url, new)
    assert ask(OLD) == []
    assert [row[0] for row in ask(NEW)] == ["a"]


def documented(first_word: str) -> str:
    """The statement in docs/operations.md, as it stands there."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text[text.index("## Releasing a new model") :]
    return next(block.removeprefix("sql\n") for block in section.split("```") if block.startswith("sql\n" + first_word))
