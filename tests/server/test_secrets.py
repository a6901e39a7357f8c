"""What is secret in a URL, and texts without it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from psycopg import conninfo

from server.secrets import check_database_url, read_secret, redacted, secrets_in, secrets_of


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (None, set()),
        ("postgresql://shop@db/shop", set()),
        ("postgresql://shop:hush@db/shop", {"hush"}),
        ("postgresql://shop:h%40sh@db/shop", {"h%40sh", "h@sh"}),
        ("postgresql://shop:hu?s=#h@db/shop?connect_timeout=3", {"hu?s=#h"}),
        ("postgresql:///shop?host=/run&password=hu%20sh&sslmode=require", {"hu%20sh", "hu sh"}),
        ("host=db password=hush dbname=shop", {"hush"}),
        (r"host=db password = 'hu\'sh' dbname=shop", {r"hu\'sh", "hu'sh"}),
        ("s3://key:hush@bucket/prefix", {"hush"}),
        ("https://store.example/shop?sig=hush", {"hush"}),
        ("/srv/pictures", set()),
    ],
)
def test_the_secrets_of_a_url(url: str | None, secrets: set[str]) -> None:
    assert secrets_of(url) == secrets


@pytest.mark.parametrize("url", ["postgresql://shop:hu?s=#h@db/shop", "postgresql://shop:h%40sh:h@db:1,two/shop"])
def test_what_counts_as_secret_is_what_libpq_takes_for_the_password(url: str) -> None:
    assert conninfo.conninfo_to_dict(check_database_url(url))["password"] in secrets_of(url)


def test_a_file_that_is_empty_for_a_moment_is_awaited(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch()
    threading.Timer(0.2, lambda: path.write_text("hush")).start()
    assert read_secret(path, patience=30) == "hush"


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    assert redacted("no user:hush@db, nor %68hush2", ["hush"]) == "no user:***@db, nor %68***2"


def test_a_very_short_secret_does_not_take_words_apart() -> None:
    assert redacted('password "p" of p: postgres', ["p"]) == 'password "***" of ***: postgres'


@pytest.mark.parametrize("age", [0, 3600])
def test_the_secrets_in_a_file_are_those_that_it_holds_now(tmp_path: Path, age: int) -> None:
    path = tmp_path / "secret"
    assert secrets_in(path) == set()
    for number, word in enumerate(("first", "other", "third")):
        path.write_text(f"postgresql://shop:{word}@db/shop")
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number) if age else None)
        assert secrets_in(path) == {word}
        assert secrets_in(path) == {word}
    path.write_text("")
    assert secrets_in(path) == set()
