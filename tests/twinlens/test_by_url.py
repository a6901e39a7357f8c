"""Pictures that the server fetches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import twinlens
from tests.support.databases import fresh_database
from tests.support.picture_host import PictureHost, answer, picture_host
from tests.support.process import Process
from tests.support.served import ABACUS, KEYBOARD
from twinlens import Client
from twinlens.commands.main import main


@pytest.fixture(scope="module")
def host() -> Iterator[PictureHost]:
    with picture_host() as host:
        host.answers["/keyboard"] = answer(KEYBOARD.read_bytes())
        host.answers["/abacus"] = answer(ABACUS.read_bytes())
        yield host


@pytest.fixture(scope="module")
def fetching(
    host: PictureHost, postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server without keys that fetches from the host."""
    with fresh_database(postgres_url, template_database) as url:
        flags = ("--database-url", url, "--fetch-hosts", f"localhost:{host.port}")
        process = Process(tmp_path_factory.mktemp("fetching"), *flags, from_this_machine=True)
        try:
            yield process.ready().url
        finally:
            process.stop()


@pytest.fixture
def client(fetching: str, client_id: str) -> Iterator[Client]:
    with Client(fetching, client=client_id) as client:
        yield client


def test_a_media_is_added_by_its_url(client: Client, host: PictureHost) -> None:
    client.put_product("p", name="P")
    media = client.add_media("p", url=host.url("/keyboard"))
    assert client.get_file(media.id) == KEYBOARD.read_bytes()
    assert client.add_media("p", KEYBOARD).id == media.id
    client.put_product("q", name="Q")
    assert client.put_media("front", product_id="q", url=host.url("/keyboard")).id == "front"
    assert client.get_file("front") == KEYBOARD.read_bytes()
    with pytest.raises(twinlens.Unprocessable) as refused:
        client.add_media("p", url="https://elsewhere.example/x.jpg")
    assert refused.value.code == "url_refused"
    with pytest.raises(twinlens.FailedDependency) as failed:
        client.add_media("p", url=host.url("/none"))
    assert failed.value.code == "fetch_failed"
    with pytest.raises(ValueError, match="exactly one"):
        client.add_media("p")


def test_a_table_names_pictures_by_their_urls(
    client: Client, host: PictureHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed = tmp_path / "feed.csv"
    pages = [host.url(path) for path in ("/keyboard", "/abacus", "/none")]
    feed.write_text("productId,url\n" + "".join(f"p,{page}\n" for page in pages))
    words = ["push", str(feed), "--url", client.options.url, "--client", client.options.client or "", "--no-journal"]
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("Products: 1 new.\nPictures: 2 added.\nFailed: 1.\n")
    assert "/none" in printed
    assert [match.product_id for match in client.search(ABACUS, min_grade="identical").results] == ["p"]
