"""The bench of the page: it drives the real page, and counts what it says it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from bench import page, screenshots
from tests.support.browsers import needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]  # each starts a server and a browser


def test_each_way_is_measured_as_often_as_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.json"
    page.main(["--times", "2", "--json", str(out)])
    times = json.loads(out.read_text())["times"]
    assert [one["count"] for one in times] == [2, 2, 2, len(page.WORDS)]
    assert all(0 < one["median"] <= one["worst"] for one in times)
    assert "a picture chosen, first match seen" in capsys.readouterr().out


def test_the_pictures_of_the_page_are_of_three_widths_and_two_schemes(tmp_path: Path) -> None:
    assert screenshots.main(["--into", str(tmp_path)]) == 0
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    for path in files:
        _, width, scheme = path.stem.split("-")
        with Image.open(path) as opened:
            assert opened.width == int(width)
            ground = opened.convert("L").getpixel((2, opened.height // 2))
        assert isinstance(ground, int)
        assert (ground > 200) == (scheme == "light")
