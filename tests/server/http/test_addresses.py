"""Where a request comes from."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, cast

import pytest

from server.http.addresses import caller_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def scope(peer: str | None, *forwarded: str) -> Any:
    return cast(
        "Any",
        {
            "client": (peer, 1234) if peer is not None else None,
            "headers": [(b"x-forwarded-for", one.encode("latin-1")) for one in forwarded],
        },
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # no proxy of ours said it
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),  # the caller wrote the first one
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7, 10.0.0.9"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, ü\x00'; --"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [", ".join(["10.0.0.2"] * 10_000)], "10.0.0.2"),
        (None, ["198.51.100.7"], None),
        ("a socket", ["198.51.100.7"], None),
    ],
)
def test_only_what_trusted_proxies_say_is_believed(peer: str | None, forwarded: list[str], address: str | None) -> None:
    assert caller_of(scope(peer, *forwarded), PROXIES) == address


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    assert caller_of(scope("10.0.0.1", "198.51.100.7"), ()) == "10.0.0.1"
