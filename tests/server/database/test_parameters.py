"""The parameters of connections."""

from __future__ import annotations

import psycopg
import pytest

from server.database.parameters import parameters_of


def test_a_peer_that_vanishes_is_noticed_unless_the_url_says_otherwise() -> None:
    ours = parameters_of("postgresql://db.example/shop", connect_timeout=5)
    assert (ours["host"], ours["dbname"], ours["connect_timeout"]) == ("db.example", "shop", 5)
    assert ours["tcp_user_timeout"] == 10_000
    assert {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"} <= ours.keys()
    options = "connect_timeout=7&keepalives_idle=60&tcp_user_timeout=1000"
    theirs = parameters_of(f"postgresql://db.example/shop?{options}", connect_timeout=5)
    asked = (theirs["connect_timeout"], theirs["keepalives_idle"], theirs["tcp_user_timeout"])
    assert tuple(map(int, asked)) == (7, 60, 1000)


def test_each_turn_begins_with_another_server_of_the_url() -> None:
    url = "postgresql://one:1,two:2,three:3/shop?target_session_attrs=read-write"
    turns = [parameters_of(url, connect_timeout=5, turn=turn) for turn in range(4)]
    assert [turn["host"] for turn in turns] == ["one,two,three", "two,three,one", "three,one,two", "one,two,three"]
    assert [turn["port"] for turn in turns] == ["1,2,3", "2,3,1", "3,1,2", "1,2,3"]
    assert {turn["target_session_attrs"] for turn in turns} == {"read-write"}
    one_port = parameters_of("host=one,two port=5433 dbname=shop", connect_timeout=5, turn=1)
    assert (one_port["host"], one_port["port"]) == ("two,one", "5433")


def test_a_url_that_cannot_be_read_is_psycopgs_error() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        parameters_of("hunter2", connect_timeout=5)
