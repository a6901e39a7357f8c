from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from server.commands.serve import _environment
from server.errors import BadSetting
from server.settings import Settings, variable_of
from tests import ROOT


def test_nothing_given_gives_the_defaults() -> None:
    settings = Settings.read({})
    assert (settings.host, settings.port, settings.device, settings.demo) == ("127.0.0.1", 8000, "auto", False)
    assert settings.model == Path("models/starter")


def test_a_flag_wins_over_its_variable() -> None:
    assert Settings.read({"TWINLENS_PORT": "9000"}).port == 9000
    assert Settings.read({"TWINLENS_PORT": "9000"}, {"port": "9001"}).port == 9001


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read({"TWINLENS_DATABASE_URL": ""}).database_url is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAX_UPLOAD", "32 MB", 32_000_000),
        ("MAX_UPLOAD", "1MiB", 1_048_576),
        ("MAX_UPLOAD", "5000", 5000),
        ("DEADLINE", "2.5", 2.5),
        ("DEADLINE", "30 s", 30.0),
        ("DEMO", "on", True),
        ("DEMO", "0", False),
        ("DEVICE", "cuda", "cuda"),
        ("THREADS", "4", 4),
        ("WORKERS", "auto", None),
        ("CACHE", "0", 0),
        ("CACHE", "1 MB", 1_000_000),
        ("BODY_MEMORY", "auto", None),
        ("BODY_MEMORY", "1GB", 1_000_000_000),
    ],
)
def test_values_are_read_as_people_write_them(name: str, text: str, value: bool | float | int | str | None) -> None:
    assert getattr(Settings.read({f"TWINLENS_{name}": text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("MAX_UPLOAD", "32 parsecs"),
        ("MAX_UPLOAD", "0"),
        ("MAX_PIXELS", "-1"),
        ("DEADLINE", "0"),
        ("DEADLINE", "soon"),
        ("DEVICE", "tpu"),
        ("PRECISION", "fp64"),
        ("DEMO", "maybe"),
        ("BATCH", "0"),
        ("BATCH", "100000000"),
        ("THREADS", "all"),
    ],
)
def test_a_bad_value_names_the_setting_and_the_values_it_accepts(name: str, text: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings.read({f"TWINLENS_{name}": text})
    assert f"TWINLENS_{name} must be" in caught.value.sentence
    assert repr(text) in caught.value.sentence


def test_the_memory_of_bodies_follows_the_largest_body_and_has_room_for_two() -> None:
    assert Settings.read({}).memory_of_bodies == 512_000_000
    assert Settings.read({"TWINLENS_MAX_UPLOAD": "2GB"}).memory_of_bodies == 32_000_000_000
    assert Settings.read({"TWINLENS_BODY_MEMORY": "64MB"}).memory_of_bodies == 64_000_000
    with pytest.raises(BadSetting, match="TWINLENS_BODY_MEMORY must be at least twice TWINLENS_MAX_UPLOAD"):
        Settings.read({"TWINLENS_BODY_MEMORY": "63MB"})


def test_a_misspelt_variable_is_not_ignored() -> None:
    with pytest.raises(BadSetting, match="TWINLENS_PROT is not a setting"):
        Settings.read({"TWINLENS_PROT": "9000"})


def test_without_keys_only_loopback_is_bound_unless_the_network_is_trusted() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        assert not Settings.read({"TWINLENS_HOST": host}).exposed
    for host in ("0.0.0.0", "::", "192.168.1.5", "shop.example"):
        with pytest.raises(BadSetting, match="TWINLENS_TRUST_NETWORK"):
            Settings.read({"TWINLENS_HOST": host})
        assert Settings.read({"TWINLENS_HOST": host, "TWINLENS_TRUST_NETWORK": "on"}).exposed


def test_secrets_do_not_print() -> None:
    settings = Settings.read({"TWINLENS_DATABASE_URL": "postgresql://shop:s3cret@db/shop"})
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("name", [one.name for one in fields(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert f"`{variable_of(name)}`" in operations
    makefile = (ROOT / "Makefile").read_text()
    assert f" {name.upper()}" in makefile


def test_a_worker_reads_what_its_parent_has_read() -> None:
    given = Settings(deadline=0.00001, workers=3, batch=4, cache=0, demo=True, device="cpu", data=Path("there"))
    read = Settings.read(_environment(given, "postgresql://x"))
    assert read == replace(given, database_url="postgresql://x")
