"""What is secret in a URL, and texts without it."""

from __future__ import annotations

import pytest

from server.secrets import redacted, secrets_of


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (None, set()),
        ("postgresql://shop@db/shop", set()),
        ("postgresql://shop:hush@db/shop", {"hush"}),
        ("postgresql://shop:h%40sh@db/shop", {"h%40sh", "h@sh"}),
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


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    assert redacted("no user:hush@db, nor %68hush2", ["hush"]) == "no user:***@db, nor %68***2"


def test_a_very_short_secret_does_not_take_words_apart() -> None:
    assert redacted('password "p" of p: postgres', ["p"]) == 'password "***" of ***: postgres'
