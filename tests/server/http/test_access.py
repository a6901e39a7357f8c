"""Every route and every kind of key: what each may is worked out here from the table of rules alone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import pytest

from server.access.keyring import TRUSTED_SECONDS
from server.http.rules import RULES, Rule
from tests import DEMO_PICTURES
from tests.support.databases import fresh_database, run_sql
from tests.support.keys import ACME, OTHER, expired_key, new_key, revoked_key
from tests.support.process import until
from tests.support.serving import Client, serving
from twinlens import derive_search_key

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()

Headers = list[tuple[str, str]]


class Door(NamedTuple):
    """A server where keys are on, and its database."""

    client: Client
    url: str
    made: dict[str, Headers]
    """The headers of each kind."""


@pytest.fixture(scope="module")
def door(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with fresh_database(postgres_url, template_database) as url:
        made = {name: kind.make(url) for name, kind in KINDS.items()}
        with serving(url, tmp_path_factory.mktemp("door")) as client:
            yield Door(client, url, made)


# --- the kinds of keys -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A way to call."""

    make: Callable[[str], Headers]
    """Makes the key in the database at a URL; the headers that bring it."""
    may: frozenset[str] = frozenset()
    """The scopes that it has or that are included in those."""
    refused: str | None = None
    """The code where it is not good at all."""
    client: str | None = ACME
    names: str | None = ACME
    """The client that the request names in its query."""
    derived: bool = False
    """A search key, which was derived from another key."""
    elsewhere: bool = False
    """A search key that the request's page may not use."""


def bearer(scopes: str, client_id: str | None = ACME, make: Any = new_key) -> Callable[[str], Headers]:
    return lambda url: [("Authorization", f"Bearer {make(url, scopes, client_id).key}")]


def as_header(scopes: str) -> Callable[[str], Headers]:
    return lambda url: [("X-API-Key", new_key(url, scopes).key)]


def says(*headers: tuple[str, str]) -> Callable[[str], Headers]:
    return lambda _: list(headers)


def in_both(url: str) -> Headers:
    key = new_key(url, "search,read,write").key
    return [("Authorization", f"bearer  {key}"), ("X-API-Key", key)]


def two_keys(url: str) -> Headers:
    one, other = new_key(url, "search,read,write").key, new_key(url, "read").key
    return [("Authorization", f"Bearer {one}"), ("X-API-Key", other)]


def twice(url: str) -> Headers:
    key = new_key(url, "search,read,write").key
    return [("X-API-Key", key), ("X-API-Key", key)]


def with_another_secret(url: str) -> Headers:
    id_ = new_key(url, "search,read,write").stored.id
    return [("X-API-Key", f"twinlens_{id_}_{secrets.token_urlsafe(32)}")]


def beside_basic(url: str) -> Headers:
    return [("Authorization", "Basic dXNlcjpwYXNz"), *as_header("search")(url)]


def derived(
    scopes: str, client_id: str | None = ACME, make: Any = new_key, origin: str | None = None, **bounds: Any
) -> Callable[[str], Headers]:
    """A search key; `origin`: of the page that sends it."""

    def headers(url: str) -> Headers:
        search_key = derive_search_key(make(url, scopes, client_id).key, **bounds)
        return [("Authorization", f"Bearer {search_key}"), *([("Origin", origin)] if origin is not None else [])]

    return headers


def widened(url: str) -> Headers:
    """A search key whose document was changed after it was signed."""
    key = new_key(url, "search").key
    prefix, _, signature = derive_search_key(key, limit=1).split(".")
    return [("Authorization", f"Bearer {prefix}.{derive_search_key(key).split('.')[1]}.{signature}")]


SHOP = "https://shop.example"
UNKNOWN = f"twinlens_abcdefghijkl_{'A' * 43}"
SEARCH, READ, WRITE = frozenset({"search"}), frozenset({"read"}), frozenset({"read", "write"})
ADMIN = frozenset({"search", "read", "write", "admin"})

