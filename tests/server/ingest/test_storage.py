"""The media store: the same three calls on a folder and on an S3-compatible store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from server.errors import BadSetting, MediaNotFound, StorageFailed
from server.ingest.storage import MediaStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 that speaks the protocol over loopback; its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "file-url", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaStore:
    if request.param == "folder":
        return MediaStore.at(None, tmp_path / "media")
    if request.param == "file-url":
        return MediaStore.at(f"file://{tmp_path}/media", tmp_path / "unused")
    import httpx

    endpoint = request.getfixturevalue("s3")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{endpoint}/pictures").raise_for_status()
    return MediaStore.at("s3://pictures/twinlens", tmp_path / "unused")


async def test_what_was_put_is_got_until_it_is_deleted(store: MediaStore) -> None:
    key = "media/acme/abc.webp"
    await store.put(key, b"first")
    await store.put(key, b"second")
    assert await store.get(key) == b"second"
    await store.delete(key, "media/acme/never-there.webp")
    with pytest.raises(MediaNotFound):
        await store.get(key)


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    store = MediaStore.at(None, tmp_path / "media")
    (tmp_path / "media" / "acme").write_text("a file where a folder should be")
    with pytest.raises(StorageFailed):
        await store.put("acme/abc.webp", b"bytes")


async def test_a_url_that_names_no_store_is_a_bad_setting(tmp_path: Path) -> None:
    for url in ("ftp://pictures", "s3://", "gopher://x/y"):
        with pytest.raises(BadSetting, match="TWINLENS_MEDIA_URL"):
            MediaStore.at(url, tmp_path)
