"""A new model is released while callers search and upload: none notices, even when the work is killed half-way."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from PIL import Image

from server.artifact.artifact import Artifact
from server.errors import DatabaseUnfit
from server.settings import Settings
from server.spaces import reembed as reembedding
from server.spaces import spaces
from server.spaces.spaces import SpaceDescription
from server.spaces.switch import drop, switch
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support import artifacts
from tests.support.databases import contents
from tests.support.process import KEYBOARD, PATIENCE, Process, Serve, until
from tests.support.spaces import older_database

SPACE_OLD = Artifact.read(STARTER).space("fp32").id
TEAPOT = (DEMO_PICTURES / "teapot.webp").read_bytes()


@pytest.fixture(scope="module")
def opposite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifacts.another_space(tmp_path_factory.mktemp("artifacts") / "opposite")


def reembed(data: Path, url: str, artifact: Path, *flags: str) -> Any:
    """The command as a process of its own, one picture at a time so that it can be caught at work."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "server", "reembed", "--data", str(data), "--database-url", url),
            *("--device", "cpu", "--threads", "1", "--batch", "1", "--artifact", str(artifact), *flags),
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What it printed, and the exit code."""
    out, err = process.communicate(timeout=4 * PATIENCE)
    return out, err, process.returncode


def count(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        ((found,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(found)


def picture(number: int) -> bytes:
    """A picture like no other."""
    out = io.BytesIO()
    image = Image.new("RGB", (64, 64), (number * 37 % 256, number * 91 % 256, number * 151 % 256))
    image.paste((255 - number % 200, number % 256, 0), (number % 32, number * 7 % 32, 40, 50))
    image.save(out, "PNG")
    return out.getvalue()


class Crowd:
    """Asks a server for known pictures and adds new ones until it is stopped; keeps what was wrong."""

    def __init__(self, server: Process, space: str, *, uploads: bool) -> None:
        self.answers = 0
        self.wrong: list[tuple[object, ...]] = []
        self._url, self._space = server.url, space
        self._ended = threading.Event()
        work = [self._ask, self._ask, self._upload] if uploads else [self._ask]
        self._threads = [threading.Thread(target=one) for one in work]

    def __enter__(self) -> Crowd:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for one in self._threads:
            one.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            for data, name in itertools.cycle([(KEYBOARD, "Keyboard"), (TEAPOT, "Teapot")]):
                if self._ended.is_set():
                    return
                answer = client.post("/v1/search", files={"file": data})
                found = answer.json() if answer.status_code == 200 else {}
                first: dict[str, Any] = next(iter(found.get("results", [])), {})
                seen = (found.get("space"), first.get("productName"), first.get("similarity"))
                if seen != (self._space, name, 100.0):
                    self.wrong.append((answer.status_code, seen, answer.text[:300]))
                self.answers += 1

    def _upload(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            client.put("/v1/products/uploads", json={"name": "Uploads"}).raise_for_status()
            for number in itertools.count():
                if self._ended.is_set():
                    return
                answer = client.post("/v1/products/uploads/media", files={"file": picture(number)})
                if answer.status_code not in (200, 201):
                    self.wrong.append((answer.status_code, answer.text[:300]))
                self.answers += 1
                self._ended.wait(0.2)


@pytest.mark.slow
def test_a_model_is_released_under_steady_use_although_the_work_is_killed_five_times(
    serve: Serve, opposite: Path, database_url: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shared = ("--database-url", database_url, "--device", "cpu")
    old = serve("--demo", "on", *shared, products=24).ready()
    space_new = Artifact.read(opposite).space("fp32").id

    refused = serve(*shared, model=opposite)
    assert refused.end() == 2
    assert re.search(f"{space_new}.*{SPACE_OLD}.*reembed --artifact", refused.log[-1])

    with Crowd(old, SPACE_OLD, uploads=True) as crowd:
        kept = 0
        for _ in range(5):
            work = reembed(data, database_url, opposite)
            table = until_registered(database_url, space_new)
            kept = killed_at_work(work, database_url, table, kept)
        polite = reembed(data, database_url, opposite)
        until(lambda: count(database_url, table) > kept or polite.poll() is not None)
        polite.send_signal(signal.SIGTERM)
        _, err, code = finished(polite)
        assert (code, "Stopped." in err, "Traceback" in err) == (128 + signal.SIGTERM, True, False), err
        assert 0 < kept < count(database_url, table)
        second = reembed(data, database_url, opposite)
        out, err, code = finished(second)
        assert (code, "is live now" in out) == (0, True), err
        assert re.search(r"\d+ of \d+ pictures \(.*%\), [\d.]+/s", err)

        new = serve(*shared, model=opposite).ready()
        with Crowd(new, space_new, uploads=False) as other:
            until(lambda: other.answers > 20)
            # What one server took in is soon found through the other, in its own space.
            one, two = add(new, 900), add(old, 901)
            until(lambda: first(old, 900) == (one, 100.0))
            until(lambda: first(new, 901) == (two, 100.0))
            # A worker that replaces a dead one serves the space that was live when its parent started.
            before = old.worker
    assert not crowd.wrong
    assert not other.wrong
    assert crowd.answers > 50
    before.kill()
    old.ready(times=2)
    assert old.search()[0]["similarity"] == 100.0

    until(lambda: not spaces.missing(database_url, spaces.choose(database_url, space_new)).untried)
    out, _, code = finished(reembed(data, database_url, opposite))
    assert (code, "nothing is missing" in out) == (0, True)

    # The way back, and on again; then the old space goes, and its server says so.
    until(lambda: not spaces.missing(database_url, spaces.choose(database_url, SPACE_OLD)).untried)
    switch(database_url, spaces.choose(database_url, SPACE_OLD))
    assert new.search()[0]["similarity"] == 100.0
    switch(database_url, spaces.choose(database_url, space_new))
    drop(database_url, spaces.choose(database_url, SPACE_OLD))
    with old.client() as client:
        for answer in (
            client.get("/health/ready"),
            client.post("/v1/search", files={"file": KEYBOARD}),
            client.post("/v1/products/uploads/media", files={"file": picture(902)}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "space_dropped")
    assert new.search()[0]["similarity"] == 100.0


def killed_at_work(work: subprocess.Popen[str], url: str, table: str, before: int) -> int:
    """How many vectors there are once it was killed, having written some."""
    until(lambda: count(url, table) > before or work.poll() is not None, 4 * PATIENCE)
    work.kill()
    assert finished(work)[2] == -signal.SIGKILL, "too quick to be killed at work"
    return count(url, table)


def until_registered(url: str, space: str) -> str:
    until(lambda: any(one.id == space for one in spaces.list_spaces(url)))
    return spaces.choose(url, space).table


def add(server: Process, number: int) -> str:
    """The id of a new media."""
    with server.client() as client:
        client.put("/v1/products/uploads", json={"name": "Uploads"}).raise_for_status()
        files = {"file": picture(number)}
        answer = client.post("/v1/products/uploads/media", files=files).raise_for_status()
        return str(answer.json()["id"])


def first(server: Process, number: int) -> tuple[str, float] | None:
    found = server.search(picture(number))
    return (found[0]["mediaId"], found[0]["similarity"]) if found else None


class Folder:
    """A catalogue of a few media whose bytes lie in a folder, as the live space has them."""

    def __init__(self, url: str, data: Path) -> None:
        self.url, self.data = url, data
        old = Artifact.read(STARTER)
        self.space = spaces.open_space(url, SpaceDescription.of(old, "fp32"))
        self._execute("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'c', 'P')""")

    def add(self, media: str, content: bytes | None, *, shown: bool = True) -> None:
        """`content`: the bytes, None where there are none; `shown`: with a vector in the live space."""
        self._execute(
            """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p', 'c', %s)""",
            (media, f"old/{media}"),
        )
        if content is not None:
            path = self.data / "media" / "old" / media
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if shown:
            vector = str([1.0] + [0.0] * (self.space.dimensions - 1))
            self._execute(
                f"INSERT INTO {self.space.table} VALUES (%s, %s, '', true, %s)", (self.space.number, media, vector)
            )

    def _execute(self, statement: str, parameters: tuple[int, str, str] | tuple[str, str] | None = None) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement, parameters)

    def facts(self, media: str) -> tuple[Any, ...]:
        with psycopg.connect(self.url) as connection:
            (row,) = connection.execute(
                """SELECT "contentType", bytes, width, height, "contentDigest" FROM media WHERE id = %s""", (media,)
            ).fetchall()
        return row


