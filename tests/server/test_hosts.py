from __future__ import annotations

import pytest

from server.hosts import Host, allowed, is_name


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("cdn.example.com", ("https", "cdn.example.com", 443)),
        ("cdn.example.com", ("http", "cdn.example.com", 80)),
        ("CDN.Example.com", ("https", "cdn.example.com", 443)),
        ("*.example.com", ("https", "a.b.example.com", 443)),
        ("cdn.example.com:8443", ("https", "cdn.example.com", 8443)),
        ("intranet", ("http", "intranet", 80)),
    ],
)
def test_a_host_that_is_listed_is_allowed(listed: str, url: tuple[str, str, int]) -> None:
    assert allowed([Host.of("other.example"), Host.of(listed)], *url)


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("cdn.example.com", ("https", "xcdn.example.com", 443)),
        ("cdn.example.com", ("https", "a.cdn.example.com", 443)),
        ("cdn.example.com", ("https", "cdn.example.com", 8443)),
        ("cdn.example.com", ("http", "cdn.example.com", 443)),
        ("cdn.example.com:8443", ("https", "cdn.example.com", 443)),
        ("*.example.com", ("https", "example.com", 443)),
        ("*.example.com", ("https", "anotherexample.com", 443)),
        ("*.example.com", ("https", "example.com.elsewhere.org", 443)),
    ],
)
def test_what_is_not_listed_exactly_is_not(listed: str, url: tuple[str, str, int]) -> None:
    assert not allowed([Host.of(listed)], *url)


@pytest.mark.parametrize("text", ["cdn.example.com", "*.example.com", "images.example.com:8443", "_a.example.com"])
def test_a_host_is_written_as_it_was_read(text: str) -> None:
    assert str(Host.of(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.com",
        "a.*.example.com",
        "https://cdn.example.com",
        "cdn.example.com/pictures",
        "cdn.example.com:0",
        "cdn.example.com:70000",
        "cdn.example.com:https",
        "user@cdn.example.com",
        "93.184.215.14",
        "127.1",
        "0x7f000001",
        "[2606:2800:21f::1]",
        "bücher.example",
        "-a.example.com",
        "a..example.com",
        f"{'a' * 64}.example.com",
        f"{'a.' * 130}com",
    ],
)
def test_what_is_no_host_is_refused_with_what_it_must_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as cdn\.example\.com"):
        Host.of(text)


def test_an_address_is_no_name_however_it_is_written() -> None:
    assert all(map(is_name, ("a1.example", "1.example", "0xcafe.example")))
    assert not any(map(is_name, ("10.0.0.1", "10.1", "167772161", "0xa000001", "0x", "a.0x1f", "::1")))
