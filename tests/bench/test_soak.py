"""The soak: what counts as flat, what is drawn, and a short one on a real server."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.soak import command
from bench.soak.drawing import svg
from bench.soak.samples import QUANTITIES, judge


def test_what_grows_after_the_warm_up_is_not_flat() -> None:
    assert judge("handles", [10, 40, 40, 41, 40, 42, 41, 40]).flat
    assert not judge("handles", [40, 40, 41, 43, 45, 47, 49, 51]).flat
    assert judge("memory", [100, 300, 300, 300, 300, 301, 302, 305]).flat
    assert not judge("memory", [100, 300, 310, 320, 330, 340, 350, 360]).flat
    assert judge("tasks", [30, 31, 30, 32, 34, 60, 31, 75]).flat  # requests under way are not held
    assert not judge("tasks", [30, 31, 30, 32, 34, 60, 36, 75]).flat
    assert judge("connections", [8, 12, 12, 3, 3, 3, 3, 3]).flat


def test_all_series_are_drawn() -> None:
    minutes = [0.0, 0.5, 1.0]
    drawn = svg(minutes, {name: [1.0, 2.0, 3.0] for name in QUANTITIES})
    root = ElementTree.fromstring(drawn)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3] * len(QUANTITIES)


@pytest.mark.slow
def test_a_short_soak_measures_all_and_finds_right_answers(tmp_path: Path) -> None:
    file, picture = tmp_path / "soak.json", tmp_path / "soak.svg"
    given = ["--minutes", "0.5", "--full", "5", "--every", "1", "--json", str(file), "--svg", str(picture)]
    assert command.main(given) in (0, 1)
    report = json.loads(file.read_text())
    assert not report["faults"]
    assert 0 < report["rate"] < report["full_rate"]
    for name in QUANTITIES:
        assert len(report["series"][name]) > 10
        assert min(report["series"][name]) > 0
    assert "polyline" in picture.read_text()