KINDS = {
    "none": Kind(says(), refused="key_missing"),
    "basic": Kind(says(("Authorization", "Basic dXNlcjpwYXNz")), refused="key_missing"),
    "empty bearer": Kind(says(("Authorization", "Bearer ")), refused="key_missing"),
    "empty header": Kind(says(("X-API-Key", " ")), refused="key_missing"),
    "unknown": Kind(says(("Authorization", f"Bearer {UNKNOWN}")), refused="key_invalid"),
    "malformed": Kind(says(("Authorization", "Bearer hello world")), refused="key_invalid"),
    "malformed header": Kind(says(("X-API-Key", "' OR true --")), refused="key_invalid"),
    "with another secret": Kind(with_another_secret, refused="key_invalid"),
    "revoked": Kind(bearer("search,read,write", make=revoked_key), refused="key_invalid"),
    "revoked admin": Kind(bearer("admin", None, make=revoked_key), refused="key_invalid"),
    "expired": Kind(bearer("search,read,write", make=expired_key), refused="key_invalid"),
    "two keys": Kind(two_keys, refused="key_invalid"),
    "one header twice": Kind(twice, refused="key_invalid"),
    "search": Kind(bearer("search"), SEARCH),
    "search, client unsaid": Kind(bearer("search"), SEARCH, names=None),
    "search beside Basic": Kind(beside_basic, SEARCH),
    "read": Kind(bearer("read"), READ),
    "read in a header": Kind(as_header("read"), READ),
    "write": Kind(bearer("write"), WRITE),
    "write, client unsaid": Kind(bearer("write"), WRITE, names=None),
    "everything of a client": Kind(in_both, SEARCH | READ | WRITE),
    "another client's": Kind(bearer("search,read,write", OTHER), SEARCH | READ | WRITE, client=OTHER),
    "admin": Kind(bearer("admin", None), ADMIN, client=None),
    "admin, client unsaid": Kind(bearer("admin", None), ADMIN, client=None, names=None),
    "derived": Kind(derived("search"), SEARCH, derived=True),
    "derived, client unsaid": Kind(
        derived("search", filter={"productIds": ["shoe"]}), SEARCH, names=None, derived=True
    ),
    "derived from everything": Kind(derived("search,read,write", limit=1), SEARCH, derived=True),
    "derived from another client's": Kind(derived("search", OTHER), SEARCH, client=OTHER, derived=True),
    "derived from an admin's": Kind(derived("admin", None, client=ACME), SEARCH, derived=True),
    "derived from an admin's for no client": Kind(derived("admin", None), refused="key_invalid"),
    "derived for another client": Kind(derived("search", client=OTHER), refused="key_invalid"),
    "derived, from its page": Kind(derived("search", origins=[SHOP], origin=SHOP), SEARCH, derived=True),
    "derived, from another page": Kind(
        derived("search", origins=[SHOP], origin="https://other.example"), SEARCH, derived=True, elsewhere=True
    ),
    "derived, from no page": Kind(derived("search", origins=[SHOP]), SEARCH, derived=True, elsewhere=True),
    "derived from a key that may not search": Kind(derived("read,write"), refused="key_invalid"),
    "derived from a revoked key": Kind(derived("search", make=revoked_key), refused="key_invalid"),
    "derived from an expired key": Kind(derived("search", make=expired_key), refused="key_invalid"),
    "derived and widened": Kind(widened, refused="key_invalid"),
    # Addresses that are signed come here: they answer to the same table.
}

# --- what the table says ---------------------------------------------------------------------------------------------


def expected(rule: Rule, kind: Kind) -> tuple[int, str] | None:
    """Status and code of the refusal; None where the caller is let in."""
    if not rule.scopes:
        return None
    if kind.refused is not None:
        return 401, kind.refused
    if not kind.may & set(rule.scopes):
        return 403, "scope_missing"
    if kind.derived and not rule.derived:
        return 403, "scope_missing"
    if kind.elsewhere:
        return 403, "origin_refused"
    if kind.client is not None and kind.names is not None and kind.names != kind.client:
        return 403, "client_mismatch"
    if kind.client is None and kind.names is None and rule.client:
        return 422, "client_required"
    return None


