"""The command `twinlens` against a running server: what it prints, its exit codes, and its sentences."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.support.scripted import CLOSED, Reply, scripted
from tests.support.served import ABACUS, KEYBOARD, VIOLIN, Served
from twinlens import Client
from twinlens.commands.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def environment(served: Served, client_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TWINLENS_URL", served.url)
    monkeypatch.setenv("TWINLENS_KEY", served.admin)
    monkeypatch.setenv("TWINLENS_CLIENT", client_id)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    assert not [*(tmp_path / "state").rglob("*.journal")], "a journal is left, and no test means to leave one"


@pytest.fixture
def run(capsys: Capture) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: its exit code, and what it printed and said."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two products, one of them of two pictures."""
    for product, *pictures in (("keyboard", KEYBOARD), ("things", ABACUS, VIOLIN)):
        (tmp_path / "shop" / str(product)).mkdir(parents=True)
        for picture in pictures:
            shutil.copy(picture, tmp_path / "shop" / str(product))
    return tmp_path / "shop"


Run = Callable[..., tuple[int, str, str]]


def test_a_folder_is_pushed_and_searched(run: Run, folder: Path, client: Client) -> None:
    code, out, err = run("push", folder)
    assert (code, out) == (0, "Products: 2 new.\nPictures: 3 added.\n")
    assert f"{folder}: 3 of 3" in err
    assert client.get_product("things").name == "things"
    assert run("push", folder)[1] == "Products: 2 there already.\nPictures: 3 there already.\n"

    code, out, _ = run("search", KEYBOARD, "--limit", "1")
    heading, line = out.splitlines()
    assert heading.split() == ["similarity", "grade", "product", "name", "media"]
    assert line.split()[:5] == ["100.0", "%", "identical", "keyboard", "keyboard"]
    answer = json.loads(run("search", "--text", "a violin", "--json", "--limit", "2")[1])
    assert [match["productId"] for match in answer["results"]] == ["things", "keyboard"]
    media = answer["results"][0]["mediaId"]
    assert run("search", "--media", media, "--min-grade", "identical")[1].splitlines()[1].split()[3] == "things"
    assert run("search", KEYBOARD, "--filter", '{"attributes": {"none": 1}}')[1] == "Nothing was found.\n"
    part = run("search", KEYBOARD, "--crop", "0.1,0,0.9,1", "--limit", "1")[1].splitlines()[1].split()
    assert "keyboard" in part
    assert part[0] != "100.0"


def test_several_things_are_searched_at_once(run: Run, folder: Path, client: Client) -> None:
    run("push", folder)
    media = next(iter(client.list_media("keyboard"))).id
    parts: list[dict[str, Any]] = [
        {"file": str(VIOLIN)},
        {"mediaId": media, "weight": 0.01},
        {"text": "a violin", "weight": 0.1},
    ]
    found = json.loads(run("search", "--query", json.dumps(parts), "--json", "--limit", "1")[1])["results"]
    assert [(match["productId"], match["grade"]) for match in found] == [("things", None)]
    parts[1]["weight"], parts[0]["weight"] = 1, -0.5
    assert run("search", "--query", json.dumps(parts))[1].splitlines()[1].split()[2] == "keyboard"
    assert "identical" in run("search", "--query", json.dumps([{"file": str(VIOLIN)}]), "--limit", "1")[1]
    half = [{"file": str(VIOLIN), "crop": [0, 0, 0.5, 1]}]
    assert "identical" not in run("search", "--query", json.dumps(half), "--limit", "1")[1]


