"""What a fuzzed server holds: keys of every kind, and a client whose catalogue nobody changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import psycopg

from bench import pictures
from bench.fuzz.talk import Asked, ask
from server.access import stored_keys
from server.access.keys import digest_of, id_of
from server.access.scopes import Scope
from server.access.stored_keys import Wanted

STEADY, CHANGING = "steady", "changing"
"""Clients: the one is only searched, the other is written to at random."""

ATTRIBUTES = {"colour": "red", "price": 10, "on sale": True}
"""Of the steady client's only product."""

_PICTURE = pictures.ROOT / "server" / "ingest" / "demo_catalogue" / "pictures" / "keyboard.webp"
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Shop:
    """Keys by what they are."""

    writer: str
    """May read and write the changing client's."""
    searcher: str
    """May search the steady client's."""
    admin: str
    expired: str
    revoked: str
    picture: bytes

    @property
    def good(self) -> tuple[str, ...]:
        return self.writer, self.searcher, self.admin


def fill(url: str, port: int) -> Shop:
    """Make the steady client's catalogue while no key is needed yet, and then the keys, on the database at `url`.

    Returns once keys are needed. Raises RuntimeError where that takes long.
    """
    picture = _PICTURE.read_bytes()
    product = {"name": "Keyboard", "clientId": STEADY, "attributes": ATTRIBUTES}
    path, boundary = b"/v1/products/keyboard", b"a-line-that-no-picture-holds"
    json_body = (b"Content-Type", b"application/json")
    ask(port, Asked("product", "PUT", path, headers=[json_body], body=json.dumps(product).encode()))
    form = (b"Content-Type", b"multipart/form-data; boundary=" + boundary)
    part = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n%s\r\n--%s--\r\n'
    media = path + b"/media?clientId=" + STEADY.encode()
    added = ask(port, Asked("media", "POST", media, headers=[form], body=part % (boundary, picture, boundary)))
    if added.status not in (200, 201):
        raise RuntimeError(f"the catalogue could not be made: {added.status} {added.body[:200]!r}")
    with psycopg.connect(url) as connection:
        shop = Shop(
            writer=_key(connection, CHANGING, "write", "search"),
            searcher=_key(connection, STEADY, "search"),
            admin=_key(connection, None, "admin"),
            expired=_key(connection, CHANGING, "write"),
            revoked=_key(connection, CHANGING, "write"),
            picture=picture,
        )
        stored_keys.revoke(connection, id_of(shop.revoked) or "")
        connection.execute('UPDATE twinlens_keys SET "expiresAt" = now() WHERE digest = %s', [digest_of(shop.expired)])
    deadline = monotonic() + _PATIENCE
    while ask(port, Asked("keys", "GET", path)).status != 401:
        if monotonic() > deadline:
            raise RuntimeError("the server still needs no key")
        sleep(0.1)
    return shop


def _key(connection: psycopg.Connection[Any], client: str | None, *scopes: Scope) -> str:
    return stored_keys.create(connection, Wanted(client, scopes)).key
