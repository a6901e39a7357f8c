"""The load test's parts on plain values, and the command against a server: what it sends, counts, judges and writes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import pictures
from bench.load import command as load
from bench.load import figures, objectives, report, traffic
from bench.load.figures import Answer, Window
from bench.load.traffic import Traffic
from tests import ROOT
from tests.bench.listening import listening
from tests.support.pictures import in_format
from tests.support.process import Process

KEY = "a-key-that-nobody-may-read"


def bench(*arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m bench` in a process of its own, as a person starts it."""
    environment = {"PATH": "/usr/bin:/bin", "BENCH_KEY": key}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_every_stretch_of_the_mix_holds_its_shares() -> None:
    dealt = list(islice(traffic.deal({"search": 6, "words": 2, "embed": 1}), 90))
    for start in range(0, 90, 9):
        assert Counter(dealt[start : start + 9]) == {"search": 6, "words": 2, "embed": 1}
    assert all(dealt[place : place + 4] != ["search"] * 4 for place in range(87))


def test_without_zipf_each_picture_has_its_turn_and_with_it_the_first_come_often() -> None:
    assert Counter(islice(traffic.ranks(50, 0, 0), 100)) == dict.fromkeys(range(50), 2)
    drawn = Counter(islice(traffic.ranks(1000, 1.1, 0), 20_000))
    weights = np.arange(1, 1001) ** -1.1
    expected = 20_000 * weights / weights.sum()
    assert drawn[0] == pytest.approx(expected[0], rel=0.05)
    assert drawn[9] == pytest.approx(expected[9], rel=0.2)


@pytest.fixture
def made() -> Traffic:
    (demo, *_), (other, *_) = pictures.demo(), pictures.photographs(1)
    return Traffic(
        demo=[demo],
        other=[other],
        texts=lambda rank, salt: f"{salt} {rank}",
        distinct=100,
        zipf=0,
        demo_share=0.5,
        client="demo",
        limit=24,
        salt="00c0ffee",
    )


def test_no_two_pictures_have_the_same_bytes_while_all_look_the_same(made: Traffic) -> None:
    bodies = [request.body for request in (made.next("search") for _ in range(40))]
    assert len(set(bodies)) == 40
    asked = {made.next("embed").body.rpartition(b"free")[2] for _ in range(40)}
    assert not asked & {body.rpartition(b"free")[2] for body in bodies}  # nor is one kind's picture another's repeat
    (photograph,) = pictures.photographs(1)
    _, _, data = made.next("embed").body.partition(b"octet-stream\r\n\r\n")
    assert data != photograph.data
    with Image.open(io.BytesIO(data)) as sent, Image.open(io.BytesIO(photograph.data)) as original:
        assert sent.tobytes() == original.tobytes()


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_what_sets_pictures_apart_disturbs_no_format(form: str, made: Traffic) -> None:
    picture = pictures.Picture("one", in_format(Image.effect_noise((64, 48), 50).convert("RGB"), form))
    _, data = made._variant("embed", [picture], 7)
    with Image.open(io.BytesIO(data)) as sent, Image.open(io.BytesIO(picture.data)) as original:
        assert sent.convert("RGB").tobytes() == original.convert("RGB").tobytes()


def test_a_picture_is_put_in_only_once_its_product_is_there(made: Traffic) -> None:
    assert [made.next("ingest").name for _ in range(2)] == [traffic.INGEST_PRODUCT] * 2
    there = made.products[0]
    made.is_there(there)
    uploads = [made.next("ingest") for _ in range(4)]
    assert {(one.name, one.path) for one in uploads} == {(traffic.INGEST_PICTURE, f"/v1/products/{there}/media")}
    assert made.next("ingest").name == traffic.INGEST_PRODUCT
    assert len(set(made.products)) == 3


# --- what is counted -------------------------------------------------------------------------------------------------


def answer(due: float, took: float, **other: Any) -> Answer:
    return Answer(**{"name": "embed", "due": due, "sent": due, "came": due + took, "outcome": "answered", **other})


def measured(answers: list[Answer], seconds: float = 10.0) -> dict[str, Any]:
    return figures.figures(answers, Window(100.0, 100.0 + seconds, generator=0.5), shared=True)


def test_a_request_that_waited_to_be_sent_is_timed_from_when_it_was_due() -> None:
    found = measured([Answer("embed", due=101.0, sent=103.0, came=103.1, outcome="answered")])
    assert found["latency"]["p50"] == pytest.approx(2100)
    assert "Requests left 2000 ms late" in found["generator"]["warnings"][0]


def test_the_warm_up_is_cut_off_and_refusals_are_apart_from_failures_and_from_times() -> None:
    refused = [answer(102, 0.001, outcome="refused", reason="503 overloaded") for _ in range(3)]
    failed = [answer(103, 0.001, outcome="failed", reason="no answer")]
    found = measured([answer(99, 5.0), answer(104, 0.2), *refused, *failed])
    assert {name: found[name] for name in ("due", "answered", "refused", "failed")} == {
        "due": 5,
        "answered": 1,
        "refused": 3,
        "failed": 1,
    }
    assert found["latency"]["p50"] == pytest.approx(200)
    # The answer to a request of the warm-up is work that was done inside.
    assert found["throughput"] == pytest.approx(0.2)
    assert found["reasons"] == {"503 overloaded": 3, "no answer": 1}