def test_fields_are_columns_of_the_table(run: Run, folder: Path, client: Client) -> None:
    run("push", folder)
    client.patch_product(
        "things", sku="T-1", attributes={"price": 9.5, "colour": ["red", "blue"], "url": "http://a.example/"}
    )
    words = ("search", VIOLIN, "--limit", "1", "--fields")
    heading, line = run(*words, "sku,url,isActive,attributes.price,attributes.colour,attributes.none")[1].splitlines()
    assert heading.split()[5:] == ["sku", "url", "isActive", "price", "colour", "none"]
    assert line.split()[6:] == ["T-1", "http://a.example/", "yes", "9.5", "red,", "blue"]
    assert '"price":9.5' in run(*words, "attributes")[1]
    (match,) = json.loads(run(*words, "sku, attributes.price", "--json")[1])["results"]
    assert (match["sku"], match["attributes"]) == ("T-1", {"price": 9.5})
    assert not {"url", "isActive"} & match.keys()
    code, _, err = run(*words, "cost")
    assert (code, "fields: each is sku" in err) == (2, True)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("{", "--query must be a JSON list of parts"),
        ('{"text": "x"}', "--query must be a JSON list of parts"),
        ('[{"text": "x", "wieght": 2}]', "wieght"),
        ('[{"file": 0}]', r"$[0].file"),
        ('[{"text": "x", "weight": "2"}]', r"$[0].weight"),
        ('[{"text": "x", "mediaId": "y"}]', "exactly one of"),
        ('[{"file": "/no/such/file"}]', "/no/such/file"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_in_a_sentence(run: Run, query: str, sentence: str) -> None:
    code, out, err = run("search", "--query", query)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_query_stands_alone(run: Run) -> None:
    code, _, err = run("search", "--text", "x", "--query", '[{"text": "y"}]')
    assert (code, "PICTURE, --text, --media or --query" in err) == (2, True)


def test_a_picture_is_searched_from_stdin_and_by_its_url(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("push", folder)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(KEYBOARD.read_bytes())))
    assert "identical" in run("search", "-", "--limit", "1")[1]
    with scripted(Reply(body=KEYBOARD.read_bytes())) as elsewhere:
        assert "identical" in run("search", f"{elsewhere.url}/keyboard.webp", "--limit", "1")[1]


def test_a_table_is_pushed_and_says_only_what_it_says(run: Run, folder: Path, client: Client) -> None:
    client.put_product("p1", name="Shoe", sku="S-1", attributes={"colour": "red", "size": 41})
    feed = folder / "feed.csv"
    feed.write_text("productId,name,file,isActive,colour\np1,,keyboard/keyboard.webp,,blue\np2,Boot,,no,\n")
    code, out, _ = run("push", feed)
    assert (code, out) == (0, "Products: 1 new, 1 updated.\nPictures: 1 added.\n")
    kept = client.get_product("p1")
    assert (kept.name, kept.sku, kept.attributes) == ("Shoe", "S-1", {"colour": "blue", "size": 41})
    assert (client.get_product("p2").name, client.get_product("p2").is_active) == ("Boot", False)


def test_a_product_of_many_pictures_is_counted_once_and_keeps_its_name(run: Run, folder: Path, client: Client) -> None:
    feed = folder / "feed.csv"
    lines = [f"p,{folder / 'keyboard' / 'keyboard.webp'}," for _ in range(45)]
    feed.write_text("\n".join(["productId,file,name", "p,,Named", *lines, "q,,"]))
    code, out, _ = run("push", feed)
    assert code == 0
    assert out.startswith("Products: 2 new.\n")
    assert client.get_product("p").name == "Named"


def test_what_is_wrong_with_a_feed_is_listed_and_the_rest_goes_in(run: Run, folder: Path, client: Client) -> None:
    (folder / "text.jpg").write_text("text")
    feed = folder / "feed.csv"
    feed.write_text(
        "productId,name,file,isActive\na,A,keyboard/keyboard.webp,\nb,B,none.jpg,\nc,C,text.jpg,\nd,D,,maybe\n"
        "e,E,,\ne,F,,\ng,,,\n"
    )
    code, out, _ = run("push", feed, "--dry-run")
    assert code == 1
    assert out.splitlines() == [
        f"Line 3: There is no file {folder / 'none.jpg'}.",
        "Line 5: isActive must be true or false (or yes, no, 1, 0), and is 'maybe'.",
        "Line 7: It says another name than line 6 of the same product.",
        "4 rows can be sent, 3 cannot.",
    ]
    assert [*client.list_products()] == []
    code, out, err = run("push", feed, "--failures", folder / "failed.jsonl", "--no-journal")
    assert code == 1
    assert "Failed: 4." in out
    assert "7 of 7, 4 failed" in err
    failed = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    assert sorted((one["line"], one["code"]) for one in failed) == [
        (3, "file_unreadable"),
        (4, "not_a_picture"),
        (5, "bad_row"),
        (7, "bad_row"),
    ]
    assert [one.id for one in client.list_products()] == ["a", "b", "c", "e", "g"]
    report = json.loads(run("push", feed, "--json", "--no-journal")[1])
    assert (report["pictures"], len(report["failures"])) == ({"there": 1}, 4)


