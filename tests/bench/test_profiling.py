"""Where a request's time goes: the parts add up, threads are distinguished, the picture shows every load."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from bench.profiling import command, shares
from tests import STARTER
from tests.support.serving import Shop


def test_stages_and_what_is_left_of_the_wait_add_up_to_it() -> None:
    parts = shares.split("read;dur=1, decode;dur=4, queue;dur=2, encode;dur=10, total;dur=20", 25.0)
    assert parts == {"read": 1, "decode": 4, "queue": 2, "encode": 10, "server": 3, "http": 5}
    assert sum(parts.values()) == 25


def test_a_wait_without_a_total_is_http_beyond_its_stages() -> None:
    assert shares.split("decode;dur=4, encode;dur=10", 20.0) == {"decode": 4, "encode": 10, "http": 6}
    assert shares.split("", 20.0) == {"http": 20}


def test_threads_are_distinguished_by_their_names() -> None:
    assert shares.share_of("python", main=True) == "event loop"
    assert [shares.share_of(name, main=False) for name in ("encode-0", "decode-1", "tokio-rt-worker", "asyncio_0")] == [
        "encode",
        "decode",
        "http threads",
        "other threads",
    ]


@pytest.fixture(scope="module")
def run(
    new_shop: Callable[[], AbstractContextManager[Shop]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, Any], str]:
    """The command itself, as short as it can be, on a catalogue that is there already."""
    folder: Path = tmp_path_factory.mktemp("profile")
    svg, figures = folder / "where.svg", folder / "figures.json"
    arguments = ["--model", str(STARTER), "--callers", "2", "--rounds", "1", "--seconds", "1.5", "--pictures", "16"]
    with new_shop() as shop:
        where = ["--database-url", shop.database_url, "--data", str(shop.data)]
        server = shlex.join(["--threads", "1", "--batch", "4", *where])
        flags = [f"--server={server}", "--most", "-0.9", "--svg", str(svg), "--json", str(figures)]
        code = command.main([*arguments, *flags])
    return code, json.loads(figures.read_text()), svg.read_text()


def test_profile_splits_each_load_into_stages_and_core_seconds(run: tuple[int, dict[str, Any], str]) -> None:
    code, report, _ = run
    assert code == 1, "no server is ten times as cheap as the model alone"
    assert report["artifact"]["model"] == "twinlens/starter"
    assert report["bare"]["coreMilliseconds"] > 0
    loads = {(load["path"], load["callers"]): load for load in report["loads"]}
    assert set(loads) == {(path, 2) for path in command.PATHS}
    for (path, _), load in loads.items():
        assert {"read", "decode", "resize", "queue", "encode", "server", "http"} <= set(load["stages"])
        assert ("search" in load["stages"]) == (path == "/v1/search")
        # The threads are named, or decoding would be counted with the rest.
        assert load["coreMilliseconds"]["decode"] > 0
        assert load["coreMilliseconds"]["encode"] > 0
        assert sum(load["coreMilliseconds"].values()) == pytest.approx(load["coreMillisecondsOfServer"], rel=0.01)


def test_the_drawing_stands_alone_and_shows_every_load(run: tuple[int, dict[str, Any], str]) -> None:
    _, report, svg = run
    texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]
    for load in report["loads"]:
        assert texts.count(f"{load['path']}, 2 callers") == 2, "once with its time, once with its core-seconds"
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("HTTP", "")
