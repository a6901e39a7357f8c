"""The bench of composed queries: its sets are what they say, and its measure can tell a good query from a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import compose
from bench.compose import COLOURS, SHAPES, THINGS, TINTS, Centre, Query, Set, measure
from bench.near_duplicates import PICTURES
from tests import STARTER
from tests.support.vectors import directions


def planted() -> tuple[Set, dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    """Twenty kinds of things in ten colours: a picture is the sum of both, and a word is a colour."""
    axes = directions(60, 256)
    things, colours, noise = axes[:20], axes[20:30], axes[30:]
    pictures = np.array([thing + 0.6 * colour for thing in things for colour in colours])
    pictures += 0.2 * noise[np.arange(len(pictures)) % len(noise)]
    pictures = (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).astype(np.float32)
    queries = [
        Query(thing * 10, str(colour), thing * 10 + colour, less="0", without=thing * 10)
        for thing in range(20)
        for colour in range(1, 10)
    ]
    words = {str(at): colour.astype(np.float32) for at, colour in enumerate(colours)}
    return Set("planted", pictures, pictures, queries), words


def test_where_things_and_colours_are_directions_the_sum_finds_what_neither_finds_alone() -> None:
    one, words = planted()
    recall = {found.way: found for found in measure(one, words, Centre())}
    assert recall["picture alone"].recall < 0.8
    assert recall["words alone"].recall < 0.5
    assert recall["plain sum"].recall == 1
    assert recall["weight chosen"].recall == 1
    assert len(recall["weight chosen, and less of what it is"].weights) == 4
    # Nothing is taken away, so that nothing changes.
    assert recall["plain sum, centred"].recall == recall["plain sum"].recall


def test_a_picture_that_is_left_out_takes_no_place_among_the_first() -> None:
    vectors = np.eye(8, dtype=np.float32)
    near = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0, 0], dtype=np.float32)
    near /= np.linalg.norm(near)
    of = Set("places", vectors, vectors, [])
    assert not compose.found(of, Query(0, "", target=5), near)
    assert compose.found(of, Query(0, "", target=5, without=0), near)
    assert compose.found(of, Query(0, "", target=4), near)


def test_each_shape_is_of_its_colour_and_unlike_the_others() -> None:
    shown = {shape: np.asarray(compose.drawn(shape, "blue", radius=0.4, at=(0.5, 0.5))) for shape in SHAPES}
    for pixels in shown.values():
        assert (pixels == COLOURS["blue"]).all(axis=2).mean() > 0.05
        assert (pixels == 255).all(axis=2).mean() > 0.2
    assert len({pixels.tobytes() for pixels in shown.values()}) == len(SHAPES)


def test_every_thing_is_a_picture_of_the_demo_catalogue() -> None:
    there = {path.stem for path in PICTURES.iterdir()}
    assert {name for one, _, target in THINGS for name in (one, target)} <= there
    assert all(one != target for one, _, target in THINGS)
    assert set(TINTS) < set(COLOURS)


def test_figures_are_kept_with_their_command_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compose, "COLOURS", {name: COLOURS[name] for name in ("red", "blue", "grey")})
    monkeypatch.setattr(compose, "TINTS", ("red", "blue"))
    monkeypatch.setattr(compose, "WEIGHTS", (1.0, 2.0))
    monkeypatch.setattr(compose, "_TINTED_EACH", 140)
    out = tmp_path / "compose.json"
    assert compose.main(["--model", str(STARTER), "--json", str(out)]) == 0
    assert "shapes: 60 queries among 30 pictures" in capsys.readouterr().out
    kept = json.loads(out.read_text())
    assert kept["command"].startswith("python -m bench compose")
    ways = {(one["set"], one["way"]): one["recall"] for one in kept["recall@5"]}
    assert ways["things", "words x 2"] > ways["things", "picture alone"]


def test_a_model_without_words_is_refused(image_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compose.main(["--model", str(image_only)]) == 2
    assert "reads no words" in capsys.readouterr().err
