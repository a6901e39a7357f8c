"""python -m server ingest, as a process of its own: interrupted, beside servers, with what may be away or full."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psycopg

from server.bulk.ingest import lock_of
from server.ingest.storage import MARK
from tests.support.changed_artifacts import with_a_graph_that_does_not_load
from tests.support.databases import run_sql
from tests.support.full_disk import fill, small_disk
from tests.support.ingest_command import count, finished, folder_of, noise, run, start
from tests.support.ingesting import pictures_of
from tests.support.process import PATIENCE, Serve, until
from tests.support.serving import Client, serving


def finds_itself(client: Client, product: str, data: bytes) -> bool:
    """Whether a search for this picture finds this product first, and entirely."""
    answer = client.post("/v1/search", files={"file": data}).json()
    first = answer["results"][0]
    return (first["productId"], first["similarity"]) == (product, 100.0)


def objects(data: Path) -> list[Path]:
    return [path for path in (data / "media").rglob("*") if path.is_file() and path.name != MARK]


def test_a_run_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(
    database_url: str, tmp_path: Path
) -> None:
    folder, data = tmp_path / "pictures", tmp_path / "data"
    pictures = folder_of(folder, 300)
    killed = [0]

    def begun() -> object:  # bytes are stored, and most likely no row is there
        return objects(data)

    def written() -> object:
        return count(database_url, "media") > killed[-1]

    for enough in (begun, written, written):
        work = start(folder, data, database_url)
        until(lambda enough=enough, work=work: enough() or work.poll() is not None, 4 * PATIENCE)  # type: ignore[misc]
        work.kill()
        assert finished(work)[2] == -signal.SIGKILL, "too quick to be killed at work"
        killed.append(count(database_url, "media"))
    assert killed[1] < killed[2] < killed[3] < 300

    report, err, code = run(folder, data, database_url)
    assert (code, report["failed"], report["rows"]) == (0, 0, 300), err
    assert report["added"] == 300 - killed[3]
    found = pictures_of(database_url, "demo")
    assert found.keys() == pictures.keys()
    assert {len(media) for media in found.values()} == {1}
    again, _, code = run(folder, data, database_url)
    assert (code, again["unchanged"], again["embedded"]) == (0, 300, 0)
    with serving(database_url, data) as client:
        assert not [product for product, one in pictures.items() if not finds_itself(client, product, one)]


def test_it_makes_an_empty_database_a_catalogue_and_fills_it(tmp_path: Path) -> None:
    """With the embedded PostgreSQL, before any server was started."""
    pictures = folder_of(tmp_path / "pictures", 3)
    report, err, code = run(tmp_path / "pictures", tmp_path / "data", None)
    assert (code, report["productsMade"], report["added"]) == (0, 3, 3), err
    report, err, code = run(tmp_path / "pictures", tmp_path / "data", None, "--dry-run")
    assert (code, report["rows"], report["pictures"], report["wrong"]) == (0, len(pictures), 3, 0), err


def test_a_signal_ends_it_in_good_order_and_the_same_command_goes_on(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 300)
    work = start(tmp_path / "pictures", tmp_path / "data", database_url)
    until(lambda: count(database_url, "media") or work.poll() is not None, 4 * PATIENCE)
    work.send_signal(signal.SIGTERM)
    _, err, code = finished(work)
    assert (code, "Stopped after" in err, "the same command goes on" in err) == (128 + signal.SIGTERM, True, True), err
    assert "Traceback" not in err
    before = count(database_url, "media")
    assert 0 < before < 300
    assert len(objects(tmp_path / "data")) == 2 * before
    report, _, code = run(tmp_path / "pictures", tmp_path / "data", database_url)
    assert (code, report["added"]) == (0, 300 - before)


def test_beside_a_server_what_it_brings_is_found_at_once(serve: Serve, tmp_path: Path) -> None:
    server = serve(products=24).ready()
    folder_of(tmp_path / "pictures", 5)
    report, err, code = run(tmp_path / "pictures", server.data, None)
    assert (code, report["added"]) == (0, 5), err
    assert server.search(noise(3))[0]["productId"] == "product-0003"


def test_one_process_at_a_time_brings_in_a_feed(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 2)
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", lock_of(str(tmp_path / "pictures")))
        _, err, code = run(tmp_path / "pictures", tmp_path / "data", database_url)
        assert (code, "Another process is bringing in the feed" in err) == (2, True), err
        other, err, code = run(tmp_path / "pictures", tmp_path / "data", database_url, "--feed", "other")
        assert (code, other["added"]) == (0, 2), err


def test_what_failed_is_a_feed_that_can_be_brought_in(database_url: str, tmp_path: Path) -> None:
    folder, failures = tmp_path / "pictures", tmp_path / "failures.jsonl"
    folder_of(folder, 2)
    (folder / "shirt").mkdir()
    for name in ("1", "2", "3"):
        (folder / "shirt" / f"{name}.png").write_bytes(noise(int(name) + 100))
    (folder / "shirt" / "2.png").write_bytes(b"no picture")
    report, err, code = run(folder, tmp_path / "data", database_url, "--failures", str(failures))
    assert (code, report["failed"], report["added"]) == (1, 1, 4), err
    lines = [json.loads(line) for line in failures.read_text().splitlines()]
    assert [one["productId"] for one in lines] == ["shirt"] * 3
    assert [one.get("failedBecause") is not None for one in lines] == [False, True, False]
    assert f"ingest {failures} --feed {folder}" in err
    before = pictures_of(database_url, "demo")

    (folder / "shirt" / "2.png").write_bytes(noise(999))
    flags = ("--feed", str(folder), "--failures", str(failures))
    report, err, code = run(failures, tmp_path / "data", database_url, *flags)
    assert (code, report["rows"], report["added"], report["replaced"]) == (0, 3, 1, 0), err
    after = pictures_of(database_url, "demo")
    assert set(before["shirt"]) < set(after["shirt"])
    assert (len(after["shirt"]), failures.read_text()) == (3, "")
    report, err, code = run(folder, tmp_path / "data", database_url)
    assert (code, report["added"], report["replaced"], report["picturesRemoved"]) == (0, 0, 0, 0), err


def test_wrong_lines_are_named_and_the_others_are_brought_in(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    table = tmp_path / "table.csv"
    table.write_text("productId,name,file\na,A,product-0000.png\n,B,product-0001.png\nc,C,gone.png\n")
    report, err, code = run(table, tmp_path / "data", database_url, "--dry-run")
    assert (code, report["rows"], report["wrong"], report["missing"]) == (1, 1, 2, 1)
    assert ("line 3: The row has no productId." in err, "line 4: There is no file" in err) == (True, True)
    assert not (tmp_path / "data").exists()
    report, err, code = run(table, tmp_path / "data", database_url, "--prune")
    assert (code, report["wrong"], report["failed"], report["added"]) == (1, 1, 1, 1), err
    assert "Nothing was taken out, since lines are wrong" in err


def test_columns_that_look_like_numbers_are_named_once_and_stay_texts(database_url: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("productId,name,price,old price,size\na,A,12.50,13,38\nb,B,9,,L\n")
    said = "Texts that look like numbers in all rows: old price, price."
    flags = "--number 'old price' --number price"
    for dry in (("--dry-run",), ()):
        report, err, code = run(table, tmp_path / "data", database_url, *dry)
        assert (code, report["rows"], err.count(said), err.count(flags)) == (0, 2, 1, 1), err
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT attributes->'price' FROM products ORDER BY id").fetchall()
    assert stored == [("12.50",), ("9",)]
    run_sql(database_url, "INSERT INTO twinlens_attributes VALUES ('demo', 'price', 'number')")
    _, err, code = run(table, tmp_path / "data", database_url)
    assert (code, "in all rows: old price." in err) == (0, True)
    _, err, code = run(table, tmp_path / "data", database_url, "--number", "price", "--number", "old price")
    assert (code, "look like numbers" in err) == (0, False)


def test_a_night_in_which_only_prices_change_opens_no_model(database_url: str, tmp_path: Path) -> None:
    """With a model that is the same by all that its manifest says, and whose graph nothing can load."""
    folder_of(tmp_path, 3)
    table, flags = tmp_path / "table.csv", ("--number", "price", "--prune", "--prune-at-most", "50%")
    head = "productId,price,file\n"
    table.write_text(head + "a,1,product-0000.png\nb,2,product-0001.png\n")
    data, broken = tmp_path / "data", ("--model", str(with_a_graph_that_does_not_load(tmp_path / "broken")))
    report, err, code = run(table, data, database_url, *flags)
    assert (code, report["embedded"]) == (0, 2), err

    table.write_text(head + "a,10,product-0000.png\n")
    report, err, code = run(table, data, database_url, *flags, *broken)
    assert (code, report["embedded"], report["picturesRemoved"], report["productsRemoved"]) == (0, 0, 1, 1), err
    assert run_sql(database_url, "SELECT id, attributes->'price' FROM products") == [("a", 10)]
    assert len(objects(data)) == 2, "the picture and the thumbnail that remain"

    table.write_text(head + "a,11,product-0000.png\nc,3,product-0002.png\n")
    _, err, code = run(table, data, database_url, *flags, *broken)
    assert (code, "cannot load" in err, "Traceback" in err) == (2, True, False), err
    report, err, code = run(table, data, database_url, *flags)
    assert (code, report["embedded"], count(database_url, "media")) == (0, 1, 2), err


def test_a_damaged_artifact_is_refused_before_anything_is_written(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 1)
    broken = with_a_graph_that_does_not_load(tmp_path / "broken")
    (broken / "image.fp32.onnx").write_bytes(b"neither the graph nor what the manifest says")
    _, err, code = run(tmp_path / "pictures", tmp_path / "data", database_url, "--model", str(broken))
    assert (code, "is not the file that was exported" in err) == (2, True), err
    assert count(database_url, "products") == 0


def test_a_feed_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    _, err, code = run(tmp_path / "nowhere.csv", tmp_path / "data", None)
    assert (code, "There is no file or folder" in err, "Traceback" in err) == (2, True, False)
    assert not (tmp_path / "data").exists()


def test_it_is_kept_in_the_audit(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 1)
    run(tmp_path / "pictures", tmp_path / "data", database_url, "--client", "acme", "--feed", "nightly")
    audited = run_sql(database_url, 'SELECT action, "clientId", object FROM twinlens_audit')
    assert audited == [("ingest", "acme", "nightly")]


def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(database_url: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures", 30)
    with small_disk(tmp_path / "disk", 4) as disk:
        filling = fill(disk)
        flags = ("--media-url", str(disk))
        filling.write_bytes(b"x" * (filling.stat().st_size - 40_000))  # room for the mark, and not for many pictures
        _, err, code = run(tmp_path / "pictures", tmp_path / "data", database_url, *flags)
        assert (code, "Traceback" in err) == (2, False), err
        assert "The store of pictures cannot be used" in err
        filling.unlink()
        report, err, code = run(tmp_path / "pictures", tmp_path / "data", database_url, *flags)
        assert (code, report["failed"], count(database_url, "media")) == (0, 0, 30), err