def test_a_push_that_was_interrupted_goes_on_with_the_same_command(run: Run, folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    (folder / "broken.jpg").write_text("text")
    assert run("push", folder, "--journal", journal)[0] == 1
    assert journal.exists()
    (folder / "broken.jpg").unlink()
    code, out, _ = run("push", folder, "--journal", journal)
    assert (code, out) == (0, "Products: 2 done before.\nPictures: 3 done before.\n")
    assert not journal.exists()
    (folder / "broken.jpg").write_text("text")
    run("push", folder, "--journal", journal)
    code, _, err = run("push", folder / "keyboard", "--journal", journal)
    assert (code, "the journal of other work" in err) == (2, True)


def test_a_server_that_goes_away_stops_a_push_with_a_sentence(run: Run, folder: Path, tmp_path: Path) -> None:
    made = b'{"id": "p", "clientId": "c", "name": "P", "sku": null, "isActive": true, "attributes": {}, '
    made += b'"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}'
    with scripted(Reply(201, made), CLOSED) as server:
        code, out, err = run(
            "push",
            folder,
            "--url",
            server.url,
            "--deadline",
            "1",
            "--journal",
            tmp_path / "journal",
            "--concurrency",
            "1",
        )
    assert (code, out) == (2, "")
    assert "twinlens: Stopped; the same command goes on where this one was.\n" in err
    assert "twinlens: No answer from" in err
    assert len((tmp_path / "journal").read_text().splitlines()) == 2


def test_products_and_their_pictures_are_listed(run: Run, folder: Path, client: Client) -> None:
    run("push", folder)
    client.put_product("shoe", name="Shoe", sku="S-1", is_active=False, attributes={"size": 41})
    code, out, err = run("list", "--limit", "2")
    assert (code, err) == (0, "twinlens: There are more than 2; --limit 0 lists all.\n")
    assert [line.split()[0] for line in out.splitlines()] == ["product", "keyboard", "shoe"]
    lines = run("list", "--json", "--limit", "0")[1].splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["keyboard", "shoe", "things"]
    for choice in (("--no-active",), ("--sku", "S-1"), ("--attributes", '{"size": 41}')):
        assert [line.split()[0] for line in run("list", *choice)[1].splitlines()[1:]] == ["shoe"]
    changed = client.patch_product("things", name="Things").updated_at.isoformat()
    assert [line.split()[0] for line in run("list", "--updated-since", changed)[1].splitlines()[1:]] == ["things"]
    assert len(run("list", "--media", "things")[1].splitlines()) == 3


def test_duplicates_of_a_picture_and_of_a_product_are_listed(run: Run, folder: Path) -> None:
    shutil.copy(KEYBOARD, folder / "things" / "copy.webp")
    run("push", folder)
    heading, line = run("duplicates", "--product", "keyboard")[1].splitlines()
    assert heading.split() == ["media", "also", "how", "similarity", "of", "product"]
    media, also, *how, product = line.split()
    assert (how, product) == (["the", "same", "file", "100.0", "%"], "things")
    found = json.loads(run("duplicates", also, "--json")[1])
    assert ([one["mediaId"] for one in found["exact"]], found["near"]) == ([media], [])


def test_the_servers_state_is_the_exit_code(run: Run) -> None:
    code, out, _ = run("status")
    assert (code, "is ready." in out, "starter" in out) == (0, True, True)
    assert json.loads(run("status", "--json")[1])["checks"]["database"] == {"ok": True, "code": None, "error": None}
    problem = b'{"error": "The disk is full.", "code": "disk_full", "requestId": "r-1"}'
    with scripted(Reply(503, problem)) as server:
        code, out, _ = run("status", "--url", server.url)
        assert (code, out) == (1, f"{server.url} is not ready: The disk is full. [disk_full]\n")
        assert json.loads(run("status", "--url", server.url, "--json")[1])["code"] == "disk_full"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search",), "Give one thing to search with"),
        (("search", "x.jpg", "--text", "x"), "Give one thing to search with"),
        (("search", "missing.jpg"), "missing.jpg: No such file or directory."),
        (("search", "--text", "x", "--filter", "{"), "--filter must be JSON"),
        (("search", "missing.jpg", "--crop", "1,2,3"), "--crop must be four numbers"),
        (("search", "--text", "x", "--filter", "[]"), "--filter must be a JSON object"),
        (("search", "--text", "x", "--limit", "0"), "[bad_parameter, request "),
        (("search", "--text", "x", "--url", "ftp://x"), "must be like https://"),
        (("search", "--text", "x", "--key-file", "missing"), "missing: No such file or directory."),
        (("search", "--media", "none"), "[media_not_found, request "),
        (("list", "--updated-since", "yesterday"), "must be a time with its zone"),
        (("list", "--updated-since", "2026-01-01T00:00:00"), "must be a time with its zone"),
        (("list", "--attributes", "[]"), "--attributes must be a JSON object"),
        (("list", "--media", "none"), "[product_not_found, request "),
        (("list", "--media", "none", "--sku", "x"), "goes with no other choice"),
        (("duplicates",), "Give the id of a picture"),
        (("push", "missing"), "There is no folder and no file missing."),
        (("push", ".", "--concurrency", "0"), "--concurrency must be 1 or more"),
        (("status", "--deadline", "0"), "The deadline must be"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_exit_code_2(
    run: Run, words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("twinlens: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_key_is_read_from_a_file_and_never_printed(
    run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TWINLENS_KEY")
    assert "key_missing" in run("list")[2]
    (tmp_path / "key").write_text(f"{served.admin}\n")
    assert run("list", "--key-file", tmp_path / "key")[0] == 0
    (tmp_path / "empty").touch()
    assert run("list", "--key-file", tmp_path / "empty")[2] == f"twinlens: {tmp_path / 'empty'} holds no key.\n"


def at_a_terminal(*words: str | Path) -> str:
    """What somebody sees who runs the command at a terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    whole = [sys.executable, "-m", "twinlens", *map(str, words)]
    process = subprocess.Popen(whole, cwd=ROOT, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    drawn = bytearray()
    with os.fdopen(master, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(1000):
                drawn += chunk
        except OSError:  # the other end is closed
            process.wait(60)
    return drawn.decode()


# --- as a process ----------------------------------------------------------------------------------------------------


def started(*words: str | Path, **given: Any) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", "twinlens", *map(str, words)]
    return subprocess.Popen(whole, cwd=ROOT, text=True, stderr=subprocess.PIPE, **given)


def test_at_a_terminal_a_table_is_drawn_and_what_is_in_it_is_no_order(client: Client) -> None:
    client.put_product("p", name="[red]Shoe[/red] \x1b[31m\x07 <b>")
    text = at_a_terminal("list")
    assert "───" in text
    assert "[red]Shoe[/red] ?[31m? <b>" in text


def test_at_a_terminal_a_push_has_a_bar(folder: Path) -> None:
    (folder / "text.jpg").write_text("text")
    text = at_a_terminal("push", folder, "--no-journal")
    assert "━" in text
    assert "4/4" in text
    assert ", 1 failed" in text
    assert "Pictures: 3 added." in text


def test_json_holds_no_orders_for_a_terminal_either(run: Run, client: Client) -> None:
    client.put_product("p", name="\x9b31m \x7f Schön")
    out = run("list", "--json")[1]
    assert json.loads(out)["name"] == "\x9b31m \x7f Schön"
    assert out.replace("ö", "o").isascii()
    assert "\x7f" not in out


def test_a_reader_that_has_had_enough_is_no_error(client: Client) -> None:
    client.put_product("p", name="P")
    reading, writing = os.pipe()
    os.close(reading)
    process = started("list", "--json", stdout=writing)
    os.close(writing)
    assert (process.communicate()[1], process.returncode) == ("", 0)


def test_an_interrupted_push_says_so_and_can_go_on(folder: Path, tmp_path: Path, run: Run) -> None:
    with scripted(Reply(503, headers={"Retry-After": "30"})) as server:
        process = started("push", folder, "--url", server.url, "--journal", tmp_path / "journal")
        while not server.asked:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "twinlens: Stopped; the same command goes on where this one was.\ntwinlens: Stopped.\n"
