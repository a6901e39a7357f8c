"""A dump is one moment of a catalogue as Parquet files that others read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.catalogue.rows import SpaceRow
from server.database.migrations import migrate
from server.dump.manifest import MANIFEST, read
from server.dump.parts import Bounds, Parts
from server.dump.tables import EMBEDDING
from server.errors import DatabaseUnusable, DumpRefused, StoreRefused
from server.ingest.storage import MediaStore, Opened
from server.postgres.server import EmbeddedPostgres
from tests import ROOT
from tests.support.backups import PICTURES, VECTORS, Place
from tests.support.catalogue import SPACE, D, open_test_space
from tests.support.catalogue import fill as filled
from tests.support.databases import cut_connections, discard, run_sql
from tests.support.dumps import catalogue, dump, load_back, rows_of
from tests.support.full_disk import fill, small_disk
from tests.support.spaces import NEW
from tests.support.standby import Standby
from tests.support.vectors import unit_vectors

VECTORS_OF = f"vectors/{SPACE[:12]}"


def test_products_and_media_are_what_callers_see_of_them(furnished: Place, dumped: Path) -> None:
    seen = catalogue(furnished.url)
    products = rows_of(dumped, "products")
    changed = run_sql(furnished.url, 'SELECT "updatedAt" FROM products ORDER BY 1')
    assert sorted((row.pop("updatedAt"),) for row in products) == changed
    for rows, table in ((products, "products"), (rows_of(dumped, "media"), "media")):
        assert sorted((tuple(row.values()) for row in rows), key=lambda row: row[:2]) == seen[table]
    assert {row["clientId"] for row in rows_of(dumped, "products") if row["id"] == "p0"} == {"acme", "large"}


def test_what_attributes_are_declared_as_is_in_it(furnished: Place, dumped: Path) -> None:
    rows = [tuple(row.values()) for row in rows_of(dumped, "attributes")]
    assert sorted(rows) == sorted(catalogue(furnished.url)["attributes"])
    assert len(rows) == 3
    assert pq.read_schema(dumped / "attributes" / "part-00000.parquet").names == ["clientId", "name", "type"]


def test_each_column_has_the_type_that_the_documentation_says(dumped: Path) -> None:
    media = pq.read_schema(dumped / "media" / "part-00000.parquet")
    assert media.field("createdAt").type == pa.timestamp("us", tz="UTC")
    assert media.field("contentDigest").type == pa.binary(32)
    assert media.field("bytes").type == pa.int64()
    products = pq.read_schema(dumped / "products" / "part-00000.parquet")
    assert products.field("attributes").type == pa.string()
    (product,) = [row for row in rows_of(dumped, "products") if row["id"] == "p1"]
    assert json.loads(product["attributes"]) == {"price": 49.9}
    assert isinstance(product["createdAt"], datetime)
    assert product["createdAt"].tzinfo is not None


def test_each_column_is_documented(dumped: Path) -> None:
    text = (ROOT / "docs" / "dump.md").read_text("utf-8")
    table = text[text.index("| table |") : text.index("## Reading it")]
    documented = set(re.findall(r"`(\w+)`", re.sub(r"`\w*[<\[].*?`", "", table)))
    columns = {name for path in dumped.rglob("*.parquet") for name in pq.read_schema(path).names}
    assert columns <= documented


def test_vectors_are_halves_of_a_fixed_size_bit_by_bit(furnished: Place, dumped: Path) -> None:
    (path,) = (dumped / VECTORS_OF).iterdir()
    table = pq.read_table(path)
    assert table.schema.field(EMBEDDING).type == pa.list_(pa.float16(), D)
    halves = table[EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    assert halves.dtype == np.float16
    assert len(halves) == (PICTURES + VECTORS) * D
    keys = list(zip(table["clientId"].to_pylist(), table["mediaId"].to_pylist(), strict=True))
    stored = {(row[0], row[1]): row[2][4:] for row in catalogue(furnished.url)["vectors"]}
    found = {key: one.byteswap().tobytes() for key, one in zip(keys, halves.reshape(-1, D), strict=True)}
    assert found == stored


def test_a_file_of_vectors_says_which_space_they_are_of(dumped: Path) -> None:
    (path,) = (dumped / VECTORS_OF).iterdir()
    says = pq.read_schema(path).metadata
    assert says[b"twinlens.space"].decode() == SPACE
    assert says[b"twinlens.dimensions"] == b"16"
    assert says[b"twinlens.model"] == b"test"


def test_the_manifest_lists_every_file_with_its_digest(dumped: Path) -> None:
    manifest = read(dumped)
    assert (manifest.products, manifest.media) == (3 + VECTORS + 1 + 1, PICTURES + VECTORS)
    assert [(one.id, one.live, one.vectors) for one in manifest.spaces] == [(SPACE, True, PICTURES + VECTORS)]
    files = {path.relative_to(dumped).as_posix() for path in dumped.rglob("*.parquet")}
    assert {one.path for one in manifest.files} == files
    for one in manifest.files:
        data = (dumped / one.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one.bytes, one.sha256)
    assert datetime.fromisoformat(manifest.created_at).tzinfo == UTC


def test_the_pictures_are_named_by_their_digest_and_a_table_has_their_keys(furnished: Place, dumped: Path) -> None:
    objects = furnished.objects
    rows = rows_of(dumped, "objects")
    assert {row["key"] for row in rows} == set(objects)
    for row in rows:
        data = (dumped / row["file"]).read_bytes()
        assert data == objects[row["key"]]
        assert hashlib.sha256(data).digest() == row["digest"]
        assert Path(row["file"]).name.startswith(row["digest"].hex())
    on_disk = [path for path in (dumped / "pictures").rglob("*") if path.is_file()]
    assert len(on_disk) == len(set(objects.values()))


def test_nothing_but_the_dump_is_in_the_folder(dumped: Path) -> None:
    assert {one.name for one in dumped.iterdir()} == {
        "attributes", "products", "media", "vectors", "objects", "pictures", MANIFEST,
    }  # fmt: skip
    assert not list(dumped.rglob("*.part"))


def test_one_client_alone(furnished: Place, tmp_path: Path) -> None:
    made = dump(furnished, tmp_path / "dump", client="acme", pictures=True)
    assert (made.manifest.products, made.manifest.media, made.manifest.spaces[0].vectors) == (4, PICTURES, PICTURES)
    for table in ("attributes", "products", "media", VECTORS_OF):
        assert {row["clientId"] for row in rows_of(tmp_path / "dump", table)} == {"acme"}
    assert {row["key"] for row in rows_of(tmp_path / "dump", "objects")} == {
        key for key in furnished.objects if not key.startswith("elsewhere/")
    }


def test_a_client_who_has_nothing_is_most_likely_misspelt(furnished: Place, tmp_path: Path) -> None:
    with pytest.raises(DumpRefused, match="no products of a client 'acne'"):
        dump(furnished, tmp_path / "dump", client="acne")
    assert not (tmp_path / "dump").exists()


def test_all_spaces(furnished: Place, tmp_path: Path) -> None:
    made = dump(furnished, tmp_path / "dump", all_spaces=True)
    assert [(one.id, one.live, one.vectors) for one in made.manifest.spaces] == [
        (SPACE, True, PICTURES + VECTORS),
        (NEW, False, 0),
    ]
    empty = pq.read_table(tmp_path / "dump" / "vectors" / NEW[:12])
    assert (empty.num_rows, empty.schema.field(EMBEDDING).type) == (0, pa.list_(pa.float16(), 16))


def test_a_large_catalogue_becomes_many_files_of_many_row_groups(
    writable: Place, empty: Place, space: SpaceRow, tmp_path: Path
) -> None:
    run_sql(
        writable.url,
        "INSERT INTO products (id, \"clientId\", name) SELECT 'q' || n, 'acme', 'Q' FROM generate_series(1, 2000) n",
    )
    made = dump(writable, tmp_path / "dump", bounds=Bounds(group_rows=500, file_rows=1000))
    files = made.manifest.files_of("products")
    assert [one.path for one in files] == [f"products/part-{number:05}.parquet" for number in range(3)]
    assert [one.rows for one in files] == [1000, 1000, 305]
    assert pq.ParquetFile(tmp_path / "dump" / files[0].path).num_row_groups == 2
    assert len({(row["clientId"], row["id"]) for row in rows_of(tmp_path / "dump", "products")}) == 2305
    load_back(empty, tmp_path / "dump", space, pictures=False)
    assert catalogue(empty.url) == catalogue(writable.url)


def test_a_row_group_is_bounded_in_bytes_too(furnished: Place, dumped: Path, tmp_path: Path) -> None:
    schema = pq.read_schema(dumped / "products" / "part-00000.parquet")
    parts = Parts(tmp_path, "products", schema, Bounds(group_bytes=10_000))
    for number in range(6):
        parts.add([("c", str(number), "n" * 4_000, None, True, "{}", 0, 0)])
    (file,) = parts.close()
    assert pq.ParquetFile(tmp_path / file.path).num_row_groups == 2


def test_it_is_one_moment_whatever_is_written_meanwhile(
    writable: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the tables, everything is deleted; and a migration has to wait until they are read."""
    before = catalogue(writable.url)
    close = Parts.close

    def meddle(parts: Parts) -> object:
        files = close(parts)
        run_sql(writable.url, "DELETE FROM products")
        with psycopg.connect(writable.url, autocommit=True) as other:
            other.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("ALTER TABLE media ADD COLUMN more text")
        return files

    monkeypatch.setattr(Parts, "close", meddle)
    made = dump(writable, tmp_path / "dump")
    assert run_sql(writable.url, "SELECT count(*) FROM media") == [(0,)]
    rows = sorted((tuple(row.values()) for row in rows_of(tmp_path / "dump", "media")), key=lambda row: row[:2])
    assert rows == before["media"]
    assert made.manifest.spaces[0].vectors == len(before["vectors"])


