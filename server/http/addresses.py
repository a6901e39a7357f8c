"""Where a request comes from: the peer of its connection, or what proxies that are trusted say of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from litestar.types import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED = b"x-forwarded-for"
# A proxy adds one; a caller can send any number of them.
_MOST_HOPS = 20


def caller_of(scope: Scope, proxies: Sequence[Network]) -> str | None:
    """The address of a request's caller; None where its connection has none, as a Unix socket.

    Each proxy adds to X-Forwarded-For, at its end, whom it was called by. So the header is read from its end, for as
    long as the one who said it is a trusted proxy: what stands before that, the caller may have made up.
    """
    peer = scope.get("client")
    address = _address(peer[0]) if peer else None
    said = [value for name, value in scope["headers"] if name == _FORWARDED] if proxies else []
    if said and address is not None:
        for hop in reversed(b",".join(said).decode("latin-1").split(",")[-_MOST_HOPS:]):
            if not any(address in network for network in proxies):
                break
            before = _address(hop)
            if before is None:
                break
            address = before
    return str(address) if address is not None else None


def _address(text: str) -> Address | None:
    """An address with or without a port, as proxies write them; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
