"""A space takes the place of the live one, with nothing missing in it, or is dropped."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence

import numpy as np
import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import NewMedia, Query, SpaceRow
from server.database.pool import open_pool
from server.errors import SpaceDropped, SpaceIncomplete, SpaceRefused
from server.spaces import spaces
from server.spaces.spaces import ListedSpace
from server.spaces.switch import drop, switch
from tests.support.databases import run_sql
from tests.support.spaces import NEW, OLD, D, add_media, fill, record_failure, shown, states


def test_a_space_is_filled_beside_the_live_one_and_takes_its_place_when_nothing_is_missing(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    add_media(database_url, "a", "b", vectors_in=[old])
    add_media(database_url, "later", status="pending")
    assert states(database_url) == {OLD: "live", NEW: "filling"}
    fill(database_url, new, ["a"])
    with pytest.raises(SpaceIncomplete, match=r"1 pictures are not embedded .*\(b\).*server reembed --artifact"):
        switch(database_url, new)
    assert states(database_url) == {OLD: "live", NEW: "filling"}
    fill(database_url, new, ["b"])
    switch(database_url, new)
    assert states(database_url) == {OLD: "retired", NEW: "live"}
    switch(database_url, spaces.choose(database_url, OLD))  # the way back
    assert states(database_url) == {OLD: "live", NEW: "retired"}


def test_a_media_that_becomes_ready_must_be_embedded_too(database_url: str, old: SpaceRow, new: ListedSpace) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    add_media(database_url, "later", status="pending", vectors_in=[old])
    run_sql(database_url, "UPDATE media SET status = 'ready' WHERE id = 'later'")
    with pytest.raises(SpaceIncomplete, match="later"):
        switch(database_url, new)


def test_what_cannot_be_embedded_and_is_found_now_stops_the_switch_and_what_is_not_found_does_not(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    add_media(database_url, "good", vectors_in=[old, new])
    add_media(database_url, "never")
    record_failure(database_url, new, "never")
    add_media(database_url, "lost", vectors_in=[old])
    record_failure(database_url, new, "lost")
    found = spaces.missing(database_url, new)
    assert (found.untried, found.lost, found.unreadable, found.examples) == (0, 1, 1, ("lost",))
    with pytest.raises(SpaceIncomplete, match=r"1 could not be embedded .*\(lost\).*--leave-out-unreadable"):
        switch(database_url, new)
    assert shown(database_url) == {"good", "lost"}
    switch(database_url, new, leave_out_unreadable=True)
    assert shown(database_url) == {"good"}


def test_nothing_is_missing_at_the_switch_while_others_add_media_all_the_time(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    add_media(database_url, "first", vectors_in=[old, new])
    ended = threading.Event()
    failures: list[psycopg.Error] = []

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
        switch(database_url, new, fill=embed)
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
    database_url: str, old: SpaceRow, new: ListedSpace
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

        switching = threading.Thread(target=switch, args=(database_url, new), kwargs={"fill": embed})
        switching.start()
        until_a_transaction_waits(database_url)
        slow.commit()
    switching.join()
    assert asked == ["slow"]
    assert shown(database_url) == {"first", "quick", "slow"}


def until_a_transaction_waits(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'media'::regclass"
        while connection.execute(waiting).fetchone() == (0,):
            pass


@pytest.mark.anyio
async def test_a_space_that_is_dropped_takes_its_records_along_and_work_in_it_is_refused(
    database_url: str, old: SpaceRow, new: ListedSpace
) -> None:
    add_media(database_url, "a", vectors_in=[old, new])
    record_failure(database_url, old, "a")
    with pytest.raises(SpaceRefused, match="is the live one"):
        drop(database_url, spaces.choose(database_url, OLD))
    switch(database_url, new)
    async with open_pool(database_url, min_size=1, max_size=1, timeout=5) as pool:
        catalogue = Catalogue(pool, old)
        vector = np.eye(D, dtype=np.float32)[0]
        await catalogue.ping()
        drop(database_url, spaces.choose(database_url, OLD))
        with pytest.raises(SpaceDropped):
            await catalogue.ping()
        with pytest.raises(SpaceDropped):
            await catalogue.search(Query("c", vector))
        with pytest.raises(SpaceDropped):
            await catalogue.add_media(
                NewMedia("b", "p", "c", "b", None, None, 1, 1, 1, hashlib.sha256(b"b").digest(), "b"), vector
            )
        await catalogue.put_product("c", "p", name="Changed", is_active=False)  # walks through the spaces' tables
    with psycopg.connect(database_url) as connection:
        left = connection.execute(
            "SELECT (SELECT count(*) FROM twinlens_unreadable), to_regclass(%s), (SELECT count(*) FROM media)",
            (old.table,),
        ).fetchone()
    assert left == (0, None, 1)
