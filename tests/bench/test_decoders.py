"""The comparison of readers: the corpus is always the same, the verdicts are right, and faults are found."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from bench.decoders import browser, command, document
from bench.decoders.case import (
    Case,
    Samples,
    Should,
    alpha,
    blocks,
    from_bits,
    on_white,
    soft,
    to_bits,
    turned,
    with_alpha,
)
from bench.decoders.corpus import FORMATS, corpus
from bench.decoders.corpus import jpeg as jpeg_cases
from bench.decoders.corpus import png as png_cases
from bench.decoders.corpus import tiff as tiff_cases
from bench.decoders.readers import OTHERS, OURS, Reader
from bench.decoders.verdict import Verdict, distance, judge
from bench.decoders.worker import Answer, Worker

VIPS = next(reader for reader in OTHERS if reader.name == "libvips")


def read(samples: Samples) -> Answer:
    return Answer("read", samples=samples)


def case_of(expected: Samples | None, *, should: Should = Should.BE_READ, near: int = 1) -> Case:
    return Case("PNG", "group", "name", b"", expected, near, should)


def test_the_corpus_is_the_same_each_time() -> None:
    first, second = corpus(), corpus()
    assert [case.title for case in first] == [case.title for case in second]
    assert [case.title for case, again in zip(first, second, strict=True) if case.data != again.data] == []


def test_every_format_has_cases_and_two_never_share_a_title() -> None:
    cases = corpus()
    assert {case.format for case in cases} == set(FORMATS)
    assert len({case.title for case in cases}) == len(cases)


def test_every_kind_of_png_is_read_as_arithmetic_says_by_a_second_reader() -> None:
    cases = [case for case in png_cases.cases() if case.group in ("depth and colour", "transparent colour")]
    with Worker(VIPS.target) as worker:
        rows = [judge(case, {"libvips": worker.ask(case.data)}) for case in cases]
    assert len(rows) == 31
    assert [row.case.name for row in rows if row.verdicts["libvips"] is not Verdict.RIGHT] == []


def test_rare_kinds_of_jpeg_and_tiff_are_read_as_expected_by_another_reader() -> None:
    cases = {case.name: case for case in [*jpeg_cases.cases(), *tiff_cases.cases()]}
    names = ["YCCK, as Adobe inverts it", "YCbCr, LZW, predicted", "grey with alpha, JPEG", "6 as SSHORT", "3 as SLONG"]
    with Worker("bench.decoders.readers:pillow") as worker:
        rows = [judge(cases[name], {"Pillow": worker.ask(cases[name].data)}) for name in names]
        inks = worker.ask(cases["CMYK"].data)
    assert {row.case.name: row.verdicts["Pillow"] for row in rows} == dict.fromkeys(names, Verdict.RIGHT)
    # Without a word about it, four colours are taken as Adobe has them: inverted.
    assert inks.samples is not None
    assert distance(inks.samples, soft()) <= jpeg_cases.NEAR


@pytest.mark.parametrize("way", range(1, 9))
def test_a_turned_picture_is_turned_as_pillow_turns_it(way: int) -> None:
    from PIL import Image, ImageOps

    image = Image.fromarray(blocks())
    image.getexif()[0x0112] = way
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), turned(blocks(), way))


def test_samples_of_all_bits_come_back_to_eight() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(from_bits(to_bits(levels, 8), 8), levels)
    assert np.abs(from_bits(to_bits(levels, 12), 12).astype(int) - levels).max() <= 1
    assert list(from_bits(np.array([0, 127, 128, 129, 65535], np.uint32), 16)) == [0, 0, 0, 1, 255]
    assert list(from_bits(np.array([0, 1, 2, 3], np.uint32), 2)) == [0, 85, 170, 255]


def test_transparency_is_laid_on_white() -> None:
    picture = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 255, 51]]], np.uint8)
    assert on_white(picture).tolist() == [[[255, 255, 255], [10, 20, 30], [204, 224, 255]]]


def test_a_reader_is_right_where_it_sees_what_is_expected() -> None:
    row = judge(case_of(blocks()), {"Twinlens": read(blocks()), "a": read(255 - blocks()), "b": read(blocks()[:-1])})
    assert list(row.verdicts.values()) == [Verdict.RIGHT, Verdict.DIFFERS, Verdict.DIFFERS]
    assert row.distances["b"] == 256  # another size
    assert row.fault is None


def test_where_nothing_is_expected_two_others_that_agree_decide() -> None:
    answers = {"Twinlens": read(255 - blocks()), "a": read(blocks()), "b": read(blocks())}
    assert judge(case_of(None), answers).fault == "other pixels than expected"
    del answers["b"]
    alone = judge(case_of(None), answers)
    assert (alone.verdicts["a"], alone.fault) == (Verdict.READ, None)


def test_ours_is_laid_on_white_before_it_is_compared() -> None:
    clear = with_alpha(blocks(), alpha())
    assert judge(case_of(clear), {"Twinlens": read(on_white(clear))}).fault is None


@pytest.mark.parametrize(
    ("should", "ours", "fault"),
    [
        (Should.BE_READ, Answer("refused", "damaged"), "refused: damaged"),
        (Should.BE_READ, Answer("refused", "a kind", named=True), "refused by name, but promised: a kind"),
        (Should.BE_NAMED, Answer("refused", "a kind", named=True), None),
        (Should.BE_NAMED, Answer("refused", "damaged"), "refused: damaged"),
        (Should.BE_REFUSED, Answer("refused", "damaged"), None),
        (Should.BE_REFUSED, read(blocks()), "read, though pixels are missing"),
        (Should.BE_REFUSED, Answer("raised", "KeyError: 'MPO'"), "raised: KeyError: 'MPO'"),
        (Should.BE_READ, Answer("died", "by SIGSEGV"), "died: by SIGSEGV"),
        (
            Should.BE_READ,
            Answer("read", samples=blocks(), wrote="libtiff: oh\n"),
            "wrote to standard error: libtiff: oh",
        ),
    ],
)
def test_what_twinlens_promises_is_held_against_it(should: Should, ours: Answer, fault: str | None) -> None:
    others = {"a": read(blocks()), "b": read(blocks())}
    assert judge(case_of(blocks(), should=should), {"Twinlens": ours, **others}).fault == fault


def test_a_process_that_fails_is_reported_and_started_again() -> None:
    answers = {}
    for name in ("raises", "dies", "complains", "prints", "refuses", "black"):
        with Worker(f"tests.bench.planted:{name}") as worker:
            worker.ask(b"first")
            answers[name] = worker.ask(b"second")
    assert (answers["raises"].status, answers["raises"].text) == ("raised", "KeyError: 'MPO'")
    assert (answers["dies"].status, answers["dies"].text) == ("died", "by SIGKILL")
    assert answers["complains"].wrote == "TIFFReadDirectory: a library says so itself\n"
    assert answers["prints"].status == "read"
    assert answers["refuses"].named
    assert answers["black"].samples is not None
    assert answers["black"].samples.shape == (2, 3, 3)
    assert answers["black"].wrote == ""


def test_a_process_that_does_not_answer_is_ended() -> None:
    with Worker("tests.bench.planted:hangs", wall_limit=1.5) as worker:
        assert worker.ask(b"data").status == "hung"


def test_what_a_file_makes_a_process_hold_is_seen() -> None:
    with Worker("tests.bench.planted:holds") as worker:
        worker.ask(b"first")
        assert worker.ask(b"second").growth >= 60 << 20
    with Worker("tests.bench.planted:wants_everything") as worker:
        answer = worker.ask(b"data")
        assert (answer.status, answer.text.partition(":")[0]) == ("raised", "MemoryError")


def test_a_reader_that_crashes_on_a_format_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case for case in corpus(["TIFF", "BMP"]) if case.group in ("palette", "depth and colour")]
    with contextlib.ExitStack() as stack:
        readers = {OURS.name: command.asking(Reader(OURS.name, "tests.bench.planted:on_tiff"), stack)}
        rows = command.compare(cases, readers)
    assert {row.case.format for row in rows if row.fault} == {"TIFF"}
    assert {row.case.format for row in rows if not row.fault} == {"BMP"}
    assert "died: by SIGKILL" in document.text(rows, {})


def test_the_command_compares_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    asked = ["--formats", "GIF", "--chromium", "off", "--without-missing"]
    code = command.main([*asked, "--json", str(file), "--keep", str(tmp_path / "k")])
    printed = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert code == 0
    assert "0 not as promised" in printed
    assert len(report["cases"]) == len(list((tmp_path / "k").iterdir())) == len(corpus(["GIF"]))
    assert all(one["readers"]["libvips"]["verdict"] != "failed" for one in report["cases"])


def test_an_unknown_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--formats", "GIF,PCX", "--without-missing"]) == 2
    assert "PCX" in capsys.readouterr().err


def test_a_missing_reader_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "OTHERS", (Reader("Nobody", "nowhere:read", "no_such_module"),))
    assert command.main(["--formats", "GIF"]) == 2
    told = capsys.readouterr().err
    assert "Nobody (no_such_module)" in told
    assert "[decoders]" in told


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nbehind\n")
    rows = [judge(case_of(blocks()), {"Twinlens": read(blocks()), "a": read(255 - blocks())})]
    document.write(page, rows, {"a": "1.0"})
    text = page.read_text()
    assert text.startswith(f"before\n{document.BEGIN}\n")
    assert text.endswith(f"{document.END}\nbehind\n")
    assert "| PNG group | 1 | 1 | 1 other |" in text
    assert "old" not in text


@pytest.mark.skipif(
    not browser.CHROMIUM.exists() and not os.environ.get("CI"),
    reason="needs Debian's chromium: apt-get install chromium",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_chromium_sees_pixels_turns_and_transparency() -> None:
    names = ("RGB, 8 bit", "RGB with alpha, 8 bit", "6 by eXIf")
    cases = [case for case in png_cases.cases() if case.name in names and case.group != "interlaced"]
    with browser.chromium() as (show, version):
        rows = [judge(case, {browser.NAME: show(case)}) for case in cases]
        refused = show(Case("PNG", "", "", b"no picture"))
    assert version
    assert [row.verdicts[browser.NAME] for row in rows] == [Verdict.RIGHT] * 4
    assert refused.status == "refused"
