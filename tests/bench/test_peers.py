"""The bench beside others: that it measures who answers, and writes down what it measured."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import pictures
from bench.peers import command, document, loads, reference, systems
from bench.peers.loads import LOADS, REPEATED, Load, Size
from bench.peers.measure import Likeness, measure, summary
from bench.peers.systems import SYSTEMS, Bare, Running, Server, Setting, peer
from server.artifact.artifact import Artifact
from tests import ROOT
from tests.support.checkpoints import tiny_clip

# Pictures a second in two rounds under each of the four loads, and of one picture again and again.
PACES: dict[str, list[tuple[float, ...]]] = {
    "older": [(7, 8), (7, 6), (7, 7), (2, 2)],
    "litserve": [(30, 30), (14, 16), (15, 15), (3, 4)],
    "litserve-draft": [(), (), (), (12, 12)],
    "twinlens-fp32": [(14, 16), (18, 18), (18, 18), (9, 9)],
    "twinlens-int8": [(24, 26), (30, 32), (27, 27), (21, 23)],
    "twinlens-cached": [(), (), (), (), (2000, 2100)],
    "bare-fp32": [(15, 15), (20, 20), (20, 20)],
}


def record() -> dict[str, Any]:
    """What a run writes, made small; infinity did not start."""
    found: list[dict[str, Any]] = []
    for system in SYSTEMS:
        turns = PACES.get(system.name, [])
        rounds = {
            load.name: [
                {
                    "picturesPerSecond": pace,
                    "p50": 700 / pace,
                    "p95": 900 / pace,
                    "generatorCpu": 0.1,
                    "serverCores": 1.5,
                }
                for pace in paces
            ]
            for load, paces in zip((*LOADS, REPEATED), turns, strict=False)
            if paces
        }
        found.append(
            {
                "name": system.name,
                "title": system.title,
                "about": system.about,
                "installed": [],
                "why": "it does not install: no torchvision" if system.name == "infinity" else None,
                "idleCores": 1.02 if system.name == "litserve" else 0.01,
                "likeness": {"small": {"pictures": 64, "minCosine": 0.9995, "meanCosine": 1.0, "ownFirst": 63}},
                "figures": {name: summary(turn) for name, turn in rounds.items()},
            }
        )
    return {
        "machine": {"processor": "EPYC", "cores": 2, "memory_gib": 24, "system": "Linux", "instructions": "AVX2"},
        "command": "python -m bench peers --json peers.json",
        "artifact": {"name": "random-vit-b32"},
        "random": True,
        "started": "2026-11-23T12:00:00+00:00",
        "rounds": 2,
        "seconds": 10.0,
        "pictures": {"small": {"count": 64, "meanBytes": 70000}, "large": {"count": 16, "meanBytes": 3000000}},
        "loads": [{"name": load.name, "title": load.title} for load in (*LOADS, REPEATED)],
        "systems": found,
    }


def test_the_page_has_every_figure_and_says_who_is_left_out_and_who_is_better() -> None:
    lines = document.page(json.loads(json.dumps(record())), ROOT / "bench" / "results" / "peers.json").splitlines()
    rows = [line for line in lines if line.startswith("| **Twinlens int8**")]
    middle = "25.0 (24.0 to 26.0) | 31.0 (30.0 to 32.0) | 27.0 (27.0 to 27.0) | 22.0 (21.0 to 23.0)"
    assert rows[0] == f"| **Twinlens int8** | {middle} |"
    # Of the second load: the median of 30/7 and 32/6, and of 30/14 and 32/16.
    assert rows[2].split(" | ")[2] == "4.81, 2.07"
    assert "- **infinity (torch)** is left out: it does not install: no torchvision" in lines
    assert "| int8, 8 callers: 28 pictures/s | 31.0 | yes |" in lines
    assert "| int8, 32 callers: 28 pictures/s | 27.0 | **no** |" in lines
    assert "| fp32, 8 callers: 0.90 of bare ONNX Runtime | 0.90 | yes |" in lines
    assert "| a picture that was seen before: 1,500 answers/s | 2,050.0 | yes |" in lines
    better = lines[lines.index("## Where somebody else is better") + 2 :]
    better = better[: better.index("")]
    assert "- 640 x 480, 1 caller: LitServe, ONNX Runtime fp32 30.0 pictures/s, Twinlens fp32 15.0." in better
    assert "- 12 megapixels, 8 callers: LitServe, with Pillow's `draft` 12.0 pictures/s, Twinlens fp32 9.0." in better
    assert not any("older" in line or "bare" in line for line in better)
    assert any("63 of 64" in line for line in lines)
    assert any("(../bench/results/peers.json)" in line for line in lines)


def test_the_plot_has_a_bar_for_each_figure_as_long_as_it_is_large() -> None:
    drawn = ElementTree.fromstring(document.plot(record()))
    name = "{http://www.w3.org/2000/svg}"
    bars = [one for one in drawn.iter(f"{name}rect") if one.get("class") != "ground"]
    measured = [paces for system, turns in PACES.items() if system != "twinlens-cached" for paces in turns if paces]
    assert len(bars) == len(measured)
    widths = [float(one.get("width", 0)) for one in bars[:3]]
    assert widths[1] / widths[0] == pytest.approx(30 / 7.5, rel=0.01)
    assert widths[2] / widths[0] == pytest.approx(15 / 7.5, rel=0.01)


def test_a_round_that_failed_is_counted_and_not_averaged() -> None:
    found = summary([{"picturesPerSecond": 4.0}, {"error": "connection reset"}, {"picturesPerSecond": 6.0}])
    assert found["picturesPerSecond"] == {"median": 5.0, "min": 4.0, "max": 6.0}
    assert (found["failedRounds"], found["error"]) == (1, "connection reset")
    assert summary([{"error": "refused"}])["failedRounds"] == 1


def test_a_vector_of_another_picture_is_noticed() -> None:
    found = Likeness()
    found.add({0: np.array([3.0, 0.1]), 1: np.array([3.0, 0.2])}, np.eye(2, dtype=np.float32))
    assert found.figures()["ownFirst"] == 1
    assert found.figures()["minCosine"] == pytest.approx(0.0665, abs=1e-3)


def started(command: Sequence[str], setting: Setting) -> AbstractContextManager[Running]:
    return peer(command)


def test_the_legacy_service_and_one_that_does_not_start_are_measured_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.peers.measure._IDLE", 0.1)
    checkpoint = tiny_clip(tmp_path / "tiny", words=True)
    load = Load("small-2", "two callers", "small", 2)
    script = str(Path(systems.__file__).with_name("legacy_service.py"))
    (legacy,) = (one for one in SYSTEMS if isinstance(one, Server) and one.name == "older")
    asked: list[Server | Bare] = [
        Server(name, name, "", partial(started, command), legacy.ask, legacy.vector, [load])
        for name, command in (
            ("older", [sys.executable, "-P", script, "--checkpoint", str(checkpoint)]),
            ("broken", [sys.executable, "-c", "raise SystemExit('no such model')"]),
        )
    ]
    sent = pictures.photographs(3)
    setting = Setting(tmp_path, checkpoint, Artifact.read(ROOT / "models" / "starter"))
    small: Size = "small"
    references = {small: reference.vectors(checkpoint, sent)}
    one, broken = measure(asked, setting, {small: sent}, references, rounds=1, seconds=0.5)
    assert one["why"] is None
    assert one["figures"]["small-2"]["failedRounds"] == 0
    assert one["figures"]["small-2"]["picturesPerSecond"]["median"] > 0
    assert one["likeness"]["small"]["minCosine"] > 0.99999
    assert one["likeness"]["small"]["ownFirst"] == one["likeness"]["small"]["pictures"]
    assert loads.describe({"small": sent, "large": []})["small"]["count"] == 3
    assert broken["why"] == "it does not start: no such model"
    assert broken["figures"] == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--read", "nowhere.json"], "No such file"),
        (["--small", "8"], "--small is 32 or more"),
        (["--checkpoint", "models/starter", "--artifact", "nowhere"], "There is no model artifact in nowhere"),
        (["--checkpoint", "models/starter", "--artifact", "models/starter"], "int8"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert words in error


def test_names_choose_who_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one.name for one in command._names("twinlens-int8,litserve")] == ["litserve", "twinlens-int8"]
    assert [one.name for one in command._names("bare")] == ["bare-fp32", "bare-int8"]
    with pytest.raises(SystemExit):
        command.main(["--only", "nobody"])
    assert "there is no nobody; there are older, infinity" in capsys.readouterr().err
