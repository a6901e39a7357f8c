"""python -m server ingest --on ray, on a cluster of two workers: what it leaves, and what may be lost in the middle."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from server.ingest.storage import MARK
from tests.support.databases import database_of, fresh_database, run_sql
from tests.support.ingest_command import Command, count, finished, folder_of, run, start
from tests.support.process import until
from tests.support.ray_cluster import ENVIRONMENT, Machines, two_machines

# A cluster starts, and each run starts workers that load a model, and that give way to whatever else the machine does.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONGEST_START = 300  # seconds until the first row is written

PRODUCTS = 'SELECT id, "clientId", name, sku, "isActive", attributes FROM products ORDER BY id'
MEDIA = """
    SELECT m."productId", m."clientId", m.kind, m.status, m."contentType", m.bytes, m.width, m.height,
        m."contentDigest", v.embedding::text, v.blank, v.reading, v.active, v."clientId"
    FROM media m JOIN twinlens_space_1 v ON v."mediaId" = m.id ORDER BY m."productId", m."contentDigest"
"""
# Of two rows with the same picture, the one that is written first has made it, on one machine as well.
ROWS = """
    SELECT f.feed, f."clientId", f."productId", f.place, bool_or(f.made) OVER (PARTITION BY f."mediaId"), f.named,
        f.source, f.size, f.stamp, m."contentDigest"
    FROM twinlens_feed_rows f LEFT JOIN media m ON m.id = f."mediaId" ORDER BY f."productId", f.place
