"""python -m server worker: what it prints, and how it ends; spaces/test_worker.py has the processes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from server.commands import worker
from server.settings import Settings
from tests import STARTER
from tests.support.pending import OtherSystem, picture


class Shop(OtherSystem):
    """With the command that is run on its database and its store."""

    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str, code: int = 0) -> str:
        """What the command prints."""
        parser = argparse.ArgumentParser()
        worker.add_arguments(parser)
        settings = Settings(
            database_url=self.url, data=self.store.parent, model=STARTER, device="cpu", threads=2, batch=8
        )
        assert worker.run(settings, parser.parse_args(words), self.url) == code
        return self.capsys.readouterr().out


@pytest.fixture
def shop(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    made = Shop(database_url, tmp_path / "media")
    made.capsys = capsys
    return made


def test_a_run_once_says_what_came_of_it_and_its_exit_code_does_too(shop: Shop) -> None:
    shop.add("good", picture(1))
    assert shop.run("--once") == "1 picture embedded, 0 set aside as failed, 0 to be tried again later.\n"
    shop.add("poem", b"a poem")
    shop.add("missing")
    found = json.loads(shop.run("--once", "--json", code=1))
    assert found == {"embedded": 0, "setAside": 1, "putOff": 1, "changed": 0, "stopped": False}
    assert json.loads(shop.run("--once", "--json"))["embedded"] == 0


def test_the_status_says_how_many_wait_and_why_others_were_set_aside(shop: Shop) -> None:
    shop.add("poem", b"a poem")
    shop.add("missing")
    shop.run("--once", code=1)
    shop.add("new", picture(1))
    assert shop.run("--status", code=1).splitlines() == [
        "Pending: 1 that nobody has tried, 0 that are being tried, 1 to be tried again. Set aside as failed: 1.",
        "         1  set aside: not_a_picture: The upload is not a picture in a format we read: JPEG, PNG, WebP, GIF, "
        "BMP, TIFF, AVIF or HEIC. (such as poem)",
        "         1  put off: bytes_missing: The bytes of this picture are not in the media store, although the "
        "catalogue has the picture. (such as missing)",
    ]
    found = json.loads(shop.run("--status", "--json", code=1))
    assert {name: found[name] for name in ("waiting", "tried", "putOff", "setAside")} == {
        "waiting": 1,
        "tried": 0,
        "putOff": 1,
        "setAside": 1,
    }
    assert [(one["code"], one["setAside"], one["example"]) for one in found["reasons"]] == [
        ("not_a_picture", True, "poem"),
        ("bytes_missing", False, "missing"),
    ]


def test_what_was_set_aside_is_put_back(shop: Shop) -> None:
    shop.add("poem", b"a poem")
    shop.run("--once", code=1)
    shop.put("uploads/poem", picture(1))
    assert shop.run("--retry-failed") == "1 picture put back. Workers that run try them again at once.\n"
    assert json.loads(shop.run("--retry-failed", "--json")) == {"putBack": 0}
    assert shop.run("--once").startswith("1 picture embedded")
    assert shop.run("--status").endswith("Set aside as failed: 0.\n")


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon"])
def test_a_pause_between_looks_that_makes_no_sense_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    worker.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--poll", given])
    assert "a number of seconds, at least 0.1" in capsys.readouterr().err
