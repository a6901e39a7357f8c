"""What both clients are made of, whether they wait or are awaited."""

from __future__ import annotations

from copy import copy
from typing import Self

from twinlens.calls import Calls
from twinlens.options import Options


class Base(Calls):
    """The calls, and the options that they are made with."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        client: str | None = None,
        deadline: float = 60.0,
        retries: int = 4,
    ) -> None:
        """`url`: the server's address, else TWINLENS_URL, else http://127.0.0.1:8000. `key`: else TWINLENS_KEY, or the
        file that TWINLENS_KEY_FILE names. `client`: whose catalogue, where the key does not say it, else
        TWINLENS_CLIENT. `deadline`: seconds for a call, all its tries together. `retries`: at most so many tries after
        the first, where the server is busy or cannot be reached; they honour its Retry-After.

        Nothing is sent yet. Raises ValueError for what makes no sense, OSError where the key's file cannot be read.
        """
        self._options = Options.read(url, key, client, deadline=deadline, retries=retries)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options})"

    @property
    def options(self) -> Options:
        """How this client calls."""
        return self._options

    def with_options(
        self, *, client: str | None = None, deadline: float | None = None, retries: int | None = None
    ) -> Self:
        """The same client with other options where they are given. Both share their connections, and are closed
        together."""
        other = copy(self)
        other._options = self._options.changed(client=client, deadline=deadline, retries=retries)
        return other
