"""The signatures of pictures' addresses: what they cover, and how long they hold."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import parse_qs

import pytest

from server.access.signed_urls import PARAMETERS, Picture, Signatures, Signer, expiry
from server.errors import KeysUnknown, SignatureInvalid

SECRET = bytes(range(32))
NOW = 1_790_000_000
HOUR = 3600


def address(secret: bytes, picture: Picture, client_id: str) -> str:
    """What stands behind the `?` of an address of the media m1 that is good for an hour."""
    signatures = Signer(secret).signatures(client_id, NOW + HOUR)
    return signatures.query + signatures.of("m1")[picture == "file"]


def signed(secret: bytes = SECRET, **changed: Any) -> dict[str, Any]:
    """What `verify` is asked about an address of a thumbnail that is good for an hour, with some of it changed."""
    query = parse_qs(address(secret, "thumbnail", "acme"), strict_parsing=True)
    given = {"picture": "thumbnail", "media_id": "m1", "now": NOW}
    return {
        **given,
        "expires": query["expires"][0],
        "client_id": query["clientId"][0],
        "signature": query["signature"][0],
        **changed,
    }


def test_what_was_signed_is_good_until_it_expires() -> None:
    assert Signer(SECRET).verify(**signed()) == HOUR
    assert Signer(SECRET).verify(**signed(now=NOW + HOUR - 1)) == 1
    for late in (0, 1, 10**9):
        with pytest.raises(SignatureInvalid, match="expired"):
            Signer(SECRET).verify(**signed(now=NOW + HOUR + late))


RIGHT = signed()["signature"]


@pytest.mark.parametrize(
    "changed",
    [
        {"picture": "file"}, {"client_id": "acm"}, {"client_id": "ACME"}, {"client_id": ""}, {"media_id": "m2"},
        {"media_id": ""}, {"client_id": "acmem", "media_id": "1"}, {"client_id": "acme4 ", "media_id": ""},
        {"expires": str(NOW + HOUR + 1)}, {"expires": f"0{NOW + HOUR}"}, {"expires": f" {NOW + HOUR}"},
        {"expires": "１７９０００３６００"}, {"expires": ""}, {"expires": "9" * 30}, {"expires": f"-{NOW}"},
        {"signature": ""}, {"signature": RIGHT[:-1]}, {"signature": f"{RIGHT}0"}, {"signature": RIGHT.upper()},
        {"signature": "é" * 32}, {"signature": "\ud800"}, {"media_id": "\ud800"},
    ],
)  # fmt: skip
def test_nothing_of_it_can_be_changed(changed: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid, match="wrong"):
        Signer(SECRET).verify(**signed(**changed))


@pytest.mark.parametrize("key", [b"", b"k", SECRET, SECRET * 2])
@pytest.mark.parametrize("media_id", ["", "m1", "ä" * 200])
def test_the_two_signatures_are_the_halves_of_hmac_sha256_over_all_of_it(key: bytes, media_id: str) -> None:
    whole = hmac.digest(key, f"17 4 acme{media_id}".encode(), "sha256").hex()
    signatures = Signatures(key, "acme", "17")
    for _ in range(2):
        assert signatures.of(media_id) == (whole[:32], whole[32:])


def test_another_secret_signs_otherwise_and_none_signs_nothing() -> None:
    other = bytes(32)
    with pytest.raises(SignatureInvalid):
        Signer(SECRET).verify(**signed(other))
    with pytest.raises(KeysUnknown):
        Signer(b"")


def test_a_client_of_any_name_can_be_written_into_an_address() -> None:
    for name in ("a&b=c", "ä/ö", "x y", "%41", "a+b"):
        query = parse_qs(address(SECRET, "file", name), strict_parsing=True)
        assert tuple(query) == PARAMETERS
        assert query["clientId"] == [name]


@pytest.mark.parametrize("lifetime", [60, 61, 24 * HOUR, 7 * 24 * HOUR])
def test_an_address_is_good_for_its_lifetime_or_half_as_long_more_and_changes_twice_in_it(lifetime: int) -> None:
    seen = []
    for now in range(NOW, NOW + 2 * lifetime, max(1, lifetime // 50)):
        expires = expiry(now + 0.9, lifetime)
        assert lifetime <= expires - now <= lifetime * 1.5 + 1
        seen.append(expires)
    assert seen == sorted(seen)
    assert len(set(seen)) in (4, 5)
