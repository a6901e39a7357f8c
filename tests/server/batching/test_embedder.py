"""The embedder with the real decoder and a stand-in for the model: what is admitted, what is refused, what stays."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.batching.batcher import Batcher
from server.batching.embedder import Embedder, Words
from server.batching.fair_queue import Caller
from server.errors import (
    DeadlineMissed,
    EncoderFailed,
    NoPicture,
    NotAPicture,
    NoTextTower,
    Overloaded,
    PictureTooLarge,
    TextRejected,
    UnreadablePicture,
)
from server.preprocessing import media
from server.preprocessing.media import Picture
from server.preprocessing.region import Region
from server.preprocessing.text import Tokenizer
from tests.support.pictures import in_format
from tests.support.stand_ins import Model, Reader

pytestmark = pytest.mark.anyio

SPEC = PreprocessingSpec(
    size=2, resize="squash", edge=2, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
LONG = 60.0
SHORT = 0.05
NOTHING = 1e-6


def picture(value: int, size: tuple[int, int] = (4, 3)) -> bytes:
    """A picture that the stand-in gives the vector [value]; 66 is poison to it."""
    return in_format(Image.new("L", size, value), "PNG")


@pytest.fixture
def model() -> Model:
    return Model(most=8)


@pytest.fixture
async def batcher(model: Model) -> AsyncIterator[Batcher]:
    async with Batcher([model]) as batcher:
        yield batcher
        model.gate.set()  # whatever a test left behind may go


@pytest.fixture
def embedder(batcher: Batcher) -> Iterator[Embedder]:
    embedder = Embedder(batcher, SPEC, max_pixels=20_000_000, threads=2)
    yield embedder
    embedder.close()


async def hold(embedder: Embedder, model: Model, value: int = 1) -> Any:
    """Occupy the model with one picture, so that what comes now has to wait."""
    model.gate.clear()
    held = asyncio.create_task(embedder.embed(picture(value), within=LONG))
    await asyncio.to_thread(model.entered.wait, 10)
    return held


async def missed(embedder: Embedder, within: float = SHORT) -> DeadlineMissed:
    """Let one picture miss its deadline while the model is held."""
    with pytest.raises(DeadlineMissed) as caught:
        await embedder.embed(picture(9), within=within)
    assert type(caught.value) is DeadlineMissed  # admitted, not refused
    return caught.value


async def test_pictures_come_back_in_order_with_what_they_were(embedder: Embedder) -> None:
    first, second, third = await embedder.embed_all(
        [picture(10), picture(20, (7, 5)), in_format(Image.new("L", (6, 6), 30), "BMP")], within=LONG
    )
    assert [one.embedding.tolist() for one in (first, second, third)] == [[10.0], [20.0], [30.0]]
    assert [(one.width, one.height, one.format.extension) for one in (first, second, third)] == [
        (4, 3, "png"), (7, 5, "png"), (6, 6, "bmp"),
    ]  # fmt: skip


async def test_a_thumbnail_is_made_only_when_asked_for(embedder: Embedder) -> None:
    assert (await embedder.embed(picture(10), within=LONG)).thumbnail is None
    wanted = (await embedder.embed(picture(10, (600, 300)), within=LONG, thumbnail=True)).thumbnail
    assert wanted is not None
    image = Image.open(io.BytesIO(wanted))
    assert (image.format, image.size) == ("WEBP", (256, 128))
    assert await embedder.thumbnail(picture(10, (600, 300))) == wanted


async def test_each_picture_that_was_embedded_is_timed_and_no_other(embedder: Embedder) -> None:
    timed = []
    embedder.on_embedded = lambda *seen: timed.append(seen)
    await embedder.embed_all([picture(10), picture(11)], within=LONG)
    for bad in (picture(66), b"text"):
        with pytest.raises((EncoderFailed, NotAPicture)):
            await embedder.embed(bad, within=LONG)
    assert [(tower, list(timings)) for tower, timings in timed] == [
        ("image", ["decode", "resize", "queue", "encode"])
    ] * 2
    assert all(min(timings.values()) >= 0 for _, timings in timed)


# --- admission control -----------------------------------------------------------------------------------------------


async def test_more_work_than_fits_the_deadline_is_not_admitted_once_misses_show_the_pace(
    embedder: Embedder, model: Model
) -> None:
    held = await hold(embedder, model)
    await missed(embedder)  # admitted: nothing has been answered or missed yet, so there was no pace
    assert embedder.pictures.inside == 1
    with pytest.raises(Overloaded) as caught:
        await embedder.embed(picture(10), within=SHORT / 10)
    assert type(caught.value) is Overloaded  # at once; a picture that was admitted would have missed its deadline
    assert caught.value.retry_after >= 1
    assert embedder.pictures.inside == 1
    admitted = asyncio.create_task(embedder.embed(picture(11), within=LONG))
    model.gate.set()
    assert (await admitted).embedding.tolist() == [11.0]
    await held
    assert model.batches == [[1], [11]]


async def test_one_that_is_cut_off_from_outside_when_its_time_is_up_shows_the_pace_as_well(
    embedder: Embedder, batcher: Batcher, model: Model
) -> None:
    held = await hold(embedder, model)
    late = asyncio.create_task(embedder.embed(picture(9), within=1.0))
    while not batcher.waiting:
        await asyncio.sleep(0.001)
    time.sleep(1.1)  # noqa: ASYNC251 - nobody looks at the clock until its time is up
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    with pytest.raises(Overloaded) as caught:
        await embedder.embed(picture(10), within=SHORT / 10)
    assert type(caught.value) is Overloaded
    model.gate.set()
    await held


async def test_the_more_is_inside_the_later_is_retry_after(embedder: Embedder, model: Model) -> None:
    held = await hold(embedder, model)
    await missed(embedder)
    seen = []
    crowds = []
    for inside in (201, 401):
        crowds.append(asyncio.create_task(embedder.embed_all([picture(10)] * 200, within=LONG)))
        while embedder.pictures.inside < inside:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await embedder.embed(picture(11), within=NOTHING)
        seen.append(caught.value.retry_after)
    # Two pictures were inside while one missed its deadline: each counts half of it.
    assert seen[0] >= 201 * SHORT / 2 * 0.9
    assert seen[1] == pytest.approx(seen[0] * 402 / 202)  # and what asks
    model.gate.set()
    await asyncio.gather(held, *crowds)


async def test_all_are_admitted_when_nothing_is_inside_whatever_the_pace_and_the_number(
    embedder: Embedder, model: Model
) -> None:
    held = await hold(embedder, model)
    await missed(embedder)
    model.gate.set()
    await held
    assert embedder.pictures.inside == 0
    assert len(await embedder.embed_all([picture(10)] * 1025, within=LONG)) == 1025
    model.gate.clear()
    await missed(embedder, NOTHING)


async def test_pictures_that_are_refused_without_encoding_say_nothing_about_the_pace(
    embedder: Embedder, model: Model
) -> None:
    held = await hold(embedder, model)
    await missed(embedder)
    for _ in range(100):
        with pytest.raises(NotAPicture):
            await embedder.embed(b"text", within=LONG)
    with pytest.raises(Overloaded) as caught:
        await embedder.embed(picture(10), within=SHORT / 10)
    assert type(caught.value) is Overloaded
    model.gate.set()
    await held


async def test_no_more_than_1024_pictures_are_inside_at_once(embedder: Embedder, model: Model) -> None:
    held = await hold(embedder, model)
    crowd = asyncio.create_task(embedder.embed_all([picture(10)] * 1022, within=LONG))
    while embedder.pictures.inside < 1023:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await embedder.embed_all([picture(11), picture(12)], within=LONG)
    assert type(caught.value) is Overloaded
    assert caught.value.retry_after >= 1
    last = asyncio.create_task(embedder.embed(picture(13), within=LONG))
    while embedder.pictures.inside < 1024:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await embedder.embed(picture(14), within=LONG)
    model.gate.set()
    assert (await last).embedding.tolist() == [13.0]
    await asyncio.gather(held, crowd)
    assert embedder.pictures.inside == 0
    assert (await embedder.embed(picture(15), within=LONG)).embedding.tolist() == [15.0]


# --- time, failure, leaving ------------------------------------------------------------------------------------------


async def test_time_that_runs_out_while_waiting_is_a_missed_deadline_and_withdraws_the_picture(
    embedder: Embedder, model: Model
) -> None:
    held = await hold(embedder, model)
    error = await missed(embedder)
    assert error.retry_after >= 1
    assert embedder.pictures.inside == 1
    model.gate.set()
    await held
    await embedder.embed(picture(20), within=LONG)
    assert model.batches == [[1], [20]]


async def test_time_that_runs_out_while_the_model_is_at_it_is_a_missed_deadline_too(
    embedder: Embedder, model: Model
) -> None:
    model.gate.clear()
    await missed(embedder)
    assert embedder.pictures.inside == 0
    model.gate.set()
    assert (await embedder.embed(picture(20), within=LONG)).embedding.tolist() == [20.0]


@pytest.mark.parametrize("pictures", [[b""], [b"text"], [picture(10)[:-30]], [picture(66)], [picture(10), b"text"]])
async def test_nothing_is_inside_after_a_failure(embedder: Embedder, pictures: list[bytes]) -> None:
    with pytest.raises((NotAPicture, UnreadablePicture, EncoderFailed, NoPicture)):
        await embedder.embed_all(pictures, within=LONG)
    assert embedder.pictures.inside == 0


async def test_nothing_is_inside_after_success(embedder: Embedder) -> None:
    await embedder.embed_all([picture(value) for value in range(10, 20)], within=LONG)
    assert embedder.pictures.inside == 0


async def test_one_bad_picture_among_several_is_named_by_its_number(embedder: Embedder) -> None:
    with pytest.raises(NotAPicture, match=r"^Picture 2 of 3: The upload is not a picture") as caught:
        await embedder.embed_all([picture(10), b"text", picture(12)], within=LONG)
    assert caught.value.sentence.startswith("Picture 2 of 3: ")
    with pytest.raises(NotAPicture, match=r"^The upload is not a picture"):
        await embedder.embed_all([b"text"], within=LONG)


async def test_what_came_beside_a_bad_picture_is_not_encoded(
    embedder: Embedder, model: Model, batcher: Batcher
) -> None:
    held = await hold(embedder, model)
    with pytest.raises(NotAPicture):
        await embedder.embed_all([picture(10), picture(11), b"text", picture(12)], within=LONG)
    assert embedder.pictures.inside == 1
    model.gate.set()
    await held
    await embedder.embed(picture(20), within=LONG)
    assert model.batches == [[1], [20]]
    assert batcher.waiting == 0


async def test_one_callers_bad_picture_costs_another_caller_nothing(
    embedder: Embedder, model: Model, batcher: Batcher
) -> None:
    held = await hold(embedder, model)
    others = asyncio.create_task(embedder.embed_all([picture(10), picture(11)], within=LONG))
    while batcher.waiting < 2:
        await asyncio.sleep(0)
    with pytest.raises(NotAPicture):
        await embedder.embed_all([picture(12), b"text"], within=LONG)
    poisoned = asyncio.create_task(embedder.embed(picture(66), within=LONG))
    while embedder.pictures.inside < 4:
        await asyncio.sleep(0)
    model.gate.set()
    assert [one.embedding.tolist() for one in await others] == [[10.0], [11.0]]
    with pytest.raises(EncoderFailed):
        await poisoned
    await held


async def test_a_caller_who_leaves_withdraws_what_no_batch_has_taken(
    embedder: Embedder, model: Model, batcher: Batcher
) -> None:
    held = await hold(embedder, model)
    leaver = asyncio.create_task(embedder.embed_all([picture(10), picture(11)], within=LONG))
    stayer = asyncio.create_task(embedder.embed(picture(12), within=LONG))
    while batcher.waiting < 3:
        await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert embedder.pictures.inside == 2
    model.gate.set()
    await asyncio.gather(held, stayer)
    assert model.batches == [[1], [12]]
    assert embedder.pictures.inside == 0


# --- texts -----------------------------------------------------------------------------------------------------------


class Letters:
    """A stand-in for a tokenizer: a token for each letter; refuses what has a digit in it."""

    def tokens(self, text: str) -> NDArray[np.int64]:
        if any(letter.isdigit() for letter in text):
            raise TextRejected()
        return np.array([ord(letter) for letter in text], np.int64)


@pytest.fixture
def reader() -> Reader:
    return Reader(most=8)


@pytest.fixture
async def texts(reader: Reader) -> AsyncIterator[Batcher]:
    async with Batcher([reader]) as texts:
        yield texts
        reader.gate.set()


@pytest.fixture
def reading(batcher: Batcher, texts: Batcher) -> Iterator[Embedder]:
    words = Words(cast(Tokenizer, Letters()), texts)
    embedder = Embedder(batcher, SPEC, max_pixels=20_000_000, threads=2, words=words)
    yield embedder
    embedder.close()


async def read(embedder: Embedder, *texts: str, within: float = LONG) -> list[str]:
    return [chr(int(one.embedding[0])) for one in await embedder.embed_texts(texts, within=within)]


async def hold_text(embedder: Embedder, reader: Reader) -> Any:
    """Occupy the text tower with one text, so that what comes now has to wait."""
    reader.gate.clear()
    held = asyncio.create_task(read(embedder, "held"))
    await asyncio.to_thread(reader.entered.wait, 10)
    return held


async def test_texts_come_back_in_order_whatever_their_lengths(reading: Embedder) -> None:
    texts = ["one", "twelve", "a", "ten", "x" * 50, "six"]
    assert await read(reading, *texts) == [text[0] for text in texts]


async def test_without_a_text_tower_words_are_refused(embedder: Embedder) -> None:
    assert not embedder.reads_text
    with pytest.raises(NoTextTower):
        await embedder.embed_texts(["a"], within=LONG)


async def test_each_text_that_was_embedded_is_timed_and_no_other(reading: Embedder) -> None:
    timed = []
    reading.on_embedded = lambda *seen: timed.append(seen)
    await read(reading, "a", "bc")
    for bad in ("1", "Bad"):  # B is 66, which is poison
        with pytest.raises((TextRejected, EncoderFailed)):
            await read(reading, bad)
    assert [(tower, list(timings)) for tower, timings in timed] == [("text", ["tokenize", "queue", "encode"])] * 2
    assert all(min(timings.values()) >= 0 for _, timings in timed)


async def test_one_bad_text_among_several_is_named_by_its_number(reading: Embedder) -> None:
    with pytest.raises(TextRejected, match=r"^Text 2 of 3: The text cannot be read") as caught:
        await read(reading, "a", "2", "c")
    assert caught.value.sentence.startswith("Text 2 of 3: ")
    assert reading.texts.inside == 0


async def test_words_do_not_wait_for_pictures_nor_pictures_for_words(
    reading: Embedder, model: Model, reader: Reader
) -> None:
    held = await hold(reading, model)
    assert await read(reading, "a") == ["a"]
    waiting = await hold_text(reading, reader)
    model.gate.set()
    await held
    assert (await reading.embed(picture(10), within=LONG)).embedding.tolist() == [10.0]
    assert (reading.pictures.inside, reading.texts.inside) == (0, 1)
    reader.gate.set()
    assert await waiting == ["h"]


async def test_text_that_waits_too_long_is_a_missed_deadline_and_more_of_it_is_not_admitted(
    reading: Embedder, reader: Reader
) -> None:
    held = await hold_text(reading, reader)
    with pytest.raises(DeadlineMissed):
        await read(reading, "late", within=SHORT)
    assert reading.texts.inside == 1
    with pytest.raises(Overloaded) as caught:
        await read(reading, "refused", within=SHORT / 10)
    assert type(caught.value) is Overloaded
    assert caught.value.retry_after >= 1
    # Admission control of pictures has a pace of its own.
    assert (await reading.embed(picture(10), within=LONG)).embedding.tolist() == [10.0]
    reader.gate.set()
    await held
    assert await read(reading, "next") == ["n"]
    assert reader.batches == [[ord("h")], [ord("n")]]


async def test_no_more_than_1024_texts_are_inside_at_once(reading: Embedder, reader: Reader) -> None:
    held = await hold_text(reading, reader)
    crowd = asyncio.create_task(read(reading, *["a"] * 1023))
    while reading.texts.inside < 1024:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await read(reading, "b")
    assert type(caught.value) is Overloaded
    reader.gate.set()
    await asyncio.gather(held, crowd)
    assert reading.texts.inside == 0


async def test_texts_that_are_refused_without_encoding_say_nothing_about_the_pace(
    reading: Embedder, reader: Reader
) -> None:
    held = await hold_text(reading, reader)
    with pytest.raises(DeadlineMissed):
        await read(reading, "late", within=SHORT)
    for _ in range(100):
        with pytest.raises(TextRejected):
            await read(reading, "1")
    with pytest.raises(Overloaded) as caught:
        await read(reading, "refused", within=SHORT / 10)
    assert type(caught.value) is Overloaded
    reader.gate.set()
    await held


async def test_a_caller_who_leaves_withdraws_the_texts_that_no_batch_has_taken(
    reading: Embedder, reader: Reader, texts: Batcher
) -> None:
    held = await hold_text(reading, reader)
    leaver = asyncio.create_task(read(reading, "a", "b"))
    stayer = asyncio.create_task(read(reading, "c"))
    while texts.waiting < 3:
        await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert reading.texts.inside == 2
    reader.gate.set()
    await asyncio.gather(held, stayer)
    assert reader.batches == [[ord("h")], [ord("c")]]


# --- clients ---------------------------------------------------------------------------------------------------------


async def test_what_one_client_has_sent_is_new_when_another_sends_it(batcher: Batcher, texts: Batcher) -> None:
    words = Words(cast(Tokenizer, Letters()), texts)
    embedder = Embedder(batcher, SPEC, max_pixels=1000, threads=2, words=words, cache=1_000_000)
    us, us_in_bulk, them = Caller("us"), Caller("us", "bulk"), Caller("them")
    try:
        for caller, known in ((us, False), (us, True), (us_in_bulk, True), (them, False), (them, True)):
            one = await embedder.embed(picture(5), within=LONG, caller=caller)
            several = await embedder.embed_all([picture(6), picture(7)], within=LONG, caller=caller)
            (text,) = await embedder.embed_texts(["shoe"], within=LONG, caller=caller)
            for timings in (one.timings, several[0].timings, several[1].timings, text.timings):
                assert (not timings) == known, caller
    finally:
        embedder.close()


def two_halves(left: int, right: int) -> bytes:
    """A picture of whose right half the stand-in gives the vector [right], and another one of all of it."""
    samples = np.full((4, 8), left, np.uint8)
    samples[:, 4:] = right
    return in_format(Image.fromarray(samples), "PNG")


async def test_a_region_is_embedded_and_kept_as_something_else_than_its_picture(batcher: Batcher, model: Model) -> None:
    embedder = Embedder(batcher, SPEC, max_pixels=1000, threads=2, cache=1_000_000)
    right, upper = Region(0.5, 0, 1, 1), Region(0.5, 0, 1, 0.5)
    data = two_halves(10, 200)
    all_of_it = int(media.read_pixels(data, SPEC, max_pixels=1000)[0, 0, 0])
    try:
        for known in (False, True):
            whole = await embedder.embed(data, within=LONG)
            cut = await embedder.embed(data, within=LONG, region=right)
            other = await embedder.embed(data, within=LONG, region=upper)
            assert [one.embedding.tolist() for one in (whole, cut, other)] == [[all_of_it], [200], [200]]
            assert [(one.width, one.height) for one in (whole, cut, other)] == [(8, 4), (4, 4), (4, 2)]
            assert [one.blank for one in (whole, cut, other)] == [False, True, True]
            assert {not one.timings for one in (whole, cut, other)} == {known}
        assert len(model.batches) == 3
        again = await embedder.embed_all([data, data, data], within=LONG, regions=[right, None, Region(0, 0, 0.5, 1)])
        assert [one.embedding.tolist() for one in again] == [[200], [all_of_it], [10]]
        assert [not one.timings for one in again] == [True, True, False]
        assert (await embedder.embed(data, within=LONG, caller=Caller("them"), region=right)).timings
    finally:
        embedder.close()


async def test_one_region_that_is_asked_for_twice_at_once_is_embedded_once(
    embedder: Embedder, batcher: Batcher, model: Model
) -> None:
    held = await hold(embedder, model)
    data, left, right = two_halves(10, 200), Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1)
    tasks = [
        asyncio.create_task(embedder.embed(data, within=LONG, region=region)) for region in (right, left, right, left)
    ]
    while batcher.waiting < 2:
        await asyncio.sleep(0)
    model.gate.set()
    assert [one.embedding.tolist() for one in await asyncio.gather(*tasks)] == [[200], [10], [200], [10]]
    assert sorted(value for batch in model.batches for value in batch) == [1, 10, 200]
    await held


async def test_a_thumbnail_beside_a_region_shows_the_whole_picture(embedder: Embedder) -> None:
    data = two_halves(10, 200)
    made = await embedder.embed(data, within=LONG, region=Region(0.5, 0, 1, 1), thumbnail=True)
    assert made.thumbnail == await embedder.thumbnail(data)


async def test_two_clients_that_send_one_picture_at_once_do_not_share_its_vector(
    batcher: Batcher, model: Model
) -> None:
    embedder = Embedder(batcher, SPEC, max_pixels=1000, threads=2, cache=1_000_000)
    try:
        held = await hold(embedder, model)
        callers = [Caller("us"), Caller("us"), Caller("them")]
        tasks = [asyncio.create_task(embedder.embed(picture(9), within=LONG, caller=one)) for one in callers]
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(held, *tasks)
        assert (embedder.known["image"].made, embedder.known["image"].joined) == (3, 1)
    finally:
        embedder.close()


# --- large pictures --------------------------------------------------------------------------------------------------


class Meeting:
    """The real decoder behind a barrier at which two pictures wait for each other, for half a second at most.

    Two that may be decoded at the same time meet at once; two that may not never do, however long they wait.
    """

    def __init__(self) -> None:
        self.decode = media.decode
        self.barrier = threading.Barrier(2)
        self.met = 0

    def __call__(self, data: bytes, **options: Any) -> Picture:
        try:
            self.barrier.wait(0.5)
            self.met += 1
        except threading.BrokenBarrierError:
            pass
        return self.decode(data, **options)


@pytest.mark.parametrize(("size", "met"), [((4000, 4000), 2), ((4000, 4001), 0)])
async def test_pictures_of_more_than_16_megapixels_are_decoded_one_at_a_time(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], met: int
) -> None:
    meeting = Meeting()
    monkeypatch.setattr(media, "decode", meeting)
    # Two files of one picture: the same bytes would be decoded once.
    files = [in_format(Image.new("1", size, 1), "PNG", compress_level=level) for level in (1, 9)]
    both = await embedder.embed_all(files, within=LONG)
    assert [(one.width, one.height) for one in both] == [size, size]
    assert all(one.embedding.tolist() == [255.0] for one in both)
    assert meeting.met == met


async def test_a_large_picture_that_fails_lets_the_next_one_in(embedder: Embedder) -> None:
    random = np.random.default_rng(1).integers(0, 256, (4000, 4001), dtype=np.uint8)
    cut = in_format(Image.fromarray(random), "PNG", compress_level=0)[:100_000]
    with pytest.raises(UnreadablePicture):
        await embedder.embed(cut, within=LONG)
    whole = in_format(Image.new("1", (4000, 4001), 1), "PNG")
    assert (await embedder.embed(whole, within=LONG)).embedding.tolist() == [255.0]


# --- JPEG at scale ---------------------------------------------------------------------------------------------------


def photograph(width: int, height: int, **options: Any) -> bytes:
    across, down = np.meshgrid(np.linspace(0, 150, width), np.linspace(0, 100, height))
    return in_format(Image.fromarray((across + down).astype(np.uint8)).convert("RGB"), "JPEG", quality=95, **options)


@pytest.mark.parametrize(("at_least", "scale"), [(0, 1), (2, 8), (200, 4), (400, 2)])
async def test_jpegs_are_decoded_as_the_spec_says_whether_a_thumbnail_is_made_or_not(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch, at_least: int, scale: int
) -> None:
    """A query makes no thumbnail and a media does: their vectors must not differ by that."""
    scales: list[int] = []

    def watched(data: bytes, **options: Any) -> Picture:
        picture = decode(data, **options)
        scales.append(picture.scale)
        return picture

    decode = media.decode
    monkeypatch.setattr(media, "decode", watched)
    spec = msgspec.structs.replace(SPEC, jpeg_at_least=at_least)
    embedder = Embedder(batcher, spec, max_pixels=20_000_000, threads=2)
    try:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = photograph(1203, 801, exif=exif)
        query = await embedder.embed(data, within=LONG)
        kept = await embedder.embed(data, within=LONG, thumbnail=True)
        alone = await embedder.thumbnail(data)
    finally:
        embedder.close()
    assert scales[0] == scales[1] == scale
    np.testing.assert_array_equal(query.embedding, kept.embedding)
    assert (query.width, query.height) == (kept.width, kept.height) == (801, 1203)
    full = Image.open(io.BytesIO(media.thumbnail(decode(data, max_pixels=20_000_000))))
    for thumbnail in (kept.thumbnail, alone):
        assert thumbnail is not None
        made = Image.open(io.BytesIO(thumbnail))
        assert made.size == full.size == (170, 256)
        assert np.abs(np.asarray(made, np.int16) - np.asarray(full, np.int16)).mean() < 1


@pytest.mark.parametrize(("at_least", "read"), [(2, True), (0, False)])
async def test_a_large_jpeg_is_measured_by_the_bound_that_it_is_decoded_by(
    batcher: Batcher, at_least: int, read: bool
) -> None:
    data = photograph(400, 300)
    embedder = Embedder(batcher, msgspec.structs.replace(SPEC, jpeg_at_least=at_least), max_pixels=30_000, threads=2)
    try:
        if read:
            found = await embedder.embed(data, within=LONG, thumbnail=True)
            assert (found.width, found.height) == (400, 300)
            assert await embedder.thumbnail(data) == found.thumbnail
        else:
            with pytest.raises(PictureTooLarge):
                await embedder.embed(data, within=LONG)
    finally:
        embedder.close()
