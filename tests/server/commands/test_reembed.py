"""python -m server reembed: what it prints at the end of a run; spaces/test_reembed.py tests the runs themselves."""

from __future__ import annotations

import signal

import pytest

from server.catalogue.rows import SpaceRow
from server.commands import reembed
from server.spaces.reembed import Ending, Outcome, Reason, Unreadable

SPACE = SpaceRow(number=2, id="0123456789abcdef" * 4, dimensions=16, model="test", live=False)


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        ("complete", "is live, and nothing is missing in it."),
        ("live", "is live, and has what can be embedded."),
        ("switched", "is live now. Start servers with its artifact."),
        ("filled", "has what can be embedded. This makes it live: python -m server spaces switch 0123456789ab"),
    ],
)
def test_each_ending_is_printed_as_a_sentence_about_the_space(
    ending: Ending, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reembed._print(Outcome(SPACE, ending))
    assert capsys.readouterr() == (f"The space 0123456789ab (test) {sentence}\n", "")


def test_a_run_that_was_stopped_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    reembed._print(Outcome(SPACE, "stopped", embedded=1234, stopped_by=signal.SIGTERM))
    out, err = capsys.readouterr()
    assert (out, err.startswith("Stopped. 1,234 pictures were embedded and are kept")) == ("", True)


def test_pictures_that_cannot_be_embedded_are_counted_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    reembed._print(Unreadable([Reason("It is a poem.", 1200, "a"), Reason("It is gone.", 1, "b")]))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "These could not be embedded:",
        "     1,200  It is a poem. (such as a)",
        "         1  It is gone. (such as b)",
    ]