def test_a_percentile_of_too_few_answers_is_left_out() -> None:
    few, many = measured([answer(101, 0.1)] * 19), measured([answer(101, 0.1)] * 100)
    assert few["latency"]["p50"] == pytest.approx(100)
    assert few["latency"]["p95"] is None
    assert many["latency"]["p99"] == pytest.approx(100)


def test_stages_and_repeats_are_read_from_server_timing() -> None:
    stages, cached = figures.read_stages("read;dur=1.5, decode;dur=4.1, nonsense, search;dur=x, total;dur=9")
    assert (stages, cached) == ({"read": 1.5, "decode": 4.1, "total": 9.0}, False)
    assert figures.read_stages("cache;desc=hit, search;dur=2") == ({"search": 2.0}, True)
    parts = measured([answer(101, 0.012, stages=stages)])["parts"]
    assert parts == {"read": 1.5, "decode": 4.1, "server": pytest.approx(3.4), "outside": pytest.approx(3.0)}


def step(number: float, throughput: float, p95: float | None, due: int = 0) -> dict[str, Any]:
    return {
        "load": number,
        "seconds": 10.0,
        "due": due or number * 10,
        "throughput": throughput,
        "latency": {"p95": p95},
    }


@pytest.mark.parametrize(
    ("mode", "steps", "between"),
    [
        ("open", [step(10, 10, 20), step(20, 19.9, 30), step(40, 25, 900)], (20, 40)),
        ("open", [step(10, 10, 20), step(20, 20, 90)], (10, 20)),
        ("open", [step(10, 4, 900), step(20, 4, 900)], (None, 10)),
        ("open", [step(10, 9, 400), step(20, 20, 25), step(40, 25, 900)], (20, 40)),
        ("open", [step(10, 10, 20), step(20, 20, 25)], (20, None)),
        ("closed", [step(1, 30, 20), step(8, 57, 90), step(32, 60, 400)], (8, 32)),
        ("closed", [step(1, 30, 20), step(8, 57, 90)], (8, None)),
    ],
)
def test_it_bends_where_more_load_brings_no_more(mode: str, steps: list[dict[str, Any]], between: object) -> None:
    found = figures.bend(steps, mode)
    assert found is not None
    assert (found.below, found.above) == between


# --- objectives ------------------------------------------------------------------------------------------------------


