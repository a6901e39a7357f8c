"""A trace of one search by picture: recorded from a server that runs, and drawn."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.traces import command, cost
from bench.traces.drawing import lines
from server.tracing import span
from tests import ROOT, STARTER
from tests.support.serving import NewShop

KEPT = ROOT / "bench" / "results" / "trace.json"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_in_the_documentation_is_that_of_the_kept_trace(tmp_path: Path) -> None:
    drawn = tmp_path / "trace.svg"
    assert command.main(["--from", str(KEPT), "--svg", str(drawn)]) == 0
    assert drawn.read_text() == (ROOT / "docs" / "trace.svg").read_text()
    assert "](trace.svg)" in (ROOT / "docs" / "observability.md").read_text()


def test_every_span_is_a_line_below_that_of_the_span_around_it() -> None:
    spans = json.loads(KEPT.read_text())["spans"]
    drawn = lines(spans)
    assert [(one.name, one.depth) for one in drawn] == [
        ("POST /v1/search", 0),
        ("read", 1),
        ("embed", 1),
        ("wait", 2),
        ("decode", 2),
        ("resize", 2),
        ("queue", 2),
        ("batch", 2),
        ("encode", 3),
        ("search", 1),
        ("SQL search_exactly", 2),
        ("connection", 3),
    ]
    assert len(drawn) == len(spans)
    bars = list(ET.parse(ROOT / "docs" / "trace.svg").iter(f"{SVG}title"))
    assert [bar.text.partition(":")[0] for bar in bars if bar.text] == [one.name for one in drawn]


def test_the_command_records_a_server_whose_searches_share_a_batch(new_shop: NewShop, tmp_path: Path) -> None:
    json_file, svg = tmp_path / "trace.json", tmp_path / "trace.svg"
    with new_shop() as shop:
        where = ["--database-url", shop.database_url, "--data", str(shop.data), "--threads", "2", "--batch", "8"]
        flags = ["--model", str(STARTER), f"--server={shlex.join(where)}"]
        assert command.main([*flags, "--of", "1", "--json", str(json_file), "--svg", str(svg)]) == 0
    report = json.loads(json_file.read_text())
    (batch,) = [one for one in report["spans"] if one["name"] == "batch"]
    assert len(batch["links"]) == batch["attributes"]["twinlens.batch.size"] > 1
    (request,) = [one for one in report["spans"] if one["kind"] == "server"]
    assert request["attributes"]["http.response.status_code"] == 200
    names = [bar.text.partition(":")[0] for bar in ET.parse(svg).iter(f"{SVG}title") if bar.text]
    assert {"decode", "queue", "batch", "encode", "SQL search_exactly"} <= set(names)


def test_what_a_call_costs_is_above_nothing_and_measured_where_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "_CALLS", 2_000)
    with span("decode") as decoding:
        assert not decoding
    assert cost._nanoseconds(cost._block) > 0
