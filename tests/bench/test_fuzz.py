"""The fuzz: the same seed damages the same way, sound software passes, and planted faults are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.decoders.corpus import FORMATS, corpus, jpeg
from bench.decoders.worker import Answer, Worker
from bench.fuzz import command, hostile_pixels, http, target
from bench.fuzz.hostile import hostile
from bench.fuzz.mutate import mended, mutants
from bench.serving import Serving
from server.artifact.artifact import PreprocessingSpec
from server.preprocessing import media


def test_the_same_seed_damages_the_same_way() -> None:
    cases = corpus(["PNG", "GIF"])
    first, second, other = (list(mutants(cases, 60, seed)) for seed in (1, 1, 2))
    assert first == second
    assert [one.data for one in first] != [one.data for one in other]


def test_every_format_takes_its_turn_and_hardly_a_file_stays_as_it_was() -> None:
    cases = corpus()
    some = list(mutants(cases, 180, 5))
    assert {form: sum(one.format == form for one in some) for form in FORMATS} == dict.fromkeys(FORMATS, 20)
    sound = {case.data for case in cases}
    assert sum(one.data in sound for one in some) < 20


def test_checksums_are_mended_so_that_damage_is_seen() -> None:
    (sound,) = (case.data for case in corpus(["PNG"]) if case.title == "PNG depth and colour: RGB, 8 bit")
    damaged = bytearray(sound)
    damaged[20] ^= 1
    mended_again = mended(bytes(damaged))
    assert mended(sound) == sound
    assert mended_again != bytes(damaged)
    assert mended_again[:29] == bytes(damaged[:29])


def test_a_file_is_put_through_what_the_starter_model_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[dict[str, object]] = []
    compared: list[int] = []

    def decode(data: bytes, **options: Any) -> media.Picture:
        decoded.append(options)
        return really(data, **options)

    def read_otherwise(_data: bytes, _pixels: media.Pixels, _spec: PreprocessingSpec, **options: int) -> bool:
        compared.append(options["since"])
        return False

    really = media.decode
    monkeypatch.setattr(media, "decode", decode)
    monkeypatch.setattr(target, "read_otherwise", read_otherwise)
    monkeypatch.setattr(target, "ONE_IN", 1)
    large, small = (jpeg.saved(np.full((side, side, 3), 99, np.uint8)) for side in (900, 90))
    target.look(large)
    asked = {"max_pixels": target.MAX_PIXELS, "alpha": "contrast"}
    # At a scale as the model asks, and in full as one asks that leaves no pixel out.
    assert decoded == [asked | {"jpeg_at_least": 448}, asked]
    target.look(small)
    assert len(decoded) == 3
    target.look(next(case.data for case in corpus(["TIFF"])))
    assert compared == [0, 0]


def test_a_small_run_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    code = command.main(
        ["--count", "180", "--jobs", "1", "--http", "0", "--requests", "0", "--no-hostile", "--json", str(file)]
    )
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "180 files: 0 crashes, 0 hangs over 2 s, 0 other errors, 0 bare lines, 0 over 1000 MB" in printed
    assert json.loads(file.read_text())["faults"] == []


def test_files_that_are_built_to_cost_too_much_are_all_made() -> None:
    names = [one.title for one in hostile()]
    assert len(set(names)) == len(names)
    assert {one.format for one in hostile()} == set(FORMATS)


def test_small_ones_of_them_are_read_or_refused() -> None:
    """Those that are made in a moment: the rest is for `make fuzz`."""
    outcomes = {
        "PNG: 100 damaged XMP that unpack to 1 MB": "read",
        "PNG: 2,147,483,647 a side by its header": "refused",
        "JPEG: 4 megapixels in 90 scans": "read",
        "GIF: 100,000 comments": "refused",
        "BMP: 2,147,483,647 a side by its header": "refused",
        "TIFF: directories that go in a circle": "read",
        "TIFF: 65,535 samples a pixel": "refused",
        "WEBP: canvas of 16,777,216 a side": "refused",
        "AVIF: boxes 10,000 deep": "refused",
        "HEIF: grid of 4 tiles": "read",
        "JXL: 100,000 boxes": "refused",
    }
    made = {one.title: one.make for one in hostile()}
    with Worker(command.TARGET) as worker:
        answers = {title: worker.ask(made[title]()) for title in outcomes}
    assert {title: answer.status for title, answer in answers.items()} == outcomes
    assert {title: answer.wrote for title, answer in answers.items() if answer.wrote} == {}


def test_a_jpeg_of_many_scans_is_sound_and_grey() -> None:
    data = hostile_pixels.scans(2000, 1900, 90)
    with Worker("bench.decoders.readers:libvips") as worker:
        samples = worker.ask(data).samples
    assert (len(data) < 10_000, data.count(b"\xff\xda")) == (True, 90)
    assert samples is not None
    assert samples.shape == (1900, 2000, 3)
    assert (samples == 128).all()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dies", "3 crashes"),
        ("raises", "3 other errors"),
        ("complains", "3 bare lines"),
        ("computes", "3 hangs over 0.3 s"),
        ("holds", "3 over 50 MB"),
    ],
)
def test_a_planted_fault_is_found(
    fault: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "LONGEST", 0.3)  # core-seconds: another process's work does not count
    asked = [
        "--count",
        "3",
        "--http",
        "0",
        "--requests",
        "0",
        "--no-hostile",
        "--formats",
        "BMP",
        "--memory",
        "50",
        "--jobs",
        "1",
    ]
    assert command.main([*asked, "--target", f"tests.bench.planted:{fault}"]) == 1
    assert said in capsys.readouterr().out


def test_a_file_that_hung_counts_as_one_that_hung() -> None:
    assert [kind for kind, _ in command.faults_of(Answer("hung", seconds=30.0), 1000, 2.0)] == ["hangs"]
    assert list(command.faults_of(Answer("refused", "damaged", seconds=1.9), 1000, 2.0)) == []


def test_an_unknown_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--formats", "PCX"]) == 2
    assert "PCX" in capsys.readouterr().err


def test_a_server_answers_damaged_files_without_5xx(capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(["--count", "9", "--http", "45", "--requests", "0", "--no-hostile", "--jobs", "1"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "over HTTP, 45 files" in printed
    assert "0 answers of 5xx" in printed


def test_answers_of_5xx_and_bare_lines_are_faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    statuses = iter([(200, "{}"), (500, "oh"), (400, "{}")])

    def post(_port: int, _data: bytes) -> tuple[int, str]:
        with log.open("a") as file:
            file.write("2026-01-01 10:00:00,000 INFO server: as it should be\nTIFFReadDirectory: bare\n")
        return next(statuses)

    class Running:
        def __enter__(self) -> Serving:
            return Serving(1, 1, tmp_path, log)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(http, "serving", lambda *_args, **_options: Running())
    monkeypatch.setattr(http, "_post", post)
    answers = http.send([("a", b"a"), ("b", b"b"), ("c", b"c")], tmp_path)
    assert (answers.failed, answers.sentence) == (1, "1 x 200, 1 x 400, 1 x 500")
    assert sum("bare line: TIFFReadDirectory: bare" in fault for fault in answers.faults) == 3
    assert any(fault == "b: 500 oh" for fault in answers.faults)
