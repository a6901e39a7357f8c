"""Two load tests side by side: what differs, what cannot be compared, and when the second is worse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench.load import compare, figures
from bench.load.figures import Answer, Window


def run(milliseconds: float = 100.0) -> dict[str, Any]:
    """A result as `python -m bench load` writes it: 20/s for ten seconds, each answered in that time."""
    answers = [
        Answer("embed", due, due, due + milliseconds / 1000, "answered") for due in (100 + at / 20 for at in range(200))
    ]
    step = figures.figures(answers, Window(100.0, 110.0, generator=0.1, server=4.0), shared=True)
    return {
        "machine": {"processor": "one", "cores": 2, "onnxruntime": "1.32.0"},
        "command": "python -m bench load",
        "artifact": {"name": "starter", "model": "m", "precision": "fp32", "device": "cpu", "space": "0" * 64},
        "started": "2026-01-01T00:00:00+00:00",
        "server": {"own": True, "host": None, "flags": [], "loopback": True, "twinlens": "0.1.0 (abc)"},
        "load": {"mode": "open", "loads": [20.0], "seconds": 10.0, "warmUp": 3.0, "mix": {"embed": 1}, "zipf": 0.0},
        "steps": [{"load": 20.0, "label": "20/s", **step}],
    }


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function of two results and more arguments: the exit code, what was printed, and what was complained of."""

    def compare_them(a: object, b: object, *arguments: str) -> tuple[int, str, str]:
        for name, result in (("a.json", a), ("b.json", b)):
            (tmp_path / name).write_text(json.dumps(result))
        code = compare.main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return compare_them


def test_ratios_are_of_b_to_a_and_what_differs_comes_first(compared: Any) -> None:
    other = run(150)
    other["machine"] |= {"processor": "another"}
    other["artifact"] |= {"precision": "int8"}
    code, out, _ = compared(run(100), other)
    assert code == 0
    lines = out.splitlines()
    assert "  machine, processor: one | another" in lines
    assert "  artifact, precision: fp32 | int8" in lines
    (p95,) = [line.split() for line in lines if line.startswith("  p95")]
    assert p95 == ["p95,", "ms", "100", "150", "1.50"]
    assert lines.index("  machine, processor: one | another") < lines.index("20/s")


@pytest.mark.parametrize(("slower", "code"), [(105, 0), (120, 1)])
def test_b_may_be_worse_by_so_much_and_no_more(slower: float, code: int, compared: Any) -> None:
    found, out, _ = compared(run(100), run(slower), "--worse", "10%")
    assert found == code
    assert ("at 20/s B's p95 is 120 ms, 20% more, where A's is 100 ms" in out) == bool(code)


def test_an_answer_less_is_worse_as_well(compared: Any) -> None:
    fewer = run()
    fewer["steps"][0]["throughput"] *= 0.8
    code, out, _ = compared(run(), fewer, "--worse", "10%")
    assert code == 1
    assert "20% less than A's" in out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loads", [20.0, 40.0], "the loads are not the same (A: 20; B: 20, 40)"),
        ("mode", "closed", "one is a steady pace, the other a fixed crowd"),
        ("mix", {"embed": 1, "search": 2}, "the requests are mixed differently (A: embed 1; B: embed 1, search 2)"),
        ("zipf", 1.1, "pictures are repeated differently (A: 0; B: 1.1)"),
    ],
)
def test_what_answers_another_question_is_not_compared(name: str, value: Any, words: str, compared: Any) -> None:
    other = copy.deepcopy(run())
    other["load"][name] = value
    code, out, err = compared(run(), other)
    assert (code, out) == (2, "")
    assert err.startswith("bench: the two cannot be compared: ")
    assert words in err


def test_another_file_and_another_bound_are_refused_in_a_sentence(compared: Any) -> None:
    code, _, err = compared(run(), {"steps": []})
    assert code == 2
    assert "b.json is not what `python -m bench load --json` writes" in err
    code, _, err = compared(run(), run(), "--worse", "much")
    assert code == 2
    assert "--worse takes a share such as 10%" in err
