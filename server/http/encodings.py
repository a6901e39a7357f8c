"""Bodies that come compressed: gzip is read, everything else is refused by name."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from server.errors import MalformedRequest, UnsupportedEncoding, UploadTooLarge

GZIP = "gzip"

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# Inflated at a time: a few bytes can become a thousand times as many.
_PIECE = 262_144


def inflated(chunks: AsyncIterator[bytes], encoding: str, most: int) -> AsyncIterator[bytes]:
    """The body as it was before it was compressed; `encoding`: what its Content-Encoding says.

    Raises UnsupportedEncoding, and while it is read MalformedRequest for what is no complete gzip, and UploadTooLarge
    beyond `most` bytes.
    """
    names = [name for name in (one.strip().lower() for one in encoding.split(",")) if name not in ("", "identity")]
    if not names:
        return chunks
    if names not in (["gzip"], ["x-gzip"]):
        raise UnsupportedEncoding(
            f"The Content-Encoding {encoding[:40]!r} is not read here: send the body as it is, or as {GZIP}."
        )
    return _gunzipped(chunks, most)


async def _gunzipped(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    member = zlib.decompressobj(_GZIP_WINDOW)
    begun = False
    async for chunk in chunks:
        rest, more = chunk, bool(chunk)
        while more:
            if member.eof:  # a gzip may be several, one after the other
                member = zlib.decompressobj(_GZIP_WINDOW)
            begun = True
            try:
                piece = member.decompress(rest, _PIECE)
            except zlib.error as exc:
                raise MalformedRequest(f"The body is no {GZIP}, as its Content-Encoding says.") from exc
            rest = member.unused_data if member.eof else member.unconsumed_tail
            # A full piece may leave more inside, also where all that came has been taken in.
            full = len(piece) == _PIECE
            more = bool(rest) or (full and not member.eof)
            most -= len(piece)
            if most < 0:
                raise UploadTooLarge("The body is larger than this server accepts, once it is decompressed.")
            if piece:
                yield piece
            if full:
                await asyncio.sleep(0)  # others must not wait for all of it
    if begun and not member.eof:
        raise MalformedRequest(f"The body is a {GZIP} that is cut short.")