"""
KEYS = 'SELECT "contentDigest", "s3Key", "thumbnailKey" FROM media'


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with two_machines() as machines:
        yield machines


@pytest.fixture
def other_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """Another database like that of `database_url`."""
    with fresh_database(postgres_url, template_database) as url:
        yield url


def begin(machines: Machines, source: Path, data: Path, url: str, *more: str) -> Command:
    return start(source, data, url, "--on", "ray", "--address", machines.address, *more, environment=ENVIRONMENT)


def bring(machines: Machines, source: Path, data: Path, url: str, *more: str) -> tuple[dict[str, Any], str, int]:
    return run(source, data, url, "--on", "ray", "--address", machines.address, *more, environment=ENVIRONMENT)


def objects(data: Path) -> list[Path]:
    """Without what a killed worker had begun to write, which no listing has and `sweep` removes."""
    found = (path for path in (data / "media").rglob("*") if path.is_file() and path.name != MARK)
    return [path for path in found if "#" not in path.name]


def pictures_and_thumbnails(url: str, data: Path) -> dict[bytes, tuple[bytes, bytes]]:
    """What the store has of each media, by the digest of its bytes."""
    media = data / "media"
    return {
        bytes(digest): ((media / picture).read_bytes(), (media / thumbnail).read_bytes())
        for digest, picture, thumbnail in run_sql(url, KEYS)
    }


def a_feed(folder: Path) -> Path:
    """Products with one picture and with several, the same picture twice, and some that cannot be brought in."""
    folder_of(folder, 60)
    (folder / "broken.png").write_bytes(b"no picture")
    lines = ["productId,name,sku,file,price"]
    lines += [
        f"p{number // 2},Thing {number // 2},S{number // 2},product-{number:04}.png,{number // 2}.5"
        for number in range(60)
    ]
    lines += ["p0,,,product-0000.png,", "text-only,Words,W,,1", "gone,Gone,G,nowhere.png,2", "bad,Bad,B,broken.png,3"]
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def whole(url: str, data: Path, products: int) -> None:
    """Every product has its one picture, and the store has what they name and nothing else."""
    assert (count(url, "products"), count(url, "media"), count(url, "twinlens_space_1")) == (products,) * 3
    named = {key for _, *keys in run_sql(url, KEYS) for key in keys}
    assert {str(path.relative_to(data / "media")) for path in objects(data)} == named


def test_it_leaves_what_a_run_on_one_machine_leaves_row_for_row_and_bit_for_bit(
    machines: Machines, database_url: str, other_url: str, tmp_path: Path
) -> None:
    table = a_feed(tmp_path / "pictures")
    flags = ("--number", "price", "--feed", "shop", "--failures")
    here, err, code = run(table, tmp_path / "here", database_url, *flags, str(tmp_path / "here.jsonl"))
    assert (code, here["rows"], here["failed"]) == (1, 64, 2), err
    there, err, code = bring(machines, table, tmp_path / "there", other_url, *flags, str(tmp_path / "there.jsonl"))
    assert code == 1, err
    without = ("seconds", "bringingSeconds", "failures")
    assert [there[one] for one in there if one not in without] == [here[one] for one in here if one not in without]
    for query in (PRODUCTS, MEDIA, ROWS):
        assert run_sql(other_url, query) == run_sql(database_url, query)
    of_here = pictures_and_thumbnails(database_url, tmp_path / "here")
    assert pictures_and_thumbnails(other_url, tmp_path / "there") == of_here
    assert (tmp_path / "there.jsonl").read_text() == (tmp_path / "here.jsonl").read_text()
    assert len(objects(tmp_path / "there")) == 2 * len(of_here)

    again, err, code = bring(machines, table, tmp_path / "there", other_url, *flags, str(tmp_path / "there.jsonl"))
    assert (again["unchanged"], again["embedded"], again["added"], again["failed"]) == (62, 0, 0, 2), err


@pytest.mark.parametrize("stage", ["Decode", "Encode", "Write"])
def test_a_worker_that_is_killed_costs_its_batch_and_no_row(
    machines: Machines, database_url: str, tmp_path: Path, stage: str
) -> None:
    folder_of(tmp_path / "pictures", 400)
    work = begin(machines, tmp_path / "pictures", tmp_path / "data", database_url, "--json")
    until(lambda: count(database_url, "media") or work.poll() is not None, LONGEST_START)
    machines.lose(stage)
    assert count(database_url, "media") < 400, "too quick to be caught at work"
    out, err, code = finished(work)
    assert (code, '"rows":400' in out, '"added":400' in out, '"embedded":400' in out) == (0, True, True, True), err
    whole(database_url, tmp_path / "data", 400)
    for line in err.splitlines():
        if "batches were done again" in line:
            # Of each stage no more than a killed worker had in hand, and Ray has it hold two.
            assert sum(int(one.split()[-1]) for one in line.rpartition(": ")[2].rstrip(".").split(", ")) <= 2, line


def test_a_command_that_is_killed_goes_on_where_it_was(machines: Machines, database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 300)
    work = begin(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    until(lambda: count(database_url, "media") or work.poll() is not None, LONGEST_START)
    work.kill()
    assert finished(work)[2] == -signal.SIGKILL
    until(lambda: not machines.workers("Write"))  # its workers end with it, and write no more
    before = count(database_url, "media")
    assert 0 < before < 300
    report, err, code = bring(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    assert (code, report["rows"], report["added"], report["failed"]) == (0, 300, 300 - before, 0), err
    assert (count(database_url, "products"), count(database_url, "media")) == (300, 300)


def test_a_signal_ends_it_in_good_order_and_the_same_command_goes_on(
    machines: Machines, database_url: str, tmp_path: Path
) -> None:
    folder_of(tmp_path / "pictures", 900)
    work = begin(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    until(lambda: count(database_url, "media") or work.poll() is not None, LONGEST_START)
    work.send_signal(signal.SIGTERM)
    _, err, code = finished(work)
    assert (code, "Stopped after" in err, "the same command goes on" in err) == (128 + signal.SIGTERM, True, True), err
    assert "Traceback" not in err
    before = count(database_url, "media")
    assert 0 < before < 900
    assert len(objects(tmp_path / "data")) == 2 * before
    report, err, code = bring(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    assert (code, report["added"]) == (0, 900 - before), err


def test_a_database_that_goes_away_is_a_sentence_and_the_same_command_goes_on(
    machines: Machines, database_url: str, tmp_path: Path
) -> None:
    folder_of(tmp_path / "pictures", 300)
    work = begin(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    until(lambda: count(database_url, "media") or work.poll() is not None, LONGEST_START)
    with closed_to_others(database_url):
        _, err, code = finished(work)
    assert (code, "Traceback" in err) == (2, False), err
    assert "What is written is kept, and the same command goes on from there." in err
    before = count(database_url, "media")
    assert 0 < before < 300
    report, err, code = bring(machines, tmp_path / "pictures", tmp_path / "data", database_url)
    assert (code, report["rows"], report["failed"]) == (0, 300, 0), err
    assert count(database_url, "media") == 300


def test_on_this_machine_alone_it_starts_a_cluster_and_leaves_nothing_of_it(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 40)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short name: sockets lie below it
        environment = {"TMPDIR": folder, "HOME": str(tmp_path)}  # Ray keeps a token at home
        report, err, code = run(
            tmp_path / "pictures", tmp_path / "data", database_url, "--on", "ray", environment=environment
        )
        assert (code, report["added"], "Traceback" in err) == (0, 40, False), err
        whole(database_url, tmp_path / "data", 40)
        assert not os.listdir(folder)
        until(lambda: not processes_with(folder))


@contextmanager
def closed_to_others(url: str) -> Iterator[None]:
    """The database takes no connection, and those that there are, are ended."""
    name = database_of(url)
    with psycopg.connect(psycopg.conninfo.make_conninfo(url, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


def processes_with(text: str) -> list[int]:
    """The processes in whose command line this stands."""
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if one.pid != os.getpid() and any(text in word for word in one.info["cmdline"] or ())
    ]
