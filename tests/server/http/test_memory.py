"""Bodies within one bound of memory: who has room, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from litestar.types import Receive, Scope, Send

from server.errors import Overloaded
from server.http import memory
from server.http.memory import SMALL, BodyMemory, Room
from server.http.request import Request
from tests.support.pictures import unseen
from tests.support.process import KEYBOARD, Process, Serve

LARGEST = 8_000_000
MOST = 32_000_000
FIRST = 65_536

asynchronously = pytest.mark.anyio


class Sender:
    """A body whose bytes are sent when the test says so."""

    def __init__(self, held: BodyMemory, declared: int | None) -> None:
        self.room = held.room(declared)
        self.finished = False
        self._sent: asyncio.Queue[int | None] = asyncio.Queue()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> int:
        received = 0
        while (chunk := await self.room.next(self._chunks)) is not None:
            received += len(chunk)
        self.finished = True
        return received

    @property
    def _chunks(self) -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            while (size := await self._sent.get()) is not None:
                yield bytes(size)

        return chunks()

    async def send(self, *sizes: int | None) -> None:
        """These chunks; None is the end."""
        for size in sizes:
            self._sent.put_nowait(size)
        for _ in range(10 * len(sizes)):
            await asyncio.sleep(0)

    @property
    def waits(self) -> bool:
        return self.room.waits


@asynchronously
async def test_what_is_only_announced_takes_no_room() -> None:
    held = BodyMemory(MOST, LARGEST)
    senders = [Sender(held, LARGEST) for _ in range(40)]
    for sender in senders:
        await sender.send(1000)
    assert held.held == 40 * 1000
    another = Sender(held, LARGEST)
    await another.send(LARGEST, None)
    assert await another.reading == LARGEST


@asynchronously
async def test_a_large_body_that_was_begun_has_room_for_all_of_it_and_gives_it_back() -> None:
    held = BodyMemory(MOST, LARGEST)
    sender = Sender(held, LARGEST)
    await sender.send(FIRST)
    assert held.held == FIRST
    await sender.send(1)
    assert held.held == LARGEST
    await sender.send(1000, None)
    assert held.held == FIRST + 1001  # nothing more comes
    sender.room.close()
    assert held.held == 0


@asynchronously
async def test_a_body_of_unknown_length_counts_as_one_of_the_largest_until_its_end() -> None:
    held = BodyMemory(MOST, LARGEST)
    sender = Sender(held, None)
    await sender.send(FIRST, 1)
    assert held.held == LARGEST
    await sender.send(None)
    assert held.held == FIRST + 1


@asynchronously
async def test_who_finds_no_room_waits_for_it_in_turn_and_small_bodies_still_find_some() -> None:
    held = BodyMemory(MOST, LARGEST)
    inside = [Sender(held, LARGEST) for _ in range(3)]
    for sender in inside:
        await sender.send(LARGEST)
    waiting = [Sender(held, LARGEST) for _ in range(2)]
    for sender in waiting:
        await sender.send(LARGEST)
    assert [sender.waits for sender in waiting] == [True, True]
    small = Sender(held, SMALL)
    await small.send(SMALL, None)
    assert await small.reading == SMALL
    small.room.close()
    inside[0].room.close()
    await asyncio.sleep(0.01)
    assert [sender.waits for sender in waiting] == [False, True]
    inside[1].room.close()
    await asyncio.sleep(0.01)
    assert [sender.waits for sender in waiting] == [False, False]
    for sender in (*inside, *waiting):
        await sender.send(None)
        sender.room.close()
    assert held.held == 0


@asynchronously
async def test_who_waits_for_too_long_is_refused_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PATIENCE_SECONDS", 0.05)
    held = BodyMemory(MOST, LARGEST)
    inside = [Sender(held, LARGEST) for _ in range(3)]
    for sender in inside:
        await sender.send(LARGEST)
    late = Sender(held, LARGEST)
    await late.send(LARGEST)
    with pytest.raises(Overloaded, match="memory"):
        await late.reading
    late.room.close()
    assert held.held == 3 * LARGEST


@asynchronously
async def test_a_caller_who_leaves_while_it_waits_lets_the_next_one_in() -> None:
    held = BodyMemory(MOST, LARGEST)
    inside = [Sender(held, LARGEST) for _ in range(3)]
    for sender in inside:
        await sender.send(LARGEST)
    leaving, next_one = Sender(held, LARGEST), Sender(held, 2_000_000)
    await leaving.send(LARGEST)
    await next_one.send(2_000_000)
    assert next_one.waits  # in turn, although there is room for it
    leaving.reading.cancel()
    await asyncio.sleep(0.01)
    assert not next_one.waits


@asynchronously
async def test_a_sender_who_stops_loses_its_room_only_to_one_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(memory, "_LOOK_SECONDS", 0.01)
    held = BodyMemory(MOST, LARGEST)
    inside = [Sender(held, LARGEST) for _ in range(3)]
    for sender in inside:
        await sender.send(FIRST + 1)
    await inside[2].send(LARGEST - FIRST - 1, None)  # all of it is there
    await asyncio.sleep(0.2)
    assert not any(sender.reading.done() for sender in inside[:2])
    waiting = Sender(held, LARGEST)
    await waiting.send(LARGEST)
    done, _ = await asyncio.wait([sender.reading for sender in inside[:2]], return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    stopped = next(sender for sender in inside[:2] if sender.reading in done)
    with pytest.raises(Overloaded, match="too slowly"):
        await stopped.reading
    stopped.room.close()
    await waiting.send(None)
    assert await waiting.reading == LARGEST
    assert inside[2].finished


@asynchronously
async def test_there_is_always_room_for_two_of_the_largest() -> None:
    held = BodyMemory(1, LARGEST)
    room: Room = held.room(LARGEST)
    await held.give(room, LARGEST)
    assert room.held == LARGEST


async def read(room: Room, *sizes: int) -> None:
    """All of what comes in pieces of these sizes."""

    async def pieces() -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    chunks = pieces()
    while await room.next(chunks) is not None:
        pass


@asynchronously
async def test_what_is_fetched_has_room_in_place_of_the_body_until_the_request_is_done_with() -> None:
    held = BodyMemory(MOST, LARGEST)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = Request(scope)
        await read(memory.room_of(request), 2000)
        assert held.held == 2000
        instead = memory.room_instead(request, 3_000_000)
        assert held.held == 0
        await read(instead, FIRST, 1, 1000)
        assert memory.room_of(request) is instead
        assert held.held == FIRST + 1001
        raise Overloaded

    within: Any = memory.within_memory(held)
    scope: Any = {"type": "http", "headers": [(b"content-length", b"2000")], "state": {}}
    with pytest.raises(Overloaded):
        await within(app)(scope, _nothing, _nothing)
    assert held.held == 0


@asynchronously
async def test_what_a_request_reads_beside_its_body_has_room_of_its_own_until_its_end() -> None:
    held = BodyMemory(MOST, LARGEST)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = Request(scope)
        await read(memory.room_of(request), 2000)
        for size, so_far in ((3000, 5000), (2_000_000, 2_005_000)):
            await read(memory.room_beside(request, size), size)
            assert held.held == so_far
        raise Overloaded

    within: Any = memory.within_memory(held)
    scope: Any = {"type": "http", "headers": [(b"content-length", b"2000")], "state": {}}
    with pytest.raises(Overloaded):
        await within(app)(scope, _nothing, _nothing)
    assert held.held == 0


async def _nothing(*_: object) -> Any: ...


# --- a server under a thousandfold of what it may hold ---------------------------------------------------------------

SENDERS = 200
BODY = 8_000_000
BOUND = 24_000_000
# Beside the bodies: what each connection holds unread, and what answering searches takes.
MARGIN = 120_000_000


def flood(server: Process, stop: threading.Event) -> Counter[str]:
    """Many senders of large bodies that never end; the statuses of the answers."""
    head = (
        f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    ).encode()
    block = memoryview(bytes(BODY - len(head) - 1000))

    def send() -> str:
        with server.connect() as connection:
            with suppress(OSError):  # an answer that came before the body's end may close the connection
                connection.sendall(head)
                connection.sendall(block)
            with suppress(OSError):
                return connection.recv(12).decode()[-3:]
        return "none"

    with ThreadPoolExecutor(SENDERS) as pool:
        answers = Counter(pool.map(lambda _: send(), range(SENDERS)))
    stop.set()
    return answers


def test_many_unfinished_uploads_take_no_more_memory_than_they_may_and_a_small_search_is_answered(
    serve: Serve, database_url: str
) -> None:
    flags = ("--max-upload", str(BODY), "--body-memory", str(BOUND), "--deadline", "8")
    server = serve("--database-url", database_url, *flags).ready()
    server.search()
    worker = server.worker
    before = worker.memory_info().rss
    stop, peak, searched = threading.Event(), before, 0
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        flooding = pool.submit(flood, server, stop)
        while not stop.is_set():
            answer = client.post("/v1/search", files={"file": unseen(KEYBOARD)}, headers={"Twinlens-Deadline": "60"})
            assert answer.status_code == 200 or answer.json()["code"] == "deadline_missed"
            searched += answer.status_code == 200
            peak = max(peak, worker.memory_info().rss)
        answers = flooding.result()
    assert set(answers) == {"503"}
    assert searched > 0
    assert peak - before < BOUND + MARGIN < SENDERS * BODY / 10
    with server.client() as client:
        body = client.post("/embed-image", files={"file": KEYBOARD})
        assert len(json.loads(body.content)["embedding"]) > 0


@asynchronously
async def test_a_tiny_body_goes_before_many_that_are_almost_large() -> None:
    held = BodyMemory(MOST, LARGEST)
    crowd = [Sender(held, SMALL) for _ in range(60)]
    for sender in crowd:
        await sender.send(700_000)
    assert any(sender.waits for sender in crowd)
    tiny = Sender(held, 1000)
    await tiny.send(1000, None)
    assert tiny.finished
    for sender in crowd:
        sender.reading.cancel()
