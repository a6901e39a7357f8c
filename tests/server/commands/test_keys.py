"""python -m server keys."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.access.keys import digest_of, id_of, search_secret_of
from server.commands import keys
from server.errors import BadParameter, DatabaseUnusable, TwinlensError
from server.settings import Settings
from tests.support.databases import run_sql

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on the test's database; what it prints on standard output."""

    def run(*words: str, url: str = database_url) -> str:
        parser = argparse.ArgumentParser()
        keys.add_arguments(parser)
        assert keys.run(Settings(database_url=url), parser.parse_args(words)) == 0
        return capsys.readouterr().out

    return run


def made(run: Run, *words: str) -> dict[str, Any]:
    """What `create` or `rotate` with these words prints as JSON, on the last line."""
    found: dict[str, Any] = json.loads(run(*words, "--json").splitlines()[-1])
    return found


def listed(run: Run, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json", *words).splitlines()[-1])["keys"]
    return found


def on(url: str) -> bool:
    ((found,),) = run_sql(url, 'SELECT "keysOn" FROM twinlens_access')
    return bool(found)


def seconds_from_now(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()


def test_a_key_is_shown_once_and_kept_as_a_digest(run: Run, database_url: str) -> None:
    assert not on(database_url)
    said = run("create", "--client", "acme", "--scope", "write,search", "--name", "The shop")
    assert on(database_url)
    (key,) = re.findall(r"twinlens_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", said)
    assert "Callers need a key now" in said
    ((digest, secret, whole),) = run_sql(database_url, 'SELECT digest, "searchSecret", k::text FROM twinlens_keys AS k')
    assert (digest, secret) == (digest_of(key), search_secret_of(key))
    assert key.rpartition("_")[2] not in whole
    for said in (run(), run("list"), run("list", "--json")):
        assert (id_of(key) or "?") in said
        assert "The shop" in said
        assert key.rpartition("_")[2] not in said
        assert digest.hex() not in said


def test_a_program_finds_the_key_on_the_last_line(run: Run) -> None:
    found = made(run, "create", "--client", "acme", "--scope", "search, read", "--name", "n", "--expires", "90d")
    assert list(found) == ["id", "key", "clientId", "scopes", "expiresAt", "name"]
    assert (found["clientId"], found["scopes"], found["name"]) == ("acme", ["search", "read"], "n")
    assert found["id"] == id_of(found["key"])
    assert seconds_from_now(found["expiresAt"]) == pytest.approx(90 * 86_400, abs=60)
    admin = made(run, "create", "--scope", "admin")
    assert (admin["clientId"], admin["scopes"], admin["expiresAt"], admin["name"]) == (None, ["admin"], None, None)


@pytest.mark.parametrize(("when", "seconds"), [("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600)])
def test_a_key_expires_after_a_time(run: Run, when: str, seconds: float) -> None:
    found = made(run, "create", "--client", "acme", "--scope", "read", "--expires", when)
    assert seconds_from_now(found["expiresAt"]) == pytest.approx(seconds, abs=60)


def test_a_key_may_have_limits_of_its_own_which_rotation_keeps(run: Run) -> None:
    key = made(run, "create", "--client", "acme", "--scope", "read", "--limit", "requests=10/20", "concurrent=4")
    made(run, "rotate", key["id"])
    (one, other) = (key["limits"] for key in listed(run))
    assert one == other
    assert one["concurrent"] == 4
    assert run("list").count("requests=10/20,concurrent=4") == 2
    with pytest.raises(BadParameter, match="wishes"):
        run("create", "--client", "acme", "--scope", "read", "--limit", "wishes=3")


def test_a_key_works_to_the_end_of_its_last_day(run: Run) -> None:
    day = f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%d}"
    found = made(run, "create", "--client", "acme", "--scope", "read", "--expires", day)
    assert found["expiresAt"] == f"{day}T23:59:59Z"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--client", "acme"], "Say what the key allows: --scope"),
        (["create", "--client", "acme", "--scope", ""], "A scope is one of search, read, write, admin"),
        (["create", "--client", "acme", "--scope", "search,all"], "not 'all'"),
        (["create", "--scope", "search"], "Name the client"),
        (["create", "--client", "acme", "--scope", "admin"], "is every client's"),
        (["create", "--client", "acme", "--scope", "read,admin"], "is every client's"),
        (["create", "--client", "", "--scope", "read"], "The client must be"),
        (["create", "--client", "*", "--scope", "read"], "The client must be"),
        (["create", "--client", "acme", "--scope", "read", "--name", ""], "1 to 200 characters"),
        (["create", "--client", "acme", "--scope", "read", "--name", "a\nb"], "printable"),
        (["create", "--client", "acme", "--scope", "read", "--name", "x" * 201], "1 to 200 characters"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "soon"], "90d, 12h, 30m or 2w, or a day"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "1.5d"], "90d"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "0d"], "would be expired"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "2020-01-31"], "would be expired"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "2027-02-30"], "there is no day"),
        (["create", "--client", "acme", "--scope", "read", "--expires", "9999999w"], "90d"),
        (["rotate", "abcdefghijkl", "--grace", "long"], "--grace accepts a time"),
        (["rotate", "abcdefghijkl"], "There is no key 'abcdefghijkl'"),
        (["revoke", "'; DROP TABLE products; --"], "There is no key"),
        (["on"], "There is no key that could be used"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_sentence_and_changes_nothing(
    run: Run, database_url: str, words: list[str], said: str
) -> None:
    with pytest.raises(BadParameter) as refused:
        run(*words)
    assert said in refused.value.sentence
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_keys") == [(0,)]
    assert not on(database_url)


def test_arguments_are_looked_at_before_a_database_is_begun() -> None:
    parser = argparse.ArgumentParser()
    keys.add_arguments(parser)
    with pytest.raises(BadParameter):
        keys.run(Settings(database_url="postgresql://127.0.0.1:1/none"), parser.parse_args(["create"]))


def test_rotation_gives_a_key_like_the_old_one_which_works_for_a_while(run: Run) -> None:
    old = made(run, "create", "--client", "acme", "--scope", "search,write", "--name", "shop")
    new = made(run, "rotate", old["id"])
    assert (new["clientId"], new["scopes"], new["name"]) == ("acme", ["search", "write"], "shop")
    assert (new["replaces"], new["expiresAt"]) == (old["id"], None)
    assert new["key"] != old["key"]
    before, after = listed(run)
    assert (before["id"], before["state"]) == (old["id"], "usable")
    assert seconds_from_now(before["expiresAt"]) == pytest.approx(7 * 86_400, abs=60)
    assert (after["id"], after["state"], after["replaces"]) == (new["id"], "usable", old["id"])


def test_a_grace_period_never_lengthens_a_keys_life(run: Run) -> None:
    old = made(run, "create", "--client", "acme", "--scope", "read", "--expires", "1h")
    new = made(run, "rotate", old["id"], "--grace", "30d")
    before, after = listed(run)
    assert before["expiresAt"] == after["expiresAt"] == old["expiresAt"] == new["expiresAt"]


def test_without_grace_the_old_key_ends_at_once_and_cannot_be_rotated_again(run: Run) -> None:
    old = made(run, "create", "--client", "acme", "--scope", "read")
    run("rotate", old["id"], "--grace", "0d")
    assert [one["state"] for one in listed(run)] == ["expired", "usable"]
    with pytest.raises(BadParameter, match="expired already"):
        run("rotate", old["id"])


def test_a_revoked_key_stays_revoked(run: Run) -> None:
    key = made(run, "create", "--client", "acme", "--scope", "read")
    assert "No key is left that could be used" in run("revoke", key["id"])
    (first,) = listed(run)
    assert first["state"] == "revoked"
    run("revoke", key["id"])
    assert listed(run) == [first]
    with pytest.raises(BadParameter, match="revoked already"):
        run("rotate", key["id"])


def test_the_list_can_be_of_one_client(run: Run) -> None:
    for client in ("acme", "other"):
        run("create", "--client", client, "--scope", "read")
    run("create", "--scope", "admin")
    assert [one["clientId"] for one in listed(run)] == ["acme", "other", None]
    assert [one["clientId"] for one in listed(run, "--client", "other")] == ["other"]


def test_keys_stay_on_until_they_are_turned_off_and_come_back_with_on_or_a_new_key(run: Run, database_url: str) -> None:
    key = made(run, "create", "--client", "acme", "--scope", "read")
    run("revoke", key["id"])
    assert on(database_url)
    said = run("off")
    assert not on(database_url)
    assert "read, change and delete every client's catalogue" in said
    with pytest.raises(BadParameter, match="every caller would be refused"):
        run("on")
    new = made(run, "create", "--client", "acme", "--scope", "read")
    assert on(database_url)
    run("off")
    run("rotate", new["id"])
    assert not on(database_url), "a rotation changes nothing for those who call without"
    run("on")
    assert on(database_url)


def test_a_key_can_be_made_before_the_first_start(run: Run, bare_database_url: str) -> None:
    with pytest.raises(DatabaseUnusable):
        run("list", url=bare_database_url)
    assert run("create", "--client", "acme", "--scope", "read", url=bare_database_url)
    assert on(bare_database_url)


def test_a_database_of_an_older_version_is_left_to_migrate(run: Run, database_url: str) -> None:
    run_sql(database_url, "DELETE FROM twinlens_migrations WHERE number > 5")
    with pytest.raises(TwinlensError, match="python -m server migrate"):
        run("create", "--client", "acme", "--scope", "read")
