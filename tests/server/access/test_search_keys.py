"""Search keys as the server reads them: only what their parent has signed, word for word, and as long as it lives."""

from __future__ import annotations

import base64
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.access import search_keys
from server.access.keys import StoredKey, digest_of, new_key, search_secret_of
from server.access.scopes import Narrowing, Principal, Scope
from server.access.search_keys import read_search_key
from server.errors import KeyInvalid
from tests.support.access import signed
from twinlens import search_keys as theirs
from twinlens.search_keys import derive_search_key

NOW = datetime.now(UTC)
KEY_ID, KEY = new_key()


def stored(*scopes: Scope, client_id: str | None = "acme", **more: Any) -> StoredKey:
    secret = search_secret_of(KEY)
    known = StoredKey(
        KEY_ID, None, client_id, scopes or ("search",), digest_of(KEY), secret, {"rps": 5}, NOW, None, None, None
    )
    return replace(known, **more)


def read(search_key: str, parent: StoredKey | None = None, now: datetime = NOW) -> Principal:
    known = parent or stored()
    return read_search_key(search_key, {known.id: known}.get, now)


def test_what_is_derived_is_read_again() -> None:
    filter_ = {"attributes": {"category": "shoes"}}
    origins = ["https://shop.example"]
    principal = read(derive_search_key(KEY, client="acme", filter=filter_, limit=10, origins=origins, rate=3))
    assert (principal.scopes, principal.client_id, principal.key_id) == (frozenset({"search"}), "acme", KEY_ID)
    assert principal.limits == {"rps": 5}
    narrowing = principal.narrowing
    assert narrowing is not None
    assert narrowing == Narrowing(filter_, 10, ("https://shop.example",), 3.0, (), narrowing.id)
    assert len(narrowing.id) == 16
    assert theirs.MOST_BYTES == search_keys.MOST_BYTES
    assert (theirs.LEAST_RATE, theirs.MOST_RATE) == (search_keys.LEAST_RATE, search_keys.MOST_RATE)
    assert f"{theirs.PREFIX}." == search_keys.PREFIX


def test_what_it_shows_of_products_its_parent_may_read() -> None:
    search_key = derive_search_key(KEY, fields=["url", "attributes.price"])
    for scopes in (("search", "read"), ("search", "write"), ("admin",)):
        narrowing = read(search_key, stored(*scopes)).narrowing
        assert narrowing is not None
        assert narrowing.fields == ("url", "attributes.price")
    with pytest.raises(KeyInvalid, match="may not read products"):
        read(search_key)


def test_search_keys_of_one_parent_are_told_apart() -> None:
    ids = [read(derive_search_key(KEY, limit=limit)).narrowing for limit in (1, 1, 2)]
    first, again, other = [one.id for one in ids if one is not None]
    assert first == again != other


def test_the_client_is_the_parents_own_or_one_that_an_admins_key_names() -> None:
    assert read(derive_search_key(KEY)).client_id == "acme"
    admin = stored("admin", client_id=None)
    assert read(derive_search_key(KEY, client="other"), admin).client_id == "other"
    for search_key, parent in [
        (derive_search_key(KEY, client="other"), stored()),
        (derive_search_key(KEY), admin),
        (signed(KEY, {"version": 1, "key": KEY_ID, "client": "a b"}), admin),
    ]:
        with pytest.raises(KeyInvalid, match="client"):
            read(search_key, parent)


def test_it_ends_with_its_own_expiry_and_with_its_parent() -> None:
    now = datetime.now(UTC)
    brief = derive_search_key(KEY, expires=now + timedelta(minutes=1))
    assert read(brief, now=now + timedelta(seconds=50))
    with pytest.raises(KeyInvalid, match="has expired"):
        read(brief, now=now + timedelta(seconds=60))
    lasting = derive_search_key(KEY)
    for parent in [
        stored(revoked_at=NOW),
        stored(expires_at=NOW - timedelta(seconds=1)),
        stored("read"),
        stored("write"),
        stored(search_secret=None),
        stored(id="another00000"),
    ]:
        with pytest.raises(KeyInvalid):
            read(lasting, parent)


def test_another_keys_signature_and_a_changed_word_are_refused() -> None:
    other = new_key()[1]
    with pytest.raises(KeyInvalid):
        read(signed(other, {"version": 1, "key": KEY_ID}))
    prefix, document, signature = derive_search_key(KEY, limit=10).split(".")
    wider = base64.urlsafe_b64encode(base64.urlsafe_b64decode(document).replace(b"10", b"99")).decode()
    assert wider != document
    for forged in (
        f"{prefix}.{wider}.{signature}",
        f"{prefix}.{document}.{signature[::-1]}",
        f"{prefix}.{document}.{'A' * 43}",
        f"{prefix}.{document}",
        f"{prefix}.{document}.",
        f"{prefix}..{signature}",
        f"{prefix}.{document}=.{signature}",
        f"{prefix}.{document}.{signature}=",
        f"{prefix}.{document}.{signature}.",
        f"{prefix}.{document[:1]}.{signature}",
        f" {prefix}.{document}.{signature}",
    ):
        with pytest.raises(KeyInvalid) as refused:
            read(forged)
        assert refused.value.sentence == KeyInvalid().sentence, "who has not signed it is told nothing"


def test_a_signature_has_one_spelling_so_that_nobody_is_counted_twice() -> None:
    search_key = derive_search_key(KEY)
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    accepted = []
    for letter in letters:
        try:
            read(search_key[:-1] + letter)
            accepted.append(letter)
        except KeyInvalid:
            continue
    assert accepted == [search_key[-1]]


@pytest.mark.parametrize(
    "said",
    [
        {"version": 2},
        {"version": "1"},
        {"clientId": "acme"},
        {"filters": {}},
        {"limit": 0},
        {"limit": 1001},
        {"limit": "10"},
        {"limit": True},
        {"origins": []},
        {"origins": ["https://shop.example/"]},
        {"origins": ["*"]},
        {"origins": "https://shop.example"},
        {"expires": "2099-01-01"},
        {"expires": -1},
        {"rate": 0},
        {"rate": -1},
        {"rate": 5e-324},  # the time until the next request would be infinite
        {"rate": 1e308},
        {"filter": []},
    ],
)
def test_a_bound_that_is_not_understood_is_refused_rather_than_dropped(said: dict[str, Any]) -> None:
    with pytest.raises(KeyInvalid) as refused:
        read(signed(KEY, {"version": 1, "key": KEY_ID, **said}))
    assert "search key" in refused.value.sentence, "its maker is told what is wrong"


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"key": 1}', b"[" * 4000, b"1e999", b'{"key": "\\ud800"}'],
)
def test_a_document_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(KeyInvalid):
        read(signed(KEY, document))


def test_a_document_that_is_too_long_is_not_even_read() -> None:
    fits = {"version": 1, "key": KEY_ID, "filter": {"productIds": ["x" * (4096 - 80)]}}
    assert read(signed(KEY, fits))
    with pytest.raises(KeyInvalid) as refused:
        read(signed(KEY, {**fits, "filter": {"productIds": ["x" * 4096]}}))
    assert refused.value.sentence == KeyInvalid().sentence
