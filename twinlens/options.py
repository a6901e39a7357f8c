"""How a client calls: where the server is, as whom, and how patiently."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"

URL_VARIABLE = "TWINLENS_URL"
KEY_VARIABLE = "TWINLENS_KEY"
KEY_FILE_VARIABLE = "TWINLENS_KEY_FILE"
CLIENT_VARIABLE = "TWINLENS_CLIENT"


@dataclass(frozen=True, slots=True)
class Options:
    """What `Client` and `AsyncClient` are made with. Raises ValueError with a sentence for what makes no sense."""

    url: str = DEFAULT_URL
    key: str | None = field(default=None, repr=False)
    client: str | None = None
    deadline: float = 60.0
    """Seconds within which a call is answered, all its tries together."""
    retries: int = 4
    """How many times a call is tried again, at most."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"The server's URL must be like https://search.shop.example, not {self.url!r}.")
        if parts.username or parts.password:
            raise ValueError("The server's URL holds a user or a password; give the key as key= instead.")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise ValueError("The key has characters that no key of Twinlens has.")
        if not 0 < self.deadline < float("inf"):
            raise ValueError(f"The deadline must be a number of seconds above 0, not {self.deadline!r}.")
        if self.retries < 0:
            raise ValueError(f"The number of retries must be 0 or more, not {self.retries!r}.")

    @property
    def identity(self) -> str:
        """Which server, and whose catalogue, without any secret: what a journal is kept of."""
        key = re.match(r"twinlens_([a-z0-9]{12})_", self.key or "")
        return f"{self.url.rstrip('/')} {self.client or (key[1] if key else '')}"

    @classmethod
    def read(
        cls,
        url: str | None,
        key: str | None,
        client: str | None,
        *,
        deadline: float,
        retries: int,
        environment: Mapping[str, str] = os.environ,
    ) -> Options:
        """What is not given is taken from the environment: `TWINLENS_URL`, `TWINLENS_KEY` or the file that
        `TWINLENS_KEY_FILE` names, and `TWINLENS_CLIENT`. Raises OSError where that file cannot be read."""
        path = environment.get(KEY_FILE_VARIABLE)
        return cls(
            url=url or environment.get(URL_VARIABLE) or DEFAULT_URL,
            key=key or environment.get(KEY_VARIABLE) or (key_in(path) if path else None),
            client=client or environment.get(CLIENT_VARIABLE) or None,
            deadline=deadline,
            retries=retries,
        )

    def changed(
        self, *, client: str | None = None, deadline: float | None = None, retries: int | None = None
    ) -> Options:
        """The same with those that are given."""
        return replace(
            self,
            client=self.client if client is None else client,
            deadline=self.deadline if deadline is None else deadline,
            retries=self.retries if retries is None else retries,
        )


def key_in(path: str) -> str:
    """The key that a file holds. Raises OSError, and ValueError where there is none."""
    key = Path(path).read_text().strip()
    if not key:
        raise ValueError(f"{path} holds no key.")
    return key