ACCESS = {
    "key_missing",
    "key_invalid",
    "scope_missing",
    "origin_refused",
    "client_mismatch",
    "client_required",
    "keys_unknown",
}

IN_PATH = {"{product_id}": "shoe", "{media_id}": "none", "{name}": "app.js"}
FORM: dict[str, Any] = {"files": {"file": KEYBOARD}}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/embed-image"): FORM,
    ("POST", "/api/search/by-image"): FORM,
    ("POST", "/v1/embeddings"): FORM,
    ("POST", "/v1/search"): {"json": {"mediaId": "none"}},
    ("PUT", "/v1/products/{product_id}"): {"json": {"name": "Shoe"}},
    ("PATCH", "/v1/products/{product_id}"): {"json": {"isActive": True}},
    ("POST", "/v1/products:batch"): {"json": {"items": [{"op": "delete", "id": "none"}]}},
    ("PUT", "/v1/attributes"): {"json": {"attributes": {"price": "number"}}},
    ("POST", "/v1/products/{product_id}/media"): FORM,
    ("PUT", "/v1/media/{media_id}"): {**FORM, "data": {"productId": "shoe"}},
    ("PATCH", "/v1/media/{media_id}"): {"json": {"productId": "shoe"}},
}
"""Of each route that reads one."""


def call(door: Door, method: str, path: str, name: str, kind: Kind, **more: Any) -> httpx.Response:
    for one, value in IN_PATH.items():
        path = path.replace(one, value)
    params = {"clientId": kind.names} if kind.names is not None else {}
    return door.client.request(method, path, params=params, headers=door.made[name], **more)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("method", "path"), RULES, ids=lambda part: part)
def test_a_caller_is_let_in_or_refused_as_the_table_says(door: Door, method: str, path: str, name: str) -> None:
    kind = KINDS[name]
    refusal = expected(RULES[method, path], kind)
    body = BODIES[method, path] if method in ("POST", "PUT", "PATCH") else {}
    answer = call(door, method, path, name, kind, **body)
    if refusal is None:
        assert answer.status_code in (200, 201, 404, 409, 422), answer.text
        assert not (answer.is_error and answer.json()["code"] in ACCESS), answer.text
    else:
        assert (answer.status_code, answer.json()["code"]) == refusal
        assert set(answer.json()) == {"error", "code", "requestId"}
        assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
        assert answer.headers["cache-control"] == "no-store"
    if method == "GET":
        head = call(door, "HEAD", path, name, kind)
        assert (head.status_code, head.content) == (answer.status_code, b"")


@pytest.mark.parametrize("path", sorted({path for _, path in RULES}))
def test_which_methods_there_are_may_be_asked_without_a_key(door: Door, path: str) -> None:
    answer = call(door, "OPTIONS", path, "none", KINDS["none"])
    assert (answer.status_code, bool(answer.headers["allow"])) == (204, True)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("PATCH", "/v1/search", 405), ("POST", "/schema", 405)]
)
def test_what_is_not_there_needs_no_key(door: Door, method: str, path: str, status: int) -> None:
    assert door.client.request(method, path).status_code == status


# --- a client that is named where another is meant --------------------------------------------------------------------


def test_a_client_that_only_the_body_names_is_refused_as_well(door: Door) -> None:
    headers = door.made["everything of a client"]
    for body in (
        {"json": {"mediaId": "x", "clientId": OTHER}},
        {"files": {"file": KEYBOARD}, "data": {"clientId": OTHER}},
    ):
        answer = door.client.post("/v1/search", headers=headers, **body)
        assert (answer.status_code, answer.json()["code"]) == (403, "client_mismatch")
    answer = door.client.put("/v1/products/p", headers=headers, json={"name": "P", "clientId": OTHER})
    assert (answer.status_code, answer.json()["code"]) == (403, "client_mismatch")
    assert run_sql(door.url, """SELECT id FROM products WHERE "clientId" = %s""", (OTHER,)) == []


