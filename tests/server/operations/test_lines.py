"""One event is one line, in JSON and in text, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from server.operations.lines import MOST_BYTES, OneLine, about
from server.settings import LogForm, Settings

NASTY = "a\nb\r\nc\x1b[2Jd\x00e\u2028f\x85g\ud800h\u202e\"}'{\\n"
FORMS: tuple[LogForm, ...] = ("text", "json")


def record(text: str, *args: object, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("server.test", logging.WARNING, __file__, 1, text, args, None)
    made.created = 1_700_000_000.25
    made.fields = fields
    return made


def failed(error: Exception) -> logging.LogRecord:
    made = record("It failed")
    try:
        raise error
    except Exception:
        made.exc_info = sys.exc_info()
    return made


def read(line: str) -> dict[str, Any]:
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


def test_an_event_in_json_has_its_time_level_logger_message_process_and_fields() -> None:
    line = OneLine(form="json", process="worker 2").format(record("%d of them", 3, event="counted", count=3))
    event = read(line)
    assert event.pop("pid") > 0
    assert event == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "server.test",
        "message": "3 of them",
        "process": "worker 2",
        "event": "counted",
        "count": 3,
    }


def test_an_event_in_text_is_for_people() -> None:
    assert OneLine().format(record("%d of them", 3, count=3)) == (
        "2023-11-14T22:13:20.250Z WARNING server.test: 3 of them"
    )


@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_a_caller_chose_begins_another_line(form: LogForm) -> None:
    with about(lambda: {"requestId": NASTY, "client": NASTY}):
        line = OneLine(form=form).format(record("%s", NASTY, path=NASTY))
    assert line.isprintable()
    assert line.isascii()
    assert line.splitlines() == [line]


def test_what_a_caller_chose_is_read_back_as_it_was() -> None:
    line = OneLine(form="json").format(record("%s", NASTY, path=NASTY))
    assert (read(line)["message"], read(line)["path"]) == (NASTY, NASTY)


@pytest.mark.parametrize("form", FORMS)
def test_a_traceback_is_a_part_of_its_event(form: LogForm) -> None:
    line = OneLine(form=form).format(failed(ValueError("of two\nlines")))
    assert line.splitlines() == [line]
    if form == "json":
        event = read(line)
        assert event["exception"] == "ValueError"
        assert event["traceback"].startswith("Traceback (most recent call last):\n")
        assert event["traceback"].endswith("ValueError: of two\nlines")
    else:
        assert " | Traceback (most recent call last):\\n" in line
        assert line.endswith("ValueError: of two\\nlines")


def test_on_a_terminal_the_lines_of_a_traceback_follow_indented() -> None:
    first, *others = OneLine(folded=False).format(failed(ValueError("of two\nlines"))).splitlines()
    assert first.endswith("It failed")
    assert others
    assert all(line.startswith("    ") for line in others)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("letter", ["x", "é", "\n", "\N{PILE OF POO}"])
def test_no_line_is_longer_than_collectors_take_and_the_end_of_a_traceback_stays(form: LogForm, letter: str) -> None:
    line = OneLine(form=form).format(failed(ValueError(letter * 50_000 + "the reason")))
    assert len(line.encode()) <= MOST_BYTES
    assert "the reason" in line
    assert "characters) ..." in line


def test_what_is_asked_for_in_a_block_is_in_its_events_and_in_no_others() -> None:
    form = OneLine(form="json")
    client: list[str | None] = [None]
    with about(lambda: {"requestId": "r1", "client": client[0]}):
        before = read(form.format(record("first")))
        client[0] = "acme"
        after = read(form.format(record("second")))
    outside = read(form.format(record("third")))
    assert "client" not in before
    assert (before["requestId"], after["requestId"], after["client"]) == ("r1", "r1", "acme")
    assert "requestId" not in outside


def test_in_text_a_line_says_which_request_it_is_about_once() -> None:
    form = OneLine()
    with about(lambda: {"requestId": "r1", "client": "acme", "route": "/v1/search"}):
        assert form.format(record("It failed")).endswith("It failed [requestId=r1 client=acme route=/v1/search]")
        assert form.format(record("It failed (request r1)")).endswith("It failed (request r1)")


@pytest.mark.parametrize("args", [(), (1, 2), ("not a number",)])
def test_a_message_whose_values_do_not_fit_is_a_line_all_the_same(args: tuple[object, ...]) -> None:
    assert "%d of them" in OneLine().format(record("%d of them", *args))


@pytest.mark.parametrize("form", FORMS)
def test_a_value_of_another_kind_is_a_line_all_the_same(form: LogForm) -> None:
    assert "It happened" in OneLine(form=form).format(record("It happened", path=ValueError(), nothing=None))


# --- secrets --------------------------------------------------------------------------------------------------------

SETTINGS = Settings(
    database_url="postgresql://shop:h%40shhush@db/shop",
    media_url='https://store.example/shop?signature=hush"{hush',
)


def in_message(text: str) -> logging.LogRecord:
    return record("%s", text)


def in_field(text: str) -> logging.LogRecord:
    return record("It happened", settings={"TWINLENS_MEDIA_URL": text}, path=text)


def in_traceback(text: str) -> logging.LogRecord:
    return failed(ValueError(text))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("made", [in_message, in_field, in_traceback])
@pytest.mark.parametrize("text", [str(SETTINGS.database_url), str(SETTINGS.media_url), "it was h@shhush"])
def test_a_secret_is_in_no_part_of_an_event(form: LogForm, made: Callable[[str], logging.LogRecord], text: str) -> None:
    line = OneLine(SETTINGS.printable, form).format(made(text))
    assert "hush" not in line
    if form == "json":
        assert "***" in json.dumps(read(line))


def test_what_a_message_for_operators_ends_with_stands_at_the_end_of_the_message() -> None:
    made = record("It is mended by: python -m server migrate", path="/there")
    event = read(OneLine(SETTINGS.printable, "json").format(made))
    assert event["message"].endswith("in the environment, as for this run)")
    assert event["path"] == "/there"
