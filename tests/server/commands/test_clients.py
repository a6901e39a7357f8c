"""python -m server clients: two clients on a real server, of which one is removed and the other is not touched."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.catalogue.indexes import index_name
from server.commands import clients as command_line
from server.database.locks import LOCK_BACKUP, LOCKS
from server.errors import BadParameter, NotFound
from server.ingest import client_removal
from server.settings import Settings
from tests.support.databases import run_sql
from tests.support.keys import new_key
from tests.support.pictures import unseen
from tests.support.process import KEYBOARD
from tests.support.serving import serving

PICTURES = 3
KEPT = ("products", "media", "twinlens_space_1", "twinlens_keys", "twinlens_limits", "twinlens_recall")
KEPT_TOO = (
    *("twinlens_idempotency", "twinlens_indexes", "twinlens_attributes"),
    *("twinlens_searchable", "twinlens_named", "twinlens_words", "twinlens_words_due"),
)


@dataclass
class Place:
    """A database and a store that servers have filled for `acme` and `other`, each with the same ids."""

    url: str
    data: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str, code: int = 0) -> str:
        parser = argparse.ArgumentParser()
        command_line.add_arguments(parser)
        assert command_line.run(Settings(data=self.data), parser.parse_args(words), self.url) == code
        return self.capsys.readouterr().out

    def rows(self, client_id: str) -> dict[str, list[Any]]:
        """All that the database has of a client."""
        tables = (*KEPT, *KEPT_TOO)
        return {one: run_sql(self.url, f'SELECT * FROM {one} WHERE "clientId" = %s', [client_id]) for one in tables}

    def objects(self, client_id: str) -> set[str]:
        folder = self.data / "media"
        found = (path for kind in ("media", "thumbnails") for path in (folder / kind / client_id).rglob("*"))
        return {str(path.relative_to(folder)) for path in found if path.is_file()}

    def indexes(self) -> set[str]:
        asked = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%'"
        return {name for (name,) in run_sql(self.url, asked)}


@pytest.fixture
def place(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    with serving(database_url, tmp_path) as api:
        for client_id in ("acme", "other"):
            query = {"clientId": client_id}
            once = {"Idempotency-Key": "first"}
            assert api.put("/v1/products/p", params=query, json={"name": client_id}, headers=once).status_code == 201
            api.put("/v1/products/empty", params=query, json={"name": "Nothing"})
            declared = {"attributes": {"price": "number"}, "searchable": ["brand"]}
            assert api.put("/v1/attributes", params=query, json=declared).status_code == 200
            for _ in range(PICTURES):
                answer = api.post("/v1/products/p/media", params=query, files={"file": unseen(KEYBOARD)})
                assert answer.status_code == 201
    for client_id in ("acme", "other"):
        new_key(database_url, "search,write", client_id)
        run_sql(database_url, "INSERT INTO twinlens_limits VALUES (%s, '{}')", [client_id])
        run_sql(database_url, "INSERT INTO twinlens_rates VALUES ('client ' || %s, 'requests', 1e11)", [client_id])
        run_sql(
            database_url,
            """INSERT INTO twinlens_recall (space, "clientId", embedding, "limit", expected, found)
            SELECT space, "clientId", embedding, 5, 5, 5 FROM twinlens_space_1 WHERE "clientId" = %s LIMIT 1""",
            [client_id],
        )
        run_sql(database_url, "INSERT INTO twinlens_words_due VALUES (%s)", [client_id])
        name = index_name(1, client_id)
        run_sql(
            database_url,
            f"""CREATE INDEX {name} ON twinlens_space_1 USING hnsw (embedding halfvec_ip_ops)
            WHERE "clientId" = '{client_id}' AND active;
            INSERT INTO twinlens_indexes (name, space, "clientId", vectors, "efSearch", recall)
            VALUES ('{name}', 1, '{client_id}', 3, 80, 1)""",
        )
    return Place(database_url, tmp_path, capsys)


def removed(place: Place) -> None:
    """That nothing of `acme` is there but its audit."""
    assert place.rows("acme") == {one: [] for one in (*KEPT, *KEPT_TOO)}
    assert place.objects("acme") == set()
    assert run_sql(place.url, "SELECT subject FROM twinlens_rates") == [("client other",)]
    assert place.indexes() == {index_name(1, "other")}


def test_clients_are_listed_with_what_they_have(place: Place) -> None:
    lines = place.run().splitlines()
    assert lines[0].split() == ["client", "products", "media", "vectors", "keys", "bytes"]
    assert [line.split()[:5] for line in lines[1:]] == [[one, "2", "3", "3", "1"] for one in ("acme", "other")]
    asked = 'SELECT sum(bytes)::bigint FROM media WHERE "clientId" = %s'
    (of_acme,) = run_sql(place.url, asked, ["acme"])
    listed = json.loads(place.run("list", "--json").splitlines()[-1])
    assert listed["clients"][0] == {
        "id": "acme", "products": 2, "media": 3, "vectors": 3, "keys": 1, "bytes": of_acme[0],
    }  # fmt: skip


def test_a_client_is_removed_with_all_that_it_has_and_the_other_is_untouched(place: Place) -> None:
    before, files = place.rows("other"), place.objects("other")
    assert len(place.objects("acme")) == 2 * PICTURES
    said = place.run("delete", "acme", "--yes")
    assert said == "Removed of acme: 2 products, 3 media, 6 objects of the store, 1 key.\n"
    removed(place)
    assert (place.rows("other"), place.objects("other")) == (before, files)
    audit = run_sql(place.url, "SELECT action, object FROM twinlens_audit WHERE \"clientId\" = 'acme' ORDER BY id")
    assert ("PUT /v1/products/{product_id}", "p") in audit
    assert audit[-1] == ("clients delete", "acme")
    with pytest.raises(NotFound, match="acme"):
        place.run("delete", "acme", "--yes")
    assert [line.split()[0] for line in place.run().splitlines()] == ["client", "other"]


def test_the_result_is_printed_for_programs(place: Place) -> None:
    answer = json.loads(place.run("delete", "acme", "--yes", "--json").splitlines()[-1])
    assert answer == {"client": "acme", "products": 2, "media": 3, "objects": 6, "keys": 1, "complete": True}


def test_killed_half_way_the_same_command_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_removal, "ROWS_AT_ONCE", 1)
    remove = client_removal.ClientRemoval.remove

    async def killed(self: Any, client_id: str, **_: Any) -> Any:
        def stop(_: int) -> None:
            raise KeyboardInterrupt

        return await remove(self, client_id, on_removed=stop)

    with monkeypatch.context() as patched:
        patched.setattr(client_removal.ClientRemoval, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            place.run("delete", "acme", "--yes")
    assert len(place.rows("acme")["media"]) == PICTURES - 1
    assert len(place.objects("acme")) == 2 * PICTURES  # also those of the row that is gone
    assert place.rows("acme")["twinlens_keys"] == []
    place.run("delete", "acme", "--yes")
    removed(place)


def test_bytes_whose_rows_are_gone_already_are_removed_as_well(place: Place) -> None:
    run_sql(place.url, """DELETE FROM media WHERE "clientId" = 'acme'""")
    assert "0 media, 6 objects" in place.run("delete", "acme", "--yes")
    removed(place)


def test_while_a_backup_runs_the_bytes_stay_and_the_command_says_so(place: Place) -> None:
    with psycopg.connect(place.url) as backup:
        backup.execute("SELECT pg_advisory_lock_shared(%s, %s)", (LOCKS, LOCK_BACKUP))
        assert place.run("delete", "acme", "--yes", code=1) == (
            "Removed of acme: 2 products, 3 media, 0 objects of the store, 1 key.\n"
        )
    assert len(place.objects("acme")) == 2 * PICTURES
    assert place.rows("acme")["media"] == []
    assert "6 objects" in place.run("delete", "acme", "--yes")
    removed(place)


def test_an_object_that_a_row_of_another_client_names_stays(place: Place) -> None:
    (key,) = run_sql(place.url, """SELECT "s3Key" FROM media WHERE "clientId" = 'acme' LIMIT 1""")
    run_sql(
        place.url,
        """INSERT INTO media (id, "productId", "clientId", "s3Key")
        SELECT 'adopted', id, "clientId", %s FROM products WHERE "clientId" = 'other' LIMIT 1""",
        [key[0]],
    )
    place.run("delete", "acme", "--yes")
    assert place.objects("acme") == {key[0]}


@pytest.mark.parametrize("answer", ["", "no\n", "other\n"])
def test_without_a_confirmation_nothing_is_removed(place: Place, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place.rows("acme")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdin", Terminal(answer))
        with pytest.raises(BadParameter, match="--yes"):
            place.run("delete", "acme")
    monkeypatch.setattr("sys.stdin", io.StringIO("acme\n"))  # no terminal: nobody was asked
    with pytest.raises(BadParameter, match="--yes"):
        place.run("delete", "acme")
    assert place.rows("acme") == before
    monkeypatch.setattr("sys.stdin", Terminal("acme\n"))
    place.run("delete", "acme")
    removed(place)


class Terminal(io.StringIO):
    """A person who answers."""

    def isatty(self) -> bool:
        return True