def test_an_objective_says_by_how_much_it_was_met_or_missed() -> None:
    answers = [answer(101, 0.15) for _ in range(95)]
    answers += [answer(101, 0.1, outcome="refused", name="search, other picture") for _ in range(5)]
    found = measured(answers)
    sentences = {
        text: objectives.judge(objectives.read(text), found).sentence
        for text in ("p95=200ms", "p95=0.1s", "errors=1%", "failed=1%", "throughput=10", "embed:refused=0%")
    }
    assert sentences == {
        "p95=200ms": "p95=200ms: met, 150 ms, 50 ms to spare",
        "p95=0.1s": "p95=0.1s: missed, 150 ms, 50 ms off",
        "errors=1%": "errors=1%: missed, 5.00%, 4.00 points off",
        "failed=1%": "failed=1%: met, 0.00%, 1.00 points to spare",
        "throughput=10": "throughput=10: missed, 9.5/s, 0.5/s off",
        "embed:refused=0%": "embed:refused=0%: met, 0.00%, 0.00 points to spare",
    }
    with pytest.raises(objectives.CannotJudge, match="0 right answers are too few"):
        objectives.judge(objectives.read("search:p95=1s"), found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slo", "p95=fast"], "--slo takes an objective such as p95=200ms"),
        (["--slo", "p95=200"], "a time has a unit"),
        (["--slo", "p90=200ms"], "--slo knows p50, p95, p99"),
        (["--slo", "errors=1"], "a share is in per cent"),
        (["--slo", "picture:p95=1s"], "--slo knows the kinds search, words"),
        (["--rps", "fast"], "--rps takes numbers above 0"),
        (["--rps", "0"], "--rps takes numbers above 0"),
        (["--callers", "1.5"], "--callers takes numbers above 0"),
        (["--rps", "5", "--callers", "5"], "take one of them"),
        (["--mix", "search=1,paint=2"], "--mix knows search, words, embed, ingest, not 'paint'"),
        (["--mix", "search"], "--mix takes shares in whole numbers"),
        (["--mix", "search=0"], "--mix leaves nothing to send"),
        (["--zipf", "-1"], "--zipf takes 0 (all alike) to 5"),
        (["--demo-share", "2"], "--demo-share takes 0 to 1"),
        (["--host", "http://twinlens.example"], "twinlens.example is not this machine; --allow-remote"),
        (["--host", "http://u:p@127.0.0.1"], "--host takes no password; a key goes into BENCH_KEY"),
        (["--host", "http://[::1"], "--host takes an address such as"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert words in error
    assert "u:p" not in error


def test_a_key_is_not_written_down_with_the_command() -> None:
    assert KEY not in load._command(["--key", KEY, "--rps", "5", f"--ke={KEY}"])


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_load_test_measures_judges_writes_and_leaves_nothing_behind(server: Process, tmp_path: Path) -> None:
    written, page = tmp_path / "load.json", tmp_path / "load.html"
    # Half of it is put in: the first product and its pictures, and the next one, come within each load.
    mix = "search=2,words=1,embed=1,ingest=4"
    options = ["--mix", mix, "--zipf", "1.1", "--rps", "14,18", "--seconds", "1.75s", "--warm-up", "0.25s"]
    options += ["--slo", "p95=30s", "--slo", "errors=0%", "--json", str(written), "--html", str(page)]
    done = bench("load", "--host", server.url, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^at 18/s: p95=30s: met, \d+ ms, \d+ ms to spare$", done.stdout, re.M)
    result = json.loads(written.read_text())
    assert [(one["load"], one["refused"], one["failed"]) for one in result["steps"]] == [(14, 0, 0), (18, 0, 0)]
    assert {"machine", "command", "artifact", "started"} <= set(result)
    for one in result["steps"]:
        assert set(one["rows"]) == {
            "search, demo picture",
            "search, other picture",
            "words",
            "embed",
            "ingest, product",
            "ingest, picture",
        }
        assert {"decode", "encode", "search"} <= set(one["rows"]["search, demo picture"]["stages"])
        # A steady pace: what was due is what was asked for, whatever the machine was doing.
        assert one["due"] == pytest.approx(one["load"] * one["seconds"], abs=1.5)
    with server.client() as client:
        found = client.post("/v1/search", json={"text": "anything", "clientId": traffic.INGEST_CLIENT}).json()
    assert found["results"] == []
    html = page.read_text()
    assert not re.search(r"""(src|href)=|url\(|@import|<script""", html)
    assert html.count("<svg") > 4


@contextmanager
def overloaded(seen: list[str]) -> Iterator[str]:
    """A server that is ready, reads no words, and has no time for anybody; notes who asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = {"model": "m", "precision": "fp32", "device": "cpu", "space": "0" * 64, "text": False}
            self._answer(200, status)

        def do_POST(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(503, {"error": "Later.", "code": "overloaded", "requestId": "1"})

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_refusals_miss_an_objective_and_a_key_is_sent_but_never_written(tmp_path: Path) -> None:
    seen: list[str] = []
    written, page = tmp_path / "load.json", tmp_path / "load.html"
    options = ["--rps", "10", "--seconds", "1", "--warm-up", "0s", "--slo", "refused=5%"]
    with overloaded(seen) as host:
        done = bench("load", "--host", host, *options, "--json", str(written), "--html", str(page), key=KEY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "at 10/s: refused=5%: missed, 100.00%, 95.00 points off" in done.stdout
    assert set(seen) == {f"Bearer {KEY}"}
    result = json.loads(written.read_text())
    assert result["load"]["withoutWords"]
    assert result["steps"][0]["reasons"] == {"503 overloaded": result["steps"][0]["due"]}
    assert KEY not in done.stdout + done.stderr + written.read_text() + page.read_text()


def test_a_server_that_is_not_there_cannot_be_measured() -> None:
    done = bench("load", "--host", "http://127.0.0.1:9", "--rps", "5")
    assert done.returncode == 2
    assert "bench: no server is ready at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_escapes_whatever_it_shows() -> None:
    result: dict[str, Any] = {
        "machine": {"processor": "<b>p", "cores": 2, "memory_gib": 1, "system": "s"},
        "command": "c",
        "artifact": {"name": None, "model": "<script>", "precision": "fp32", "device": "cpu", "space": "0" * 64},
        "started": "2026-01-01T00:00:00+00:00",
        "server": {"own": False, "host": "http://h", "flags": [], "loopback": True, "twinlens": None},
        "load": {"mode": "open", "loads": [5.0], "seconds": 10.0, "warmUp": 0.0, "mix": {"embed": 1}}
        | {"withoutWords": False, "zipf": 0.0, "distinct": 10, "demoShare": 0.5, "limit": 24}
        | {"pictures": {"count": 1, "meanBytes": 10, "digest": "0"}},
        "steps": [
            {
                "load": 5.0,
                "label": "5/s",
                "leftBehind": [],
                **measured([answer(101, 0.1, name="<i>", stages={"read": 1})]),
            }
        ],
        "bend": None,
        "objectives": [],
    }
    page = report.render(result)
    assert not re.search("<script|<i>|<b>", page)
    assert "&lt;script&gt;" in page


def test_the_commands_are_listed_and_an_unknown_one_is_refused() -> None:
    listed = bench()
    assert listed.returncode == 0
    assert {"load", "compare", "near-duplicates"} <= set(re.findall(r"^  (\S+)", listed.stdout, re.M))
    unknown = bench("lode")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("bench: there is no command 'lode'; there are load, compare")