def test_pictures_that_cannot_be_embedded_stop_the_switch_until_they_are_left_out(
    opposite: Path, database_url: str, tmp_path: Path
) -> None:
    folder = Folder(database_url, tmp_path)
    folder.add("good", KEYBOARD)
    folder.add("twin", KEYBOARD)
    folder.add("poem", b"Shall I compare thee to a summer's day?")
    folder.add("gone", None)
    folder.add("never", None, shown=False)
    out, err, code = finished(reembed(tmp_path, database_url, opposite))
    assert (code, out) == (2, "")
    assert "The bytes of this picture are not in the media store" in err
    assert re.search(r"2 could not be embedded in the space .*(gone|poem).*--leave-out-unreadable", err)
    assert spaces.choose(database_url, SPACE_OLD).live

    # What the rows lack was filled in; of two media of one product with the same bytes one alone has the digest.
    good, twin = folder.facts("good"), folder.facts("twin")
    assert good[:4] == twin[:4] == ("image/webp", len(KEYBOARD), 256, 256)
    assert sorted([good[4] is None, twin[4] is None]) == [False, True]

    out, err, code = finished(reembed(tmp_path, database_url, opposite, "--leave-out-unreadable"))
    assert (code, "is live now" in out) == (0, True), err
    with psycopg.connect(database_url) as connection:
        records = connection.execute('SELECT "mediaId", attempts FROM twinlens_unreadable ORDER BY 1').fetchall()
        shown = connection.execute("SELECT count(*) FROM image_embeddings").fetchone()
    assert records == [("gone", 2), ("never", 2), ("poem", 2)]
    assert shown == (2,)


