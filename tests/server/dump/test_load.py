"""A dump is added to what a database holds: all of it or with a reason, once however often it is loaded."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import SpaceRow
from server.database.locks import LOCKS_OF_MAINTENANCE
from server.dump import load as loading
from server.dump import manifest as manifests
from server.dump.load import Loaded
from server.dump.manifest import MANIFEST, sha256_of
from server.errors import DatabaseUnusable, DumpRefused, StoreRefused
from server.ingest.mark import settle
from server.ingest.storage import MARK
from tests.support.backups import LARGE, PICTURES, VECTORS, Place, digests_hold
from tests.support.catalogue import SPACE, D
from tests.support.databases import cut_connections, run_sql
from tests.support.dumps import catalogue, dump, load_back
from tests.support.full_disk import fill, small_disk
from tests.support.house import open_house, picture
from tests.support.postgres import eventually

MEDIA = PICTURES + VECTORS
PRODUCTS = 3 + VECTORS + 1 + 1
OBJECTS = 2 * PICTURES + VECTORS
ATTRIBUTES = 3
ALL = Loaded(products=PRODUCTS, media=MEDIA, vectors=MEDIA, attributes=ATTRIBUTES, pictures=OBJECTS)

pytestmark = pytest.mark.anyio


def forge(folder: Path, path: str, table: pa.Table) -> None:
    """Put another table in a file's place, and have the manifest say so."""
    pq.write_table(table, folder / path)
    said = json.loads((folder / MANIFEST).read_bytes())
    (file,) = [one for one in said["files"] if one["path"] == path]
    file.update(rows=table.num_rows, bytes=(folder / path).stat().st_size, sha256=sha256_of(folder / path).hex())
    (folder / MANIFEST).write_bytes(json.dumps(said).encode())


def nothing_in(place: Place) -> bool:
    return run_sql(place.url, "SELECT count(*) FROM products") == [(0,)] and not place.objects


def test_the_catalogue_is_the_same_to_the_last_bit_and_each_row_has_its_bytes(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow
) -> None:
    assert load_back(empty, dumped, space) == ALL
    assert catalogue(empty.url) == catalogue(furnished.url)
    assert empty.objects == furnished.objects
    assert digests_hold(empty, PICTURES)
    assert (empty.folder / MARK).exists()


def test_the_same_load_twice_changes_nothing(dumped: Path, empty: Place, space: SpaceRow) -> None:
    load_back(empty, dumped, space)
    before = versions(empty, space)
    assert load_back(empty, dumped, space) == Loaded()
    assert versions(empty, space) == before
    assert len(before) == ATTRIBUTES + PRODUCTS + MEDIA + MEDIA


def versions(place: Place, space: SpaceRow) -> list[tuple[str, str]]:
    """Every row with the transaction that wrote it."""
    tables = ("twinlens_attributes", "products", "media", space.table)
    return [row for one in tables for row in run_sql(place.url, f"SELECT xmin::text, t::text FROM {one} t ORDER BY 2")]


def test_ids_are_those_of_the_api_whatever_other_clients_have(dumped: Path, empty: Place, space: SpaceRow) -> None:
    """A third client has products and media of the same ids already."""
    ((media,),) = run_sql_of_dump(dumped, "media", "acme")
    run_sql(empty.url, """INSERT INTO products (id, "clientId", name) VALUES ('p1', 'third', 'Mine')""")
    run_sql(
        empty.url,
        """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p1', 'third', 'mine')""",
        (media,),
    )
    assert load_back(empty, dumped, space) == ALL
    found = run_sql(
        empty.url, """SELECT id, "apiId" FROM products WHERE "clientId" = 'acme' AND coalesce("apiId", id) = 'p1'"""
    )
    assert found == [(id_elsewhere("acme", "p1"), "p1")]
    assert run_sql(empty.url, 'SELECT "clientId" FROM media WHERE coalesce("apiId", id) = %s ORDER BY 1', (media,)) == [
        ("acme",),
        ("third",),
    ]
    assert load_back(empty, dumped, space) == Loaded()


def run_sql_of_dump(folder: Path, table: str, client: str) -> list[tuple[str]]:
    rows = pq.read_table(folder / table).to_pylist()
    return [(min(row["id"] for row in rows if row["clientId"] == client),)]


# --- what is there already -------------------------------------------------------------------------------------------


