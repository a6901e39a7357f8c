"""Pins that are looked at in the package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import dependencies


def test_every_line_of_the_constraints_is_a_pin_once() -> None:
    found = dependencies.pins(dependencies.PINS.read_text())
    names = [name.lower().replace("_", "-") for name, _ in found]
    assert len(names) == len(set(names)) > 100


def test_a_line_that_pins_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pins.txt"
    file.write_text("six>=1\n")
    assert dependencies.main(["--pins", str(file)]) == 2
    assert "six>=1" in capsys.readouterr().err


def test_a_withdrawn_version_is_named_with_its_reason() -> None:
    package = {"is_yanked": True, "metadata": {"name": "six"}}
    assert dependencies.judge({"install": [package]}) == "was withdrawn: no reason is given"
    assert dependencies.judge({"install": [{"is_yanked": False, "metadata": {}}]}) is None


def test_a_version_that_nobody_offers_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pins.txt"
    file.write_text("six==0.0.0.0.1\n")
    assert dependencies.main(["--pins", str(file)]) == 1
    assert "six==0.0.0.0.1 is not offered" in capsys.readouterr().out
