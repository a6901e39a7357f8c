"""python -m server limits: list, set, clear."""

from __future__ import annotations

import argparse

import pytest

from server.commands import limits as command_line
from server.errors import BadParameter, NotFound
from server.settings import Settings
from tests.support.databases import run_sql


def test_the_limits_of_a_client_are_set_listed_and_cleared(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> str:
        parser = argparse.ArgumentParser()
        command_line.add_arguments(parser)
        settings = Settings(client_limits="requests=5")
        assert command_line.run(settings, parser.parse_args(words), database_url) == 0
        return capsys.readouterr().out

    assert command() == "every other client: requests=5\n"
    before = run_sql(database_url, "SELECT version FROM twinlens_access")
    assert command("set", "--client", "acme", "--limit", "requests=10/20", "bytes=1GB") == (
        "acme: requests=10/20,bytes=1GB\n"
    )
    assert run_sql(database_url, "SELECT version FROM twinlens_access") != before  # servers look at it
    command("set", "--client", "acme", "--limit", "concurrent=3")
    assert command("list").splitlines()[0] == "acme: concurrent=3"
    assert command("list", "--client", "other") == "every other client: requests=5\n"
    command("clear", "--client", "acme")
    assert run_sql(database_url, "SELECT 1 FROM twinlens_limits") == []
    with pytest.raises(NotFound, match="acme"):
        command("clear", "--client", "acme")
    with pytest.raises(BadParameter, match="--client"):
        command("set", "--limit", "requests=1")
    with pytest.raises(BadParameter, match="requests=50/100"):
        command("set", "--client", "acme", "--limit", "requests=none")
