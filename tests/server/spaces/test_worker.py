"""python -m server worker: processes that embed what another system writes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.support import poisoned
from tests.support.pending import OtherSystem, picture
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.process import Process, Serve, until
from tests.support.serving import serving

WAITS = "Waiting for pictures that another system writes"
UNTIL_TOLD = ("--poll", "3600")
"""Only a notice can wake a worker."""


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> OtherSystem:
    return OtherSystem(database_url, tmp_path / "data" / "media")


@pytest.fixture
def other_data(tmp_path: Path) -> Path:
    """The data folder of a second process, with the same store."""
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def worker(serve: Serve, shop: OtherSystem, *flags: str, before: tuple[str, ...] = (), **options: object) -> Process:
    """A worker on the shop's database and store."""
    where = ("--database-url", shop.url, "--media-url", str(shop.store))
    return serve(*where, *before, "worker", *flags, **options)  # type: ignore[arg-type]


def taken(shop: OtherSystem) -> set[str]:
    """What workers have in hand."""
    return {media for (media,) in shop.sql('SELECT "mediaId" FROM twinlens_pending WHERE worker IS NOT NULL')}


def test_a_notice_wakes_a_worker_and_the_picture_then_finds_itself(
    serve: Serve, shop: OtherSystem, tmp_path: Path
) -> None:
    running = worker(serve, shop, *UNTIL_TOLD).wait_for(WAITS)
    data = picture(1)
    shop.add("new", data)
    shop.add("other", picture(2))
    until(lambda: shop.ready() == {"new", "other"})
    assert running.stop() == 0
    assert "2 pictures embedded, 0 set aside as failed, 0 to be tried again later.\n" in running.log
    with serving(shop.url, tmp_path / "server", media_url=str(shop.store)) as client:
        first, second = client.post("/v1/search", files={"file": data}).json()["results"]
        assert (first["mediaId"], first["similarity"], second["mediaId"]) == ("new", 100.0, "other")
        assert client.get("/v1/media/new").json()["status"] == "ready"


def test_of_two_workers_one_is_killed_in_the_middle_and_each_picture_is_embedded_once(
    serve: Serve, shop: OtherSystem, other_data: Path
) -> None:
    shop.count_embeddings()
    pictures = shop.add_many(60, m0007x=poisoned.HANGS)
    hangs = worker(serve, shop, "--poll", "0.2", module=poisoned.__name__).wait_for("This picture hangs")
    works = worker(serve, shop, "--poll", "0.2", data=other_data)
    until(lambda: {*pictures} - shop.ready() == taken(shop))
    assert "m0007x" in taken(shop)
    assert len(taken(shop)) > 1
    assert hangs.stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: shop.ready() == {*pictures})
    assert works.stop() == 0
    assert shop.embedded() == sorted(pictures)
    assert shop.queue() == {}
    assert shop.sql('SELECT count(*), count(DISTINCT "mediaId") FROM twinlens_space_1') == [(61, 61)]


def test_two_workers_share_the_work_and_embed_nothing_twice(serve: Serve, shop: OtherSystem, other_data: Path) -> None:
    shop.count_embeddings()
    both = [worker(serve, shop, *UNTIL_TOLD), worker(serve, shop, *UNTIL_TOLD, data=other_data)]
    for one in both:
        one.wait_for(WAITS)
    pictures = shop.add_many(150)
    until(lambda: shop.ready() == {*pictures})
    assert [one.stop() for one in both] == [0, 0]
    assert shop.embedded() == sorted(pictures)
    done = [int(found[1]) for one in both if (found := re.search(r"^(\d+) pictures? embedded", one.log[-1]))]
    assert sum(done) == 150


def test_a_picture_that_kills_whoever_reads_it_is_set_aside_and_takes_no_other_with_it(
    serve: Serve, shop: OtherSystem
) -> None:
    pictures = shop.add_many(20, kills=poisoned.KILLS)
    codes: list[int] = []
    while shop.states()["kills"] == "pending":
        shop.make_due()
        run = worker(serve, shop, "--once", "--json", module=poisoned.__name__)
        codes.append(run.end())
    assert codes.count(-signal.SIGKILL) == 3
    assert codes[-1] == 1
    assert json.loads(run.log[-1])["setAside"] == 1
    assert shop.states() == {media: "failed" if media == "kills" else "ready" for media in pictures}
    assert shop.queue() == {"kills": (4, 3, "process_ended")}