def test_a_folder_with_anything_in_it_is_left_alone(furnished: Place, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(DumpRefused, match="is not empty: it holds mine"):
        dump(furnished, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(furnished: Place, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    dump(furnished, tmp_path / "dump")
    assert read(tmp_path / "dump").media == PICTURES + VECTORS


def test_a_full_disk_is_a_sentence_and_nothing_is_left(furnished: Place, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk / "empty").mkdir()
        filling = fill(disk)
        for name in ("new", "empty"):
            with pytest.raises(DumpRefused, match=r"written: No space left on device\. Nothing is left"):
                dump(furnished, disk / name, pictures=True)
        assert sorted(one.name for one in disk.rglob("*")) == ["empty", "filling"]
        filling.unlink()
        with pytest.raises(DumpRefused, match=r"written: No space left on device\. Nothing is left"):
            dump(furnished, disk / "new", pictures=True)  # the tables have room, and the pictures have none
        assert [one.name for one in disk.rglob("*")] == ["empty"]


def test_a_database_that_goes_away_half_way_leaves_nothing(
    writable: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Parts.close

    def cut(parts: Parts) -> object:
        cut_connections(writable.url)
        return close(parts)

    monkeypatch.setattr(Parts, "close", cut)
    with pytest.raises(DatabaseUnusable):
        dump(writable, tmp_path / "dump")
    assert not (tmp_path / "dump").exists()


def test_a_standby_is_dumped_as_well_where_no_bytes_are_to_be_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o755)
    quick = ("fsync=off", "full_page_writes=off")
    primary = EmbeddedPostgres(folder / "primary", extra_settings=quick)
    try:
        migrate(primary.start())
        filled(primary.url, open_test_space(primary.url), "acme", unit_vectors(20, D))
        with Standby(primary, folder / "standby", extra_settings=quick) as standby:
            standby.catch_up()
            place = Place(standby.url, folder / "media")
            made = dump(place, folder / "dump")
            assert (made.manifest.media, made.manifest.spaces[0].vectors) == (20, 20)
            with pytest.raises(DatabaseUnusable, match="is on a standby"):
                dump(place, folder / "pictures", pictures=True)
    finally:
        discard(primary)


def test_missing_and_changed_pictures_are_told_and_the_rest_is_dumped(writable: Place, tmp_path: Path) -> None:
    keys = [
        key for (key,) in run_sql(writable.url, """SELECT "s3Key" FROM media WHERE "clientId" = 'acme' ORDER BY 1""")
    ]
    (writable.folder / keys[0]).unlink()
    (writable.folder / keys[1]).write_bytes(b"something else")
    made = dump(writable, tmp_path / "dump", pictures=True)
    assert (made.copied.missing, made.copied.changed) == (1, 1)
    assert made.copied.examples == [f"{keys[0]}: missing", f"{keys[1]}: its bytes are not those that were embedded"]
    assert made.manifest.pictures == len(rows_of(tmp_path / "dump", "objects")) == 2 * PICTURES + VECTORS - 1
    assert made.manifest.media == PICTURES + VECTORS


def test_a_store_that_goes_away_ends_the_dump(writable: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = writable.store

    async def vanish(key: str, *, at_once: int) -> Opened:
        os.rename(writable.folder, tmp_path / "unmounted")
        monkeypatch.setattr(store, "open", partial(MediaStore.open, store))
        return await MediaStore.open(store, key, at_once=at_once)

    monkeypatch.setattr(store, "open", vanish)
    with pytest.raises(StoreRefused, match="No dump was made"):
        dump(writable, tmp_path / "dump", store=store, pictures=True)
    assert not (tmp_path / "dump").exists()


def test_without_pictures_the_store_is_not_asked(furnished: Place, tmp_path: Path) -> None:
    made = dump(furnished, tmp_path / "dump", store=MediaStore.at(None, tmp_path / "not there"))
    assert not made.manifest.with_pictures
    there = {one.name for one in (tmp_path / "dump").iterdir()}
    assert there == {"attributes", "products", "media", "vectors", MANIFEST}


def test_a_catalogue_without_a_space_has_no_vectors_yet(database_url: str, tmp_path: Path) -> None:
    made = dump(Place(database_url, tmp_path / "media"), tmp_path / "dump")
    assert made.manifest.spaces == ()
    assert rows_of(tmp_path / "dump", "products") == rows_of(tmp_path / "dump", "media") == []


def test_a_catalogue_must_be_there(bare_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="holds no catalogue"):
        dump(Place(bare_database_url, tmp_path / "media"), tmp_path / "dump")
    assert not (tmp_path / "dump").exists()