def test_a_product_that_is_there_otherwise_refuses_the_load_before_anything_is_written(
    dumped: Path, empty: Place, space: SpaceRow
) -> None:
    run_sql(empty.url, """INSERT INTO products (id, "clientId", name) VALUES ('p1', 'acme', 'Mine')""")
    run_sql(empty.url, """INSERT INTO products (id, "clientId", name, sku) VALUES ('q', 'large', 'Mine', 'S-1')""")
    with pytest.raises(DumpRefused) as refused:
        load_back(empty, dumped, space)
    assert "has 2 rows of the dump, and otherwise" in refused.value.sentence
    assert "product p1 of client acme" in refused.value.sentence
    assert "product p0 of client large (another product has its SKU)" in refused.value.sentence
    assert run_sql(empty.url, "SELECT count(*) FROM products") == [(2,)]
    assert not empty.folder.exists()


def test_an_attribute_that_is_declared_otherwise_refuses_the_load_and_stays_with_keep(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow
) -> None:
    """Also where the database has no product yet."""
    mine = [("acme", "colour", "list"), ("acme", "price", "text"), ("third", "price", "date")]
    for row in mine:
        run_sql(empty.url, "INSERT INTO twinlens_attributes VALUES (%s, %s, %s)", row)
    with pytest.raises(DumpRefused) as refused:
        load_back(empty, dumped, space)
    assert "has 1 row of the dump, and otherwise: declared attribute price of client acme" in refused.value.sentence
    assert nothing_in(empty)
    assert catalogue(empty.url)["attributes"] == mine
    loaded = load_back(empty, dumped, space, keep=True)
    assert loaded == replace(ALL, attributes=ATTRIBUTES - 1, kept=1, examples=loaded.examples)
    there = set(catalogue(furnished.url)["attributes"]) - {("acme", "price", "number")} | set(mine)
    assert set(catalogue(empty.url)["attributes"]) == there


def test_a_dump_of_before_attributes_were_declared_is_loaded(copied: Path, empty: Place, space: SpaceRow) -> None:
    said = json.loads((copied / MANIFEST).read_bytes())
    said["files"] = [file for file in said["files"] if file["table"] != "attributes"]
    (copied / MANIFEST).write_bytes(json.dumps(said).encode())
    assert load_back(empty, copied, space) == replace(ALL, attributes=0)


def test_keep_leaves_what_is_there_and_loads_the_rest(dumped: Path, empty: Place, space: SpaceRow) -> None:
    run_sql(empty.url, """INSERT INTO products (id, "clientId", name) VALUES ('p1', 'acme', 'Mine')""")
    run_sql(empty.url, """INSERT INTO products (id, "clientId", name, sku) VALUES ('q', 'large', 'Mine', 'S-1')""")
    loaded = load_back(empty, dumped, space, keep=True)
    assert loaded == replace(ALL, products=PRODUCTS - 2, kept=2, examples=loaded.examples)
    assert run_sql(empty.url, "SELECT name FROM products WHERE id = 'p1'") == [("Mine",)]


def test_a_media_with_another_picture_is_kept_with_its_own_vector_or_without(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow
) -> None:
    load_back(empty, dumped, space)
    ids = [
        one for (one,) in run_sql(empty.url, """SELECT id FROM media WHERE "clientId" = 'acme' ORDER BY id LIMIT 2""")
    ]
    run_sql(
        empty.url,
        """UPDATE media SET "s3Key" = 'other/' || id, "contentDigest" = sha256(id::bytea) WHERE id = ANY(%s)""",
        (ids,),
    )
    run_sql(empty.url, f'DELETE FROM {space.table} WHERE "mediaId" = %s', (ids[0],))
    with pytest.raises(DumpRefused, match=f"2 rows of the dump.* media {ids[0]} of client acme"):
        load_back(empty, dumped, space)
    loaded = load_back(empty, dumped, space, keep=True)
    assert (loaded.kept, loaded.media, loaded.vectors) == (2, 0, 0)
    assert run_sql(empty.url, f'SELECT count(*) FROM {space.table} WHERE "mediaId" = %s', (ids[0],)) == [(0,)]


async def test_a_picture_that_its_product_has_under_another_id_stays_one_picture(
    dumped: Path, empty: Place, space: SpaceRow
) -> None:
    async with open_house(empty.url, empty.folder) as house:
        await house.catalogue.put_product("acme", "p0", name="Thing 0 – ‘é’ \\ \t")
        media, _ = await house.add(picture(0), "p0")
        await house.catalogue.delete_product("acme", "p")
    loaded = await asyncio.to_thread(load_back, empty, dumped, space)
    assert (loaded.twins, loaded.media, loaded.kept) == (1, MEDIA - 1, 0)
    digest = 'SELECT coalesce("apiId", id) FROM media WHERE "contentDigest" = sha256(%s)'
    assert run_sql(empty.url, digest, (picture(0),)) == [(media.id,)]


