"""Whose limits hold for a caller, and what they are now: those of its key, its search key and its client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.access.keyring import Keyring
from server.access.limits import Limiter, LocalLimiter
from server.access.scopes import Principal
from server.limits import UNLIMITED, Limits

KEY, SEARCH_KEY, CLIENT = "key", "search key", "client"
"""Whose limits there are: with a blank and an id behind it, these are the subjects of allowances."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits in force, and the limiter that keeps account of them."""

    keyring: Keyring
    limiter: Limiter
    of_keys: Limits = UNLIMITED
    """Of each key that has no other ones of its own; and of each client likewise."""
    of_clients: Limits = UNLIMITED
    workers: int = 1
    """How many of the server's processes share the limits."""

    def of_caller(self, principal: Principal) -> Iterator[tuple[str, Limits]]:
        """The subjects for whom a caller's request counts, as far as its key says; those that have limits."""
        if principal.key_id is not None and (limits := Limits.of(principal.limits).beside(self.of_keys)):
            yield f"{KEY} {principal.key_id}", self._share(limits)
        narrowing = principal.narrowing
        if narrowing is not None and narrowing.rate is not None:
            yield f"{SEARCH_KEY} {narrowing.id}", self._share(Limits.of_rate(narrowing.rate))
        if principal.client_id is not None:
            yield from self.of_client(principal.client_id)

    def of_client(self, client_id: str) -> Iterator[tuple[str, Limits]]:
        """The client as a subject, where it has limits."""
        if limits := Limits.of(self.keyring.client_limits.get(client_id, {})).beside(self.of_clients):
            yield f"{CLIENT} {client_id}", self._share(limits)

    def _share(self, limits: Limits) -> Limits:
        """What of these limits this process gives out by itself."""
        return limits.share(self.workers, all_of_it=isinstance(self.limiter, LocalLimiter))
