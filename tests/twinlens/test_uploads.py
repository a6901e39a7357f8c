"""Many pictures at once: bounded, resumable, and with what failed in the report."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import twinlens
from tests.support.scripted import CLOSED, Reply, scripted
from tests.support.served import ABACUS, KEYBOARD, VIOLIN
from twinlens import Client, Upload, Uploaded, UploadReport
from twinlens.journal import Journal, mark_of

PATHS = (ABACUS, KEYBOARD, VIOLIN)


def uploads() -> list[Upload]:
    return [Upload("p", path) for path in PATHS]


@pytest.fixture(autouse=True)
def product(client: Client) -> None:
    client.put_product("p", name="P")


def test_pictures_are_added_once_and_reported_one_by_one(client: Client) -> None:
    seen: list[Uploaded] = []

    def note(one: Uploaded, report: UploadReport) -> None:
        seen.append(one)
        assert (report.done, report.total) == (len(seen), 3)

    report = client.upload_many(uploads(), progress=note)
    assert (report.added, report.there, report.skipped, report.failures) == (3, 0, 0, [])
    assert {one.upload.picture: one.media.product_id for one in seen if one.media} == dict.fromkeys(PATHS, "p")
    assert client.upload_many(uploads()).there == 3


def test_what_fails_is_in_the_report_and_the_others_go_on(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")
    wrong = [Upload("p", tmp_path / "none.jpg"), Upload("p", tmp_path / "text.jpg"), Upload("none", KEYBOARD)]
    report = client.upload_many([*wrong, *uploads()], resume=tmp_path / "journal")
    assert report.added == 3
    assert {one.upload: type(one.error) for one in report.failures} == dict(
        zip(wrong, (FileNotFoundError, twinlens.UnsupportedMediaType, twinlens.NotFound), strict=True)
    )
    again = client.upload_many([*wrong, *uploads()], resume=tmp_path / "journal")
    assert (again.skipped, again.added, len(again.failures)) == (3, 0, 3)


def test_after_an_interruption_what_is_done_is_not_sent_again(client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "folder" / "journal"

    class Interrupted(Exception):
        pass

    def interrupt(one: Uploaded, report: UploadReport) -> None:
        if report.done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        client.upload_many(uploads(), concurrency=1, progress=interrupt, resume=journal)
    # As a crash in the middle of a line leaves it.
    journal.write_text(journal.read_text() + mark_of("p").hex()[:9])
    report = client.upload_many(uploads(), resume=journal)
    assert (report.skipped, report.added + report.there) == (2, 1)
    assert not journal.exists()
    assert client.upload_many(uploads(), resume=journal).there == 3


def test_a_journal_of_other_work_is_refused_and_kept(client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Journal(journal, "another server"):
        pass
    before = journal.read_bytes()
    with pytest.raises(ValueError, match="of another server"):
        client.upload_many(uploads(), resume=journal)
    assert journal.read_bytes() == before
    journal.write_text("my notes\n")
    with pytest.raises(ValueError, match="something else"):
        client.upload_many(uploads(), resume=journal)
    assert journal.read_text() == "my notes\n"


def test_a_journal_keeps_marks_of_several_threads(tmp_path: Path) -> None:
    marks = [mark_of("mark", bytes([number])) for number in range(200)]
    with Journal(tmp_path / "journal", "work") as journal, ThreadPoolExecutor(4) as pool:
        [*pool.map(journal.add, marks)]
    with Journal(tmp_path / "journal", "work") as journal:
        assert all(mark in journal for mark in marks)
        assert mark_of("mark") not in journal


def test_marks_of_different_parts_differ() -> None:
    assert len({mark_of("ab", "c"), mark_of("a", "bc"), mark_of("abc"), mark_of("abc", "")}) == 4


def test_no_more_are_begun_than_there_are_places() -> None:
    """The list is read as places become free, so it may be longer than memory."""
    taken: list[int] = []
    answered = threading.Event()

    def endless() -> Iterator[Upload]:
        for number in range(50):
            taken.append(number)
            yield Upload("p", b"picture")

    def first(one: Uploaded, report: UploadReport) -> None:
        assert len(taken) <= report.done + 3
        answered.set()

    with scripted(Reply(404)) as server, Client(server.url) as client:
        report = client.upload_many(endless(), concurrency=3, progress=first)
    assert answered.is_set()
    assert len(report.failures) == 50


def test_a_server_that_is_gone_ends_the_uploads_and_the_same_call_goes_on(client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with scripted(Reply(503, headers={"Retry-After": "0"}), CLOSED) as server:
        elsewhere = Client(server.url, retries=1)
        with elsewhere, pytest.raises(twinlens.ConnectionFailed):
            elsewhere.upload_many([Upload("p", KEYBOARD)] * 100, concurrency=2, resume=journal)
        assert len(server.asked) < 10
    assert journal.exists()


def test_uploads_that_wait_for_another_try_give_up_when_their_caller_leaves() -> None:
    with scripted(Reply(401), Reply(503, headers={"Retry-After": "50"})) as server, Client(server.url) as client:
        with pytest.raises(twinlens.Unauthorized):
            client.upload_many([Upload("p", KEYBOARD)] * 2, concurrency=2)
        assert len(server.asked) == 2