def test_what_servers_have_filled_in_since_is_no_conflict(
    writable: Place, empty: Place, space: SpaceRow, tmp_path: Path
) -> None:
    """A media that was dumped before it was embedded, and is loaded again after it was."""
    run_sql(writable.url, """UPDATE media SET "contentDigest" = NULL, width = NULL, status = 'pending'""")
    dump(writable, tmp_path / "dump")
    load_back(empty, tmp_path / "dump", space)
    run_sql(empty.url, """UPDATE media SET "contentDigest" = sha256(id::bytea), width = 3, status = 'ready'""")
    assert load_back(empty, tmp_path / "dump", space) == Loaded()


def test_what_is_changed_while_the_dump_is_loaded_ends_it_with_a_sentence(
    dumped: Path, empty: Place, space: SpaceRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = loading._Loading.begin

    def meddle(self: Any, space: SpaceRow | None) -> None:
        begin(self, space)
        run_sql(empty.url, """INSERT INTO products (id, "clientId", name) VALUES ('p1', 'acme', 'Mine')""")

    monkeypatch.setattr(loading._Loading, "begin", meddle)
    with pytest.raises(DumpRefused, match=r"Somebody has changed these .* product p1 of client acme"):
        load_back(empty, dumped, space)
    monkeypatch.undo()
    loaded = load_back(empty, dumped, space, keep=True)
    assert (loaded.kept, loaded.products, loaded.media) == (1, PRODUCTS - 1, MEDIA)


def test_pictures_whose_product_is_deleted_meanwhile_are_told(
    dumped: Path, empty: Place, space: SpaceRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = loading._Loading._add_media

    def meddle(self: Any, batch: Any) -> None:
        run_sql(empty.url, "DELETE FROM products WHERE id = 'p1'")
        add(self, batch)

    monkeypatch.setattr(loading._Loading, "_add_media", meddle)
    loaded = load_back(empty, dumped, space)
    assert (loaded.gone, loaded.media, loaded.vectors) == (PICTURES // 3, MEDIA - PICTURES // 3, MEDIA - PICTURES // 3)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_other_bytes_under_a_key_are_not_written_over(dumped: Path, empty: Place, space: SpaceRow) -> None:
    (empty.folder / "elsewhere").mkdir(parents=True)
    (empty.folder / "elsewhere" / f"{LARGE}-000007").write_bytes(b"of another application")
    with pytest.raises(DumpRefused, match="has other bytes under the key elsewhere/large-000007"):
        load_back(empty, dumped, space)
    assert (empty.folder / "elsewhere" / f"{LARGE}-000007").read_bytes() == b"of another application"
    assert run_sql(empty.url, "SELECT count(*) FROM products") == [(0,)]
    loaded = load_back(empty, dumped, space, pictures=False)
    assert (loaded.media, loaded.pictures) == (MEDIA, 0)


def test_the_store_of_another_database_is_refused(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow
) -> None:
    with pytest.raises(StoreRefused, match="belongs to another database"):
        load_back(Place(empty.url, furnished.folder), dumped, space)
    assert run_sql(empty.url, "SELECT count(*) FROM products") == [(0,)]


def test_without_pictures_the_store_stays_as_it_is(dumped: Path, empty: Place, space: SpaceRow) -> None:
    loaded = load_back(empty, dumped, space, pictures=False)
    assert loaded == replace(ALL, pictures=0)
    assert not empty.folder.exists()


def test_large_pictures_go_in_pieces(
    writable: Place, empty: Place, space: SpaceRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.backup.pictures.AT_ONCE_BYTES", 50)
    monkeypatch.setattr("server.dump.pictures.AT_ONCE_BYTES", 50)
    dump(writable, tmp_path / "dump", pictures=True)
    assert load_back(empty, tmp_path / "dump", space) == ALL
    assert empty.objects == writable.objects


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_without_vectors_they_are_left_to_servers(dumped: Path, empty: Place, space: SpaceRow) -> None:
    loaded = load_back(empty, dumped, None, vectors=False)
    assert loaded == replace(ALL, vectors=0)
    assert run_sql(empty.url, f"SELECT count(*) FROM {space.table}") == [(0,)]
    assert load_back(empty, dumped, space) == Loaded(vectors=MEDIA)


def test_a_vector_ends_the_note_that_its_media_could_not_be_embedded(
    dumped: Path, empty: Place, space: SpaceRow
) -> None:
    load_back(empty, dumped, None, vectors=False, pictures=False)
    run_sql(
        empty.url,
        "INSERT INTO twinlens_unreadable (space, \"mediaId\", reason) SELECT %s, id, 'no bytes' FROM media",
        (space.number,),
    )
    load_back(empty, dumped, space, pictures=False)
    assert run_sql(empty.url, "SELECT count(*) FROM twinlens_unreadable") == [(0,)]


def test_a_vector_that_is_not_of_unit_length_is_refused_by_the_database(
    copied: Path, empty: Place, space: SpaceRow
) -> None:
    path = f"vectors/{SPACE[:12]}/part-00000.parquet"
    table = pq.read_table(copied / path)
    halves = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False) * np.float16(0.5)
    column = pa.FixedSizeListArray.from_arrays(pa.array(halves), D)
    at = table.schema.get_field_index("embedding")
    forge(copied, path, table.set_column(at, table.schema.field("embedding"), column))
    with pytest.raises(DumpRefused, match=r"refuses rows of .*part-00000.parquet: .*embedding"):
        load_back(empty, copied, space)
    assert run_sql(empty.url, f"SELECT count(*) FROM {space.table}") == [(0,)]


def test_a_vector_that_is_missing_is_refused(copied: Path, empty: Place, space: SpaceRow) -> None:
    path = f"vectors/{SPACE[:12]}/part-00000.parquet"
    table = pq.read_table(copied / path)
    at = table.schema.get_field_index("embedding")
    column = pa.array([None, *table["embedding"].to_pylist()[1:]], table.schema.field("embedding").type)
    forge(copied, path, table.set_column(at, "embedding", column))
    with pytest.raises(DumpRefused, match="without the vector"):
        load_back(empty, copied, space)


def test_servers_embed_nothing_while_vectors_are_on_their_way(
    dumped: Path, empty: Place, space: SpaceRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = loading._Loading._add_media
    seen = []

    def meddle(self: Any, batch: Any) -> None:
        seen.append(free(empty, space))
        add(self, batch)

    monkeypatch.setattr(loading._Loading, "_add_media", meddle)
    load_back(empty, dumped, space)
    assert seen
    assert not any(seen)
    eventually(lambda: free(empty, space))  # PostgreSQL ends the session a moment after it was left


def free(place: Place, space: SpaceRow) -> bool:
    ((free,),) = run_sql(place.url, "SELECT pg_try_advisory_lock(%s, %s)", (LOCKS_OF_MAINTENANCE, space.number))
    return bool(free)


# --- interrupted, damaged, wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_add_products", "_add_media", "vectors", "pictures"])
def test_one_that_was_cut_off_anywhere_goes_on(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are of 100 rows, and the second one of a kind never ends."""
    monkeypatch.setattr("server.dump.parts.BATCH", 100)
    count = 0

    def cut(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "pictures":
            patch.setattr("server.dump.pictures.In._count", cut)
        elif where == "vectors":
            patch.setattr(loading._Loading, "_scalar", lambda *_: True)
            added = loading._Loading._added

            def some(self: Any, statement: bytes, batch: Any) -> int:
                if "embedding" in batch:
                    cut()
                return added(self, statement, batch)

            patch.setattr(loading._Loading, "_added", some)
        else:
            whole = getattr(loading._Loading, where)

            def one(self: Any, batch: Any) -> None:
                cut()
                whole(self, batch)

            patch.setattr(loading._Loading, where, one)
        with pytest.raises(KeyboardInterrupt):
            load_back(empty, dumped, space)
    assert catalogue(empty.url) != catalogue(furnished.url)
    load_back(empty, dumped, space)
    assert catalogue(empty.url) == catalogue(furnished.url)
    assert empty.objects == furnished.objects


def test_a_database_that_goes_away_half_way_is_a_sentence_and_the_same_load_goes_on(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = loading._Loading._add_media

    def cut(self: Any, batch: Any) -> None:
        add(self, batch)
        cut_connections(empty.url)

    with monkeypatch.context() as patch:
        patch.setattr(loading._Loading, "_add_media", cut)
        with pytest.raises(DatabaseUnusable):
            load_back(empty, dumped, space)
    assert run_sql(empty.url, "SELECT count(*) FROM media") == [(0,)]
    assert load_back(empty, dumped, space).media == MEDIA
    assert catalogue(empty.url) == catalogue(furnished.url)


def test_a_full_store_is_a_sentence_and_the_same_load_goes_on(
    furnished: Place, dumped: Path, empty: Place, space: SpaceRow, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        place = Place(empty.url, disk / "media")
        settle(place.url, place.store)
        filling = fill(disk)
        with pytest.raises(StoreRefused, match=r"has not ended: .* cannot be used .* No row was loaded"):
            load_back(place, dumped, space)
        assert run_sql(empty.url, "SELECT count(*) FROM products") == [(0,)]
        filling.unlink()
        assert load_back(place, dumped, space).media == MEDIA
        assert place.objects == furnished.objects


@pytest.fixture(params=["products", "media", f"vectors/{SPACE[:12]}"])
def file(request: pytest.FixtureRequest) -> str:
    return f"{request.param}/part-00000.parquet"


def test_a_damaged_file_is_refused_before_anything_is_written(
    copied: Path, empty: Place, space: SpaceRow, file: str
) -> None:
    data = bytearray((copied / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / file).write_bytes(data)
    with pytest.raises(DumpRefused, match=f"is damaged: .*{file} is not what was written there"):
        load_back(empty, copied, space)
    assert nothing_in(empty)


def test_a_file_that_is_missing_is_refused(copied: Path, empty: Place, space: SpaceRow, file: str) -> None:
    (copied / file).unlink()
    with pytest.raises(DumpRefused, match=f"is not whole: .*{file} cannot be read"):
        load_back(empty, copied, space)
    assert nothing_in(empty)


def test_a_damaged_picture_is_refused(copied: Path, empty: Place, space: SpaceRow) -> None:
    path = next(one for one in sorted((copied / "pictures").rglob("*")) if one.is_file())
    path.write_bytes(b"something else")
    with pytest.raises(DumpRefused, match=f"is damaged: .*{path.name}"):
        load_back(empty, copied, space)
    assert nothing_in(empty)
    assert load_back(empty, copied, space, pictures=False).media == MEDIA


def test_a_dump_that_was_never_finished_is_refused(copied: Path) -> None:
    (copied / MANIFEST).unlink()
    with pytest.raises(DumpRefused, match="holds no dump, or one that was never finished"):
        manifests.read(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "of format 2, and this version of Twinlens knows formats up to 1"),
        ({"products": "many"}, "is damaged"),
        ({"files": [{"path": "../x", "table": "media", "rows": 0, "bytes": 0, "sha256": ""}]}, "names ../x"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(copied: Path, change: dict[str, Any], said: str) -> None:
    (copied / MANIFEST).write_bytes(msgspec.json.encode(json.loads((copied / MANIFEST).read_bytes()) | change))
    with pytest.raises(DumpRefused, match=said):
        manifests.read(copied)


def test_a_column_of_another_type_is_refused(copied: Path, empty: Place, space: SpaceRow) -> None:
    path = "products/part-00000.parquet"
    table = pq.read_table(copied / path)
    forge(copied, path, table.drop(["sku"]))
    with pytest.raises(DumpRefused, match="the column sku should be string, and is missing"):
        load_back(empty, copied, space)
    at = table.schema.get_field_index("name")
    forge(copied, path, table.set_column(at, "name", pa.array([1] * table.num_rows)))
    with pytest.raises(DumpRefused, match="the column name should be string, and is int64"):
        load_back(empty, copied, space)
    assert nothing_in(empty)


def test_a_value_that_the_database_cannot_have_is_refused(copied: Path, empty: Place, space: SpaceRow) -> None:
    path = "media/part-00000.parquet"
    table = pq.read_table(copied / path)
    at = table.schema.get_field_index("kind")
    forge(copied, path, table.set_column(at, "kind", pa.array(["poem"] * table.num_rows)))
    with pytest.raises(DumpRefused, match=r"refuses rows of .*media/part-00000.parquet: .*media_kind_check"):
        load_back(empty, copied, space)


def test_the_audit_says_who_has_loaded_what(dumped: Path, empty: Place, space: SpaceRow) -> None:
    load_back(empty, dumped, space)
    found = run_sql(empty.url, 'SELECT action, object, "clientId", operator IS NOT NULL FROM twinlens_audit')
    assert found == [("load", manifests.read(dumped).id, None, True)]


def test_a_lost_lock_is_noticed_before_any_row_is_written(
    dumped: Path, empty: Place, space: SpaceRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = loading._put

    def meddle(*arguments: Any) -> int:
        run_sql(
            empty.url,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 5",
        )
        return put(*arguments)

    monkeypatch.setattr(loading, "_put", meddle)
    with pytest.raises(DatabaseUnusable):
        load_back(empty, dumped, space)
    assert run_sql(empty.url, "SELECT count(*) FROM products") == [(0,)]
