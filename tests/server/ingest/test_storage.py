"""The media store: the same three calls on a folder and on an S3-compatible store."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.errors import BadSetting, BytesMissing, StorageFailed, StoreUnavailable
from server.ingest.storage import MediaStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["folder", "file-url", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    (tmp_path / "media").mkdir()
    if request.param == "folder":
        return MediaStore.at(None, tmp_path / "media")
    if request.param == "file-url":
        return MediaStore.at(f"file://{tmp_path}/media", tmp_path / "unused")
    return MediaStore.at(request.getfixturevalue("s3_url"), tmp_path / "unused")


async def test_what_was_put_is_got_until_it_is_deleted(store: MediaStore) -> None:
    key = "media/acme/abc.webp"
    await store.put(key, b"first")
    await store.put(key, b"second")
    assert await store.get(key) == b"second"
    await store.delete(key, "media/acme/never-there.webp")
    with pytest.raises(BytesMissing):
        await store.get(key)


async def test_an_object_and_its_folders_are_on_the_disk_when_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is committed next, and outlives a power cut: its bytes must not lie in memory alone."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    folder = tmp_path / "media"
    folder.mkdir()
    await MediaStore.at(None, folder).put("media/acme/abc.webp", b"bytes")
    named = ("media/acme/abc.webp", "media/acme", "media")
    assert synced == [*(str(folder / one) for one in named), str(folder)]


async def test_a_disk_that_fails_to_keep_an_object_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    (tmp_path / "media").mkdir()
    with pytest.raises(StoreUnavailable) as refusal:
        await MediaStore.at(None, tmp_path / "media").put("media/acme/abc.webp", b"bytes")
    assert "Input/output error" in refusal.value.reason


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    store = MediaStore.at(None, tmp_path / "media")
    (tmp_path / "media" / "acme").write_text("a file where a folder should be")
    with pytest.raises(StorageFailed):
        await store.put("acme/abc.webp", b"bytes")


async def test_ids_of_clients_are_listed_as_they_were_stored(store: MediaStore) -> None:
    """A key that was listed in another form would be taken for an orphan."""
    keys = {f"media/{client}/{at:032x}.webp" for at, client in enumerate(("a.b", "a:b@c", "_-", "A" * 128, "x" * 3))}
    keys |= {key.replace("media/", "thumbnails/") for key in keys}
    for key in keys:
        await store.put(key, b"12345")
    for key in ("media/acme/other.png", "media/acme/deeper/00000000000000000000000000000000.png", "notes.txt"):
        await store.put(key, b"of somebody else")
    listed = [one for page in [page async for page in store.pages()] for one in page]
    assert {one.key for one in listed} == keys
    assert len(listed) == len(keys)
    assert {one.bytes for one in listed} == {5}
    assert all(abs(datetime.now(UTC) - one.at) < timedelta(hours=1) for one in listed)
    await store.delete(*keys)
    assert [page for page in [page async for page in store.pages()] if page] == []


async def test_a_folder_that_is_not_there_is_unavailable_and_is_not_made(tmp_path: Path) -> None:
    store = MediaStore.at(None, tmp_path / "media")
    with pytest.raises(StoreUnavailable) as refused:
        await store.put("media/acme/abc.webp", b"bytes")
    assert "no folder" in refused.value.reason
    store.expected = "a" * 32
    with pytest.raises(StoreUnavailable):
        await store.get("media/acme/abc.webp")
    assert not (tmp_path / "media").exists()


async def test_an_s3_that_does_not_answer_is_unavailable_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "top-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = MediaStore.at("s3://pictures/twinlens", tmp_path)
    async with asyncio.timeout(20):  # it refuses connections; left to itself, obstore tries for three minutes
        with pytest.raises(StoreUnavailable) as refused:
            await store.put("media/acme/abc.webp", b"bytes")
    assert "top-secret" not in refused.value.line
    assert len(refused.value.line.splitlines()) == 1


async def test_a_key_that_no_store_can_have_is_a_fault_and_not_an_outage(tmp_path: Path) -> None:
    store = MediaStore.at(None, tmp_path)
    with pytest.raises(StorageFailed) as refused:
        await store.get("a//../b")
    assert not isinstance(refused.value, StoreUnavailable)


async def test_a_bucket_that_does_not_exist_is_unavailable_and_not_missing_bytes(s3_url: str, tmp_path: Path) -> None:
    store = MediaStore.at("s3://nowhere/twinlens", tmp_path)
    store.expected = "a" * 32
    for call in (store.get("media/acme/abc.webp"), store.put("media/acme/abc.webp", b"bytes"), store.look()):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_url_that_names_no_store_is_a_bad_setting(tmp_path: Path) -> None:
    for url in ("ftp://pictures", "s3://", "gopher://x/y"):
        with pytest.raises(BadSetting, match="TWINLENS_MEDIA_URL"):
            MediaStore.at(url, tmp_path)
