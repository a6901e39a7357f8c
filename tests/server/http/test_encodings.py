"""Compressed bodies: gzip is read as it comes, within the bound of bodies that are not compressed."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import pytest

from server.errors import MalformedRequest, UnsupportedEncoding, UploadTooLarge
from server.http.encodings import inflated
from tests.support.process import KEYBOARD
from tests.support.serving import Client

MOST = 4_000_000

asynchronously = pytest.mark.anyio


async def chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def whole(data: bytes, encoding: str = "gzip", size: int = 65_536, most: int = MOST) -> bytes:
    return b"".join([piece async for piece in inflated(chunks(data, size), encoding, most)])


@asynchronously
@pytest.mark.parametrize("size", [1, 17, 1000, 1_000_000])
@pytest.mark.parametrize("data", [b"a", KEYBOARD, bytes(MOST), bytes(262_144), bytes(2 * 262_144)])
async def test_a_gzip_is_read_whatever_pieces_it_comes_in(data: bytes, size: int) -> None:
    assert await whole(gzip.compress(data), size=size) == data


@asynchronously
async def test_several_gzips_in_a_row_are_one_body() -> None:
    assert await whole(gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")) == b"one two"


@asynchronously
@pytest.mark.parametrize("encoding", ["", "identity", " Identity , identity"])
async def test_what_is_not_compressed_is_left_as_it_is(encoding: str) -> None:
    assert await whole(KEYBOARD, encoding) == KEYBOARD


@asynchronously
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity, gzip"])
async def test_the_names_of_gzip_are_known(encoding: str) -> None:
    assert await whole(gzip.compress(KEYBOARD), encoding) == KEYBOARD


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "compress", "nonsense"])
def test_another_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match=encoding):
        inflated(chunks(b"", 1), encoding, MOST)


@asynchronously
@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(KEYBOARD)[:-9], zlib.compress(KEYBOARD), gzip.compress(b"x") + b"rest"],
    ids=["no gzip", "cut short", "zlib", "something behind it"],  # gzip's own bytes hold the time
)
async def test_what_is_no_complete_gzip_is_a_malformed_body(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match="gzip"):
        await whole(data)


@asynchronously
async def test_a_small_body_that_would_become_huge_is_refused_before_it_does() -> None:
    bomb = b"".join(gzip.compress(bytes(10_000_000)) for _ in range(100))  # 1 GB in 1 MB
    tracemalloc.start()
    try:
        with pytest.raises(UploadTooLarge):
            async for _ in inflated(chunks(bomb, 65_536), "gzip", MOST):
                pass
        assert tracemalloc.get_traced_memory()[1] < 2 * MOST
    finally:
        tracemalloc.stop()


def form(data: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    return head + data + b"\r\n--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}


def test_a_compressed_picture_and_a_compressed_search_are_answered_as_they_would_be_otherwise(api: Client) -> None:
    plain = api.post("/embed-image", content=form(KEYBOARD), headers=FORM).json()
    headers = {**FORM, "Content-Encoding": "gzip"}
    assert api.post("/embed-image", content=gzip.compress(form(KEYBOARD)), headers=headers).json() == plain
    body = json.dumps({"text": "a teapot"}).encode()
    answer = api.post("/v1/search", content=gzip.compress(body), headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.json()["results"] == api.post("/v1/search", content=body, headers=JSON).json()["results"]


def test_a_body_that_is_too_large_once_it_is_decompressed_is_refused(api: Client) -> None:
    large = gzip.compress(form(bytes(5_000_000)))
    answer = api.post("/embed-image", content=large, headers={**FORM, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    answer = api.post(
        "/v1/search", content=gzip.compress(b" " * 2_000_000), headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


def test_an_encoding_that_is_not_read_is_refused_with_the_one_that_is(api: Client) -> None:
    answer = api.post("/embed-image", content=form(KEYBOARD), headers={**FORM, "Content-Encoding": "zstd"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert "zstd" in answer.json()["error"]
    assert answer.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii"])
def test_json_in_utf_8_is_read_with_and_without_a_byte_order_mark(api: Client, charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    for mark in (b"", b"\xef\xbb\xbf"):
        assert api.post("/v1/search", content=mark + b'{"text": "a teapot"}', headers=headers).status_code == 200


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "iso-8859-1"])
def test_json_in_another_charset_is_refused_by_name(api: Client, charset: str) -> None:
    body = '{"text": "théière"}'.encode(charset)
    answer = api.post("/v1/search", content=body, headers={"Content-Type": f"application/json; charset={charset}"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_body")
    assert charset in answer.json()["error"]
