"""Keys: what they look like, what of them is stored, and the keys of a database.

A key is `twinlens_<id>_<secret>`: the id, 12 letters and digits, may be logged; the secret is 32 random bytes. Stored
is its SHA-256 alone. A slow hash, as for passwords, would gain nothing: it hinders those who guess, and nobody guesses
256 random bits. Digests are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from server.access.scopes import Principal, Scope, included

PREFIX = "twinlens"
"""What every key begins with, for those who look for keys that got into a repository."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12
_SECRET_BYTES = 32
_KEY = re.compile(rf"{PREFIX}_([a-z0-9]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")

_SEARCH_SECRET = b"twinlens search keys 1"


def new_key() -> tuple[str, str]:
    """A new id and the key that has it."""
    id_ = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    return id_, f"{PREFIX}_{id_}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def id_of(key: str) -> str | None:
    """The id of what has the form of a key; None otherwise."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def digest_of(key: str) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def search_secret_of(key: str) -> bytes:
    """What signs and verifies the search keys that are derived from this key: HMAC-SHA256, 32 bytes.

    `twinlens.search_keys` works out the same.
    """
    return hmac.digest(key.encode(), _SEARCH_SECRET, "sha256")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database has it."""

    id: str
    name: str | None
    client_id: str | None
    scopes: tuple[Scope, ...]
    digest: bytes
    search_secret: bytes | None
    limits: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaces: str | None

    def good_at(self, now: datetime) -> bool:
        """Whether it may be used at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def is_of(self, key: str) -> bool:
        """Whether this is the stored form of the key."""
        return hmac.compare_digest(self.digest, digest_of(key))

    @property
    def principal(self) -> Principal:
        """Who calls with it."""
        return Principal(included(self.scopes), self.client_id, self.id, limits=self.limits)