@pytest.mark.parametrize(
    "query",
    [
        "clientId=acme&clientId=acme",
        "clientId=acme&clientId=other",
        "clientId=&clientId=acme",
        "client%49d=acme&clientId=other",
    ],
)
def test_a_client_that_the_query_names_twice_is_refused(door: Door, query: str) -> None:
    for name in ("search", "admin"):
        answer = door.client.post(f"/v1/search?{query}", headers=door.made[name], json={"mediaId": "x"})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


@pytest.mark.parametrize(
    "body",
    [
        '{"mediaId": "x", "clientId": "acme", "clientId": "acme"}',
        '{"mediaId": "x", "clientId": "acme", "clientId": "other"}',
        '{"mediaId": "x", "clientId": "acme", "client\\u0049d": "acme"}',
    ],
)
def test_a_client_that_a_body_names_twice_is_refused(door: Door, body: str) -> None:
    headers = [*door.made["admin"], ("Content-Type", "application/json")]
    answer = door.client.post("/v1/search", headers=headers, content=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "clientId is given twice in the body.")
    form = '--b\r\nContent-Disposition: form-data; name="clientId"\r\n\r\nacme\r\n' * 2 + "--b--\r\n"
    headers = [*door.made["admin"], ("Content-Type", "multipart/form-data; boundary=b")]
    answer = door.client.post("/v1/search", headers=headers, content=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_words_that_look_like_a_second_client_are_none(door: Door) -> None:
    text = 'say "clientId" and "clientId"'
    answer = door.client.post("/v1/search", headers=door.made["search"], json={"mediaId": text, "clientId": ACME})
    assert (answer.status_code, answer.json()["code"]) == (404, "media_not_found"), "it is the id that it says"


def test_with_keys_a_server_is_called_by_any_name_and_from_any_page(door: Door) -> None:
    headers = [*door.made["write"], ("Host", "shop.example"), ("Origin", "https://elsewhere.example")]
    answer = door.client.put(
        "/v1/products/shoe", headers=[*headers, ("Sec-Fetch-Site", "cross-site")], json={"name": "S"}
    )
    assert answer.status_code in (200, 201)


def test_a_key_reaches_no_log_and_no_answer(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("search", "with another secret", "revoked"):
        key = door.made[name][0][1].rpartition(" ")[2]
        answer = door.client.delete("/v1/products/shoe", headers=door.made[name])
        assert answer.is_error
        assert key.rpartition("_")[2] not in answer.text + str(answer.headers) + caplog.text


def test_a_server_that_cannot_look_at_the_keys_for_a_minute_says_so(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = door.client.app.state.services.keyring
    run_sql(door.url, "ALTER TABLE twinlens_access RENAME TO twinlens_away")
    try:
        assert door.client.get("/v1/products/none", headers=door.made["read"]).status_code == 404
        monkeypatch.setattr(keyring, "_clock", lambda: time.monotonic() + TRUSTED_SECONDS + 1)
        for name in ("none", "read", "search", "unknown"):
            answer = door.client.post("/embed-image", headers=door.made[name], **FORM)
            assert (answer.status_code, answer.json()["code"]) == (503, "keys_unknown")
            assert answer.headers["retry-after"]
        for path in ("/health/live", "/health/ready", "/schema"):
            assert door.client.get(path, headers={"Host": "shop.example"}).status_code == 200
    finally:
        run_sql(door.url, "ALTER TABLE twinlens_away RENAME TO twinlens_access")
    until(lambda: door.client.post("/embed-image", headers=door.made["none"], **FORM).status_code == 401)
