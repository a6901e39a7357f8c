"""python -m server sweep, and python -m server store."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from types import ModuleType

import pytest

from server.commands import store as store_command
from server.commands import sweep as sweep_command
from server.errors import StoreRefused, SweepRefused
from server.ingest.mark import settle
from server.ingest.storage import MARK, MediaStore
from server.settings import Settings
from tests.support.databases import run_sql


class Shop:
    """A database with one picture, its store, and commands that are run on both."""

    def __init__(self, url: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.folder, self.settings = url, data / "media", Settings(data=data)
        self._capsys = capsys
        settle(url, MediaStore.at(None, self.folder))
        run_sql(url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'P')""")
        insert = """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p', 'acme', %s)"""
        self.key = f"media/acme/{0:032x}.png"
        run_sql(url, insert, (f"{0:032x}", self.key))
        self.put(self.key)

    def put(self, *keys: str) -> None:
        async def put() -> None:
            for key in keys:
                await MediaStore.at(None, self.folder).put(key, b"12345")

        asyncio.run(put())

    @property
    def objects(self) -> set[str]:
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return found - {MARK}

    def run(self, command: ModuleType, *words: str, code: int = 0) -> str:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        assert command.run(self.settings, parser.parse_args(words), self.url) == code
        return self._capsys.readouterr().out


@pytest.fixture
def shop(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(database_url, tmp_path / "data", capsys)


def test_a_dry_run_says_what_a_sweep_then_removes(shop: Shop) -> None:
    orphans = {f"media/acme/{number:032x}.png" for number in (1, 2)}
    shop.put(*orphans)
    assert "3 objects, 0 of which" in shop.run(sweep_command)  # younger than an hour
    said = shop.run(sweep_command, "--dry-run", "--older-than", "0")
    assert f"{shop.folder} holds 3 objects, 2 of which" in said
    assert "10 bytes" in said
    assert shop.objects == {shop.key, *orphans}
    assert "Removed 2 objects" in shop.run(sweep_command, "--older-than", "0")
    assert shop.objects == {shop.key}
    assert "Removed 0 objects" in shop.run(sweep_command, "--older-than", "0")


def test_removing_most_of_the_store_takes_a_yes(shop: Shop) -> None:
    shop.put(*(f"media/acme/{number:032x}.png" for number in range(1, 102)))
    with pytest.raises(SweepRefused, match="most of the store"):
        shop.run(sweep_command, "--older-than", "0")
    assert len(shop.objects) == 102
    assert "Removed 101 objects" in shop.run(sweep_command, "--older-than", "0", "--yes")
    assert shop.objects == {shop.key}


def test_removing_all_of_a_small_store_takes_a_yes_as_well(shop: Shop) -> None:
    run_sql(shop.url, "DELETE FROM media")
    with pytest.raises(SweepRefused, match="most of the store"):
        shop.run(sweep_command, "--older-than", "0")
    assert shop.objects == {shop.key}
    assert "Removed 1 object." in shop.run(sweep_command, "--older-than", "0", "--yes")


def test_another_store_is_not_swept(shop: Shop) -> None:
    shop.put(f"media/acme/{1:032x}.png")
    (shop.folder / MARK).unlink()
    with pytest.raises(StoreRefused, match="lacks"):
        shop.run(sweep_command, "--older-than", "0")
    assert len(shop.objects) == 2


def test_the_store_is_shown_and_adopted(shop: Shop) -> None:
    assert f"{shop.folder} is this database's store" in shop.run(store_command)
    (shop.folder / MARK).unlink()
    assert "not mounted" in shop.run(store_command, code=1)
    assert "Pictures looked for in it: 1; found: 1." in shop.run(store_command, "--adopt")
    assert f"{shop.folder} is this database's store" in shop.run(store_command)


def test_a_store_without_the_pictures_is_adopted_with_a_yes_only(shop: Shop) -> None:
    shop.folder.rename(shop.folder.with_name("elsewhere"))
    with pytest.raises(StoreRefused, match="none of 1"):
        shop.run(store_command, "--adopt")
    assert "found: 0" in shop.run(store_command, "--adopt", "--yes")
    assert f"{shop.folder} is this database's store" in shop.run(store_command)
