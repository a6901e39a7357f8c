"""The record in the documentation: written between its marks, from a run's own JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.crash import document
from bench.crash.checks import LOST, PROMISES
from bench.crash.report import Report, Struck
from bench.crash.world import Tally


def report() -> Report:
    tally = Tally(operations=Counter({"put product": 1200}), acknowledged=1100, unknown=7, kinds=Counter({LOST: 2}))
    struck = [
        Struck(4.0, "worker", 0.0, None, 0.5),
        Struck(9.0, "worker", 0.0, None, 1.5),
        Struck(15.0, "disk", 3.0, "parent", 6.25),
        Struck(30.0, "pause", 2.0, None, None, "there was nothing to break"),
    ]
    return Report(3, 10.0, 2, tally, struck, looked_up=321)


def test_a_record_says_what_was_found_done_and_broken() -> None:
    text = document.record(report().json)
    assert f"| {LOST} | 2 |" in text
    assert all(f"| {kind} | 0 |" in text for kind in PROMISES if kind != LOST)
    assert "1,200 operations. 1,100 writes were acknowledged" in text
    assert "--minutes 10 --seed 3" in text
    assert "| a worker killed (-9) | 2 | 1.00 s | 1.50 s |" in text
    assert "| two at once | 1 | 6.25 s | 6.25 s |" in text
    assert "paused" not in text


def test_the_text_of_a_run_begins_with_the_promises() -> None:
    assert report().text.startswith(f"{LOST}: 2\n")
    assert not report().kept


def test_a_record_replaces_what_stands_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- crash: written by the command -->\nold\n<!-- end of crash -->\nafter\n")
    for text in ("new", "newer"):
        document.write("crash", text, page)
    marked = "<!-- crash: written by the command -->\n\nnewer\n\n<!-- end of crash -->"
    assert page.read_text() == f"before\n{marked}\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        document.write("soak", "text", page)


def test_the_page_has_a_place_for_both_records() -> None:
    text = document.PAGE.read_text()
    for name in ("crash", "soak"):
        assert f"<!-- {name}: written by the command -->" in text
        assert f"<!-- end of {name} -->" in text