def test_sigterm_brings_to_its_end_what_was_begun_and_begins_nothing_else(
    serve: Serve, shop: OtherSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(poisoned.UNTIL, str(tmp_path / "gate"))
    pictures = shop.add_many(100, a=poisoned.HANGS)
    running = worker(serve, shop, "--low-priority", module=poisoned.__name__).wait_for("This picture hangs")
    until(lambda: taken(shop))
    begun = taken(shop)
    running.process.send_signal(signal.SIGTERM)
    running.wait_for("SIGTERM: what was begun is brought to its end")
    (tmp_path / "gate").touch()
    assert running.end() == 0
    assert shop.ready() == begun
    assert "a" in begun
    left = {*pictures} - begun
    assert left
    assert shop.queue() == dict.fromkeys(left, (0, 0, None))
    assert not taken(shop)


def test_a_store_that_goes_away_is_waited_for_and_no_picture_is_held_to_blame(serve: Serve, shop: OtherSystem) -> None:
    running = worker(serve, shop, "--poll", "0.2").wait_for(WAITS)
    elsewhere = shop.store.with_name("elsewhere")
    shop.store.rename(elsewhere)
    shop.sql(
        """INSERT INTO media (id, "productId", "clientId", "s3Key", status)
        VALUES ('m', 'p', 'demo', 'uploads/m', 'pending')"""
    )
    running.wait_for("Waiting, since nothing can be embedded at the moment")
    assert shop.queue() == {"m": (0, 0, None)}
    (elsewhere / "uploads").mkdir()
    (elsewhere / "uploads" / "m").write_bytes(picture(1))
    elsewhere.rename(shop.store)
    until(lambda: shop.ready() == {"m"})
    running.wait_for("are there again")
    assert running.stop() == 0


def test_a_database_that_breaks_is_waited_for(serve: Serve, shop: OtherSystem) -> None:
    running = worker(serve, shop, *UNTIL_TOLD).wait_for(WAITS)
    shop.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    running.wait_for(WAITS, times=2)  # with another seat, since the one before was lost
    pictures = shop.add_many(5)
    until(lambda: shop.ready() == {*pictures})
    assert running.stop() == 0


@needs_pgbouncer
def test_behind_a_pooler_of_transactions_a_worker_looks_by_itself_and_its_death_is_seen(
    serve: Serve, shop: OtherSystem, other_data: Path
) -> None:
    with pooled(shop.url, "transaction", size=6) as url:
        direct, shop.url = shop.url, url
        hangs = worker(serve, shop, "--poll", "0.2", module=poisoned.__name__).wait_for("they are found by looking")
        shop.url = direct
        shop.add("hangs", poisoned.HANGS)
        hangs.wait_for("This picture hangs")
        shop.url = url
        works = worker(serve, shop, "--poll", "0.2", data=other_data).wait_for(WAITS)
        shop.url = direct
        assert shop.states() == {"hangs": "pending"}
        hangs.stop(signal.SIGKILL)
        until(lambda: shop.ready() == {"hangs"})
        assert works.stop() == 0


def test_a_worker_beside_a_server_whose_own_database_it_uses_outlives_that_server(serve: Serve) -> None:
    server = serve("--demo", "off").ready()
    urls = serve("database-url")
    assert urls.end() == 0
    shop = OtherSystem(urls.log[-1].strip(), server.data / "media")
    running = serve("worker", *UNTIL_TOLD).wait_for(WAITS)
    shop.add("m", data := picture(1))
    until(lambda: shop.ready() == {"m"})
    (match,) = server.search(data)
    assert (match["mediaId"], match["similarity"]) == ("m", 100.0)
    assert server.stop() == 0
    running.wait_for("Waiting, since nothing can be embedded at the moment")
    again = serve("--demo", "off").ready()
    running.wait_for(WAITS, times=2)
    shop.add("n", picture(2))
    until(lambda: shop.ready() == {"m", "n"})
    assert running.stop() == 0
    assert again.stop() == 0