def test_it_does_not_migrate_under_servers_of_the_version_before(bare_database_url: str, tmp_path: Path) -> None:
    older_database(bare_database_url, tmp_path / "sql")
    before = contents(bare_database_url)
    work = reembedding.reembed(Settings(data=tmp_path), STARTER, bare_database_url, reembedding.Options(), print)
    with pytest.raises(DatabaseUnfit, match="python -m server migrate"):
        asyncio.run(work)
    assert contents(bare_database_url) == before


def test_it_stops_at_a_signal_and_does_not_run_twice_at_once(opposite: Path, database_url: str, tmp_path: Path) -> None:
    folder = Folder(database_url, tmp_path)
    folder.add("good", KEYBOARD)
    work = reembed(tmp_path, database_url, opposite, "--no-switch", "--follow")
    table = until_registered(database_url, Artifact.read(opposite).space("fp32").id)
    until(lambda: count(database_url, table) == 1)
    _, err, code = finished(reembed(tmp_path, database_url, opposite))
    assert (code, "Another process is re-embedding" in err) == (2, True)
    folder.add("later", TEAPOT)
    until(lambda: count(database_url, table) == 2)
    work.send_signal(signal.SIGTERM)
    out, err, code = finished(work)
    assert (code, "Traceback" in err) == (0, False), err
    assert re.search(r"This makes it live: python -m server .*spaces switch", out)
    assert spaces.choose(database_url, SPACE_OLD).live
