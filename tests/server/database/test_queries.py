"""Named statements: read by name, composed in one way."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

import pytest
from psycopg import sql

from server.database.queries import SQL, Queries

FILES = sorted(path.name for path in SQL.glob("[a-z]*.sql"))


def written(folder: Path, text: str) -> Queries:
    (folder / "q.sql").write_text(text)
    return Queries.read(folder / "q.sql")


def test_queries_are_read_by_name_with_their_sentence(tmp_path: Path) -> None:
    queries = written(tmp_path, "-- about the file\n\n-- one --\n-- Gives one.\nSELECT 1\n\n-- two_b --\nSELECT 2\n")
    assert {name: queries[name] for name in queries.names} == {"one": b"-- Gives one.\nSELECT 1", "two_b": b"SELECT 2"}


def test_a_file_is_read_once(tmp_path: Path) -> None:
    queries = written(tmp_path, "-- one --\nSELECT 1\n")
    (tmp_path / "q.sql").write_text("-- one --\nSELECT 2\n")
    assert Queries.read(tmp_path / "q.sql") is queries


def test_the_table_of_a_space_is_an_identifier_in_every_statement_that_names_it(tmp_path: Path) -> None:
    queries = written(tmp_path, "-- all --\nSELECT FROM {space} WHERE t ~ '^a{{2}}$' AND u LIKE 'b%%'\n")
    assert queries.of('a"b')["all"] == b"""SELECT FROM "a""b" WHERE t ~ '^a{2}$' AND u LIKE 'b%%'"""
    with pytest.raises(KeyError, match="space"):
        queries["all"]


def test_a_statement_can_be_a_part_of_another(tmp_path: Path) -> None:
    text = "-- near --\nSELECT FROM {space}\n\n-- count --\nSELECT count(*) FROM ({near}) WHERE client = {client}\n"
    queries = written(tmp_path, text).of("space_1")
    found = queries.composed("count", near=queries.composed("near"), client=sql.Literal("it's"))
    assert found.as_bytes(None) == b"""SELECT count(*) FROM (SELECT FROM "space_1") WHERE client = 'it''s'"""


def test_a_statement_that_several_include_stands_once(tmp_path: Path) -> None:
    text = "-- columns --\na, b\n\n-- read --\nSELECT {columns}\n\n-- drop --\nDELETE RETURNING {columns}\n"
    queries = written(tmp_path, text).including("columns")
    assert (queries["read"], queries["drop"]) == (b"SELECT a, b", b"DELETE RETURNING a, b")
    with pytest.raises(KeyError, match="no_such"):
        queries.including("no_such")


def test_a_name_that_is_no_statement_is_refused() -> None:
    with pytest.raises(KeyError, match="no_such"):
        Queries.read("queries.sql")["no_such"]


@pytest.mark.parametrize("file", FILES)
def test_every_statement_has_a_sentence(file: str) -> None:
    queries = Queries.read(file)
    for name in queries.names:
        parts = {part for _, part, _, _ in Formatter().parse(queries._texts[name].as_string(None)) if part}
        text = queries.composed(name, **{part: sql.SQL("x") for part in parts}).as_string(None)
        sentence = " ".join(line[3:] for line in text.splitlines() if line.startswith("-- "))
        assert sentence.endswith("."), name
