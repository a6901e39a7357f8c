"""The bench of searching: what it generates, how it judges, and a small run of it from end to end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psycopg
import pytest

from bench.search import document, fill
from bench.search.command import main
from bench.search.features import FEATURES
from bench.search.measure import Record, measure
from bench.search.systems import System, Turn, Twinlens, closed_loop
from bench.search.workload import CLASSES, Query, Workload, client_sizes, unit
from tests.support.databases import in_database
from tests.support.legacy import LEGACY_SQL

ROWS, DIMENSIONS = 400, 16


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    made = Workload(ROWS, DIMENSIONS, 5, tmp_path_factory.mktemp("workload"))
    made.make()
    return made


class Library:
    """A system in the process, which answers what `answer` says of a client's rows, the nearest first."""

    name = "library"
    title = about = ""

    def __init__(self, workload: Workload, answer: Callable[[list[int]], list[int]] = lambda rows: rows[:24]) -> None:
        self.workload, self.answer = workload, answer

    def measure(self, queries: Sequence[Query], connections: int, seconds: float, least: int) -> Turn:
        async def ask(query: Query) -> list[int]:
            rows = self.workload.rows_of(query.client)
            cosines = unit(self.workload.vectors[rows].astype(np.float32)) @ query.vector
            return self.answer(rows[np.argsort(-cosines)].tolist())

        return asyncio.run(closed_loop([ask] * connections, queries, seconds, least))


def run(workload: Workload, *systems: System) -> list[Record]:
    queries = {size: workload.queries(size, 6) for size in workload.classes}
    return measure(systems, workload, queries, [1, 2], seconds=0.01, rounds=2)


@pytest.mark.parametrize("rows", [10, 400, 100_000, 1_000_000])
def test_clients_are_few_and_large_or_many_and_small_and_hold_all_rows(rows: int) -> None:
    sizes = client_sizes(rows)
    assert sum(sizes) == rows
    assert sizes == sorted(sizes, reverse=True)
    if rows == 1_000_000:
        assert set(CLASSES) <= set(sizes)
        counts = [sizes.count(size) for size in CLASSES]
        assert counts == sorted(counts, reverse=True)


def test_vectors_are_clustered_of_unit_length_and_the_same_each_time(workload: Workload, tmp_path: Path) -> None:
    again = Workload(ROWS, DIMENSIONS, 5, tmp_path)
    again.make()
    np.testing.assert_array_equal(workload.vectors, again.vectors)
    vectors = workload.vectors.astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    cosines = vectors @ vectors.T - 2 * np.eye(ROWS)
    assert np.median(cosines.max(axis=1)) > np.median(cosines) + 0.3


def test_an_exact_answer_is_complete_and_a_broken_one_is_noticed(workload: Workload) -> None:
    assert all((record["recall"], record["short"]) == (1, 0) for record in run(workload, Library(workload)))
    for record in run(workload, Library(workload, lambda rows: rows[:5])):
        assert record["recall"] < 1
        assert record["short"] == record["judged"] > 0
    for record in run(workload, Library(workload, lambda rows: rows[-24:])):
        assert record["short"] == 0
        assert (record["recall"] < 0.9) == (record["clientSize"] > 24)
    others = run(workload, Library(workload, lambda rows: [row for row in range(ROWS) if row not in rows][:24]))
    assert all((record["recall"], record["short"]) == (0, record["judged"]) for record in others)


def test_a_row_that_is_as_near_as_the_last_one_counts(workload: Workload) -> None:
    size = max(workload.classes)
    query = workload.queries(size, 1)[0]
    rows = workload.rows_of(query.client)
    cosines = unit(workload.vectors[rows].astype(np.float32)) @ unit(query.vector[None])[0]
    nearest = rows[np.argsort(-cosines)][:24].tolist()
    assert query.least == pytest.approx(np.sort(cosines)[-24], abs=1e-6)
    assert workload.judge(query, nearest) == (1, False)
    assert workload.judge(query, nearest[:12] * 2) == (0.5, True)


def test_the_aims_can_be_missed() -> None:
    def record(system: str, size: int, **changes: float) -> Record:
        figures = {"recall": 1.0, "short": 0, "p50Ms": 1.0, "p95Ms": 2.0} | changes
        return {"system": system, "clientSize": size, "connections": 8, **figures}

    good = [record("older", 25_000, p50Ms=100.0), record("twinlens", 25_000)]
    assert [reached for *_, reached in document.aims(good)] == [True] * 5
    bad = [
        record("older", 25_000, p50Ms=10.0),
        record("twinlens", 25_000, p50Ms=11.0, p95Ms=25.0, recall=0.98, short=1),
    ]
    assert [reached for *_, reached in document.aims(bad)] == [False] * 5


def test_the_legacy_statement_is_what_the_legacy_application_asks() -> None:
    asked = [line for line in fill.QUERIES["legacy_search"].decode().splitlines() if not line.startswith("--")]
    assert " ".join(asked).split() == LEGACY_SQL.split()


def test_a_small_run_from_end_to_end(postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rows", str(ROWS), "--dimensions", str(DIMENSIONS), "--seconds", "0.1", "--rounds", "1"]
    arguments += ["--queries", "8", "--connections", "1,2", "--database-url", postgres_url, "--data", str(tmp_path)]
    only = ["--only", "older,older-hnsw,hnsw-filtered,twinlens"]
    try:
        assert main([*arguments, *only, "--json", str(tmp_path / "search.json")]) == 0
        records = json.loads((tmp_path / "search.json").read_text())
        keys = {"system", "clientSize", "connections", "recall", "short", "p50Ms", "p95Ms", "p99Ms", "qps"}
        assert all(keys <= set(record) for record in records)
        assert {record["clientSize"] for record in records} == {10, 100}
        assert len(records) == 2 * 2 * 4
        exact = [record for record in records if record["system"] in ("older", "twinlens")]
        assert all((record["recall"], record["short"]) == (1, 0) for record in exact)
        assert "| never a short answer | at most 0" in capsys.readouterr().out
        run_beside = json.loads((tmp_path / "search.run.json").read_text())
        page = document.page(records, run_beside, tmp_path / "search.json")
        assert all(f"### {size} media" in page for size in (10, 100))

        # So does what is more than the nearest pictures, each kind beside the plain search.
        assert main([*arguments, "--features", "--classes", "100"]) == 0
        lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 100 ")]
        assert {line[1] for line in lines} == {*FEATURES}
        assert all((line[5], line[6]) == ("1.0000", "0") for line in lines), "a recall of 1, and no short answer"

        # A second run takes the databases as they are; what is missing from ours is seen.
        url = in_database(postgres_url, fill.OURS)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("""UPDATE products SET "isActive" = false WHERE id LIKE '%-p0'""")
        assert main([*arguments, "--only", "twinlens", "--json", str(tmp_path / "search.json")]) == 0
        short = [record["short"] for record in json.loads((tmp_path / "search.json").read_text())]
        assert all(count > 0 for count in short[:2])
        assert "| never a short answer | at most 0" not in capsys.readouterr().out
        assert Twinlens(url, DIMENSIONS).name == "twinlens"
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for name in (fill.OURS, fill.LEGACY, fill.FILTERED):
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.parametrize("given", [["--rows", "0"], ["--only", "nobody"], ["--connections", "0"], ["--seconds", "0"]])
def test_what_makes_no_sense_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert given[0] in capsys.readouterr().err
