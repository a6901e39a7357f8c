"""Requests at random, from sound ones to such as no client would send: hypothesis chooses, the same way for a seed.

Each strategy is about one thing that a caller chooses (a key, a path, a body, a filter, headers), and leaves the rest
sound, so that what is odd is reached by the code that reads it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from bench.fuzz.shop import Shop
from bench.fuzz.talk import Asked

Strategy = st.SearchStrategy[Asked]

JSON = (b"Content-Type", b"application/json")

# --- values ---------------------------------------------------------------------------------------------------------

# Each means something to a layer below: JSON, jsonpath, SQL, a path, a header, a terminal.
ODD_TEXTS = (
    *("", "\0", "a\0b", "\ud800", "\udfff", "\ufeff", "\u202e", "é", "e\u0301", "\U0001f600", "x" * 100, "x" * 101),
    *(
        '"',
        '\\"',
        "\\",
        "\\u0022",
        '" || true || "',
        '"] || $ == $ || $["',
        "') OR 1=1 --",
        "'; SELECT pg_sleep(9); --",
    ),
    *(
        "$",
        "$.*",
        "@",
        "*",
        "**",
        ".keyvalue()",
        "colour.type()",
        '"colour" ? (@ == "red")',
        "like_regex",
        "%s",
        "%(x)s",
    ),
    *(
        "{0}",
        "{{",
        "../..",
        "/etc/passwd",
        "\r\nX-Made: up",
        "\x1b[2J",
        "null",
        "true",
        "NaN",
        "-0",
        "1e400",
        " red",
        "red ",
    ),
    *("colour", "red", "Colour", "on sale", "price", "__proto__", "constructor"),
)
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=40) | st.text(alphabet="\"\\$.@*[]()|&'?{}", max_size=20)
numbers = (
    st.sampled_from([0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324, 0.1, -0.0])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)

# What JSON has no place for, and parsers like to accept; and what makes them work hard.
ODD_JSON = (
    *(b"", b" ", b"{", b"[", b'"', b"}", b"nul", b"NaN", b"Infinity", b"-Infinity", b"{'text': 'red'}", b"\xff\xfe{}"),
    *(
        b"\xef\xbb\xbf{}",
        b'{"text":"\\ud800"}',
        b'{"text":"\\udc00\\ud800"}',
        b'{"text":"\xed\xa0\x80"}',
        b'{"text":"\xff"}',
    ),
    *(
        b'{"text":"a","text":"b"}',
        b'{"limit":1,"limit":1000,"text":"a"}',
        b'{"text":NaN}',
        b'{"limit":1e999,"text":"a"}',
    ),
    *(
        b'{"limit":' + b"9" * 5000 + b"}",
        b'{"limit":1.' + b"0" * 5000 + b"1}",
        b'{"limit":-0,"text":"a"}',
        b'{"text":"a"} {}',
    ),
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"filter":' + b'{"attributes":' * 5000,
        b"[" * 500 + b"]" * 500,
        b'{"\\u0000":1}',
    ),
    b'{"embedding":[' + b",".join([b"1e38"] * 512) + b'],"space":"x"}',
    b'{"embedding":[' + b"0," * 100_000 + b'0],"space":"x"}',
)


def dumped(value: Any) -> bytes:
    """As JSON; lone surrogates escaped, as JSON allows them to be."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes with a few of them changed, taken out, doubled, or cut off."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "take", "double", "cut", "put"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "take":
            del data[at : at + draw(st.integers(1, 8))]
        elif how == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        elif how == "cut":
            del data[at:]
        else:
            data[at:at] = draw(st.binary(max_size=12))
    return bytes(data)


# --- requests -------------------------------------------------------------------------------------------------------


def bearer(key: str | bytes) -> tuple[bytes, bytes]:
    return b"Authorization", b"Bearer " + (key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape"))


def bodies_of_json(shop: Shop) -> Strategy:
    """Bodies of the calls that read JSON."""
    search: dict[str, Any] = {"text": "red shoes", "limit": 5, "minSimilarity": 20, "minGrade": "similar"}
    search["fields"] = ["sku", "url", "attributes.price"]
    search |= {"groupBy": "product", "groupSize": 2, "explain": True}
    search["boosts"] = [
        {"attribute": "price", "from": 10, "to": 1, "weight": 0.1},
        {"attribute": "added", "from": "2026-01-01", "to": "2026-02-01", "weight": 0.1},
    ]
    put: dict[str, Any] = {
        "name": "Shoe",
        "sku": "S-1",
        "isActive": True,
        "attributes": {"colour": ["red"], "price": 1},
    }
    sound: list[tuple[str, bytes, str, dict[str, Any]]] = [
        ("POST", b"/v1/search", "/v1/search", search),
        ("POST", b"/v1/search", "/v1/search", {"mediaId": "x" * 32}),
        ("POST", b"/v1/search", "/v1/search", {"embedding": [0.1] * 8, "space": "a"}),
        ("PUT", b"/v1/products/shoe", "/v1/products/{productId}", put),
        ("PATCH", b"/v1/products/shoe", "/v1/products/{productId}", put),
        ("POST", b"/v1/embeddings", "/v1/embeddings", {"texts": ["a", "b"]}),
    ]

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        method, path, route, document = draw(st.sampled_from(sound))
        how = draw(st.sampled_from(["one", "one", "more", "fewer", "all", "odd", "damaged", "twice", "encoded"]))
        changed: Any = dict(document)
        if how == "one":
            changed[draw(st.sampled_from([*document, "filter", "clientId"]))] = draw(values)
        elif how == "more":
            changed[draw(texts)] = draw(values)
        elif how == "fewer":
            del changed[draw(st.sampled_from([*document]))]
        elif how == "all":
            changed = draw(values)
        body = dumped(changed)
        headers = [JSON, bearer(shop.writer)]
        if how == "odd":
            body = draw(st.sampled_from(ODD_JSON))
        elif how == "damaged":
            body = draw(damaged(body))
        elif how == "twice":
            body = (
                body[:-1] + b"," + dumped(draw(st.dictionaries(st.sampled_from([*document]), values, max_size=2)))[1:]
            )
        elif how == "encoded":
            packed = gzip.compress(body)
            body = draw(st.sampled_from([packed, packed[:-3], packed + packed, b"", body]) | damaged(packed))
            headers.append(
                (b"Content-Encoding", draw(st.sampled_from([b"gzip", b"deflate", b"br", b"gzip, gzip", b"x"])))
            )
        kinds = [b"application/json; charset=utf-16", b"application/json;;;", b"text/json", b"APPLICATION/JSON"]
        if draw(st.integers(0, 19)) == 0:
            headers[0] = (b"Content-Type", draw(st.sampled_from(kinds)))
        return Asked(f"JSON, {how}", method, path, route, headers, body)

    return make()


def forms(shop: Shop) -> Strategy:
    """Bodies of forms with a picture."""
    places = [
        (b"/v1/search", "/v1/search"),
        (b"/api/search/by-image", "/api/search/by-image"),
        (b"/embed-image", "/embed-image"),
        (b"/v1/embeddings", "/v1/embeddings"),
        (b"/v1/products/shoe/media", "/v1/products/{productId}/media"),
    ]
    line = b"fuzz-9f1c"
    more = ["Content-Type: image/png", "Content-Transfer-Encoding: base64", "X: " + "y" * 9000, "no colon", ": no name"]
    more += [
        "Content-Disposition: form-data; name=file",
        "Content-Type: multipart/mixed; boundary=z",
        "Content-Length: 3",
    ]
    names = st.sampled_from(["file", "clientId", "limit", "filter", "minGrade", "FILE", "file[]", "é", "a" * 5000])

    @st.composite
    def part(draw: st.DrawFn, *, sound: bool) -> bytes:
        name = "file" if sound else draw(names | texts)
        head = f'Content-Disposition: form-data; name="{name}"'
        if name == "file" or draw(st.integers(0, 9)) == 0:
            filename = draw(st.sampled_from(["x", "", "../x", "a\0b", "é.png", 'a"b', "x" * 3000]))
            head += f'; filename="{filename}"'
        lines = [head]
        if not sound and draw(st.integers(0, 3)) == 0:
            lines += draw(st.lists(st.sampled_from(more), max_size=2))
        if not sound and draw(st.integers(0, 19)) == 0:
            lines = lines[1:]
        held = [shop.picture] if sound else [shop.picture, b"", b"changing", b"5", b"x" * 5000, b'{"kind":"image"}']
        data = draw(st.sampled_from(held) | st.binary(max_size=0 if sound else 30))
        return b"\r\n".join([b"--" + line, *(one.encode("utf-8", "replace") for one in lines), b"", data, b""])

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        path, route = draw(st.sampled_from(places))
        parts = [
            draw(part(sound=draw(st.integers(0, 1)) == 0)) for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 2, 3])))
        ]
        body = b"".join(parts) * draw(st.sampled_from([1] * 12 + [100, 151, 700])) + b"--" + line + b"--\r\n"
        how = draw(st.sampled_from(["sound", "sound", "sound", "damaged", "cut", "more", "newlines"]))
        if how == "damaged":
            body = draw(damaged(body))
        elif how == "cut":
            body = body[: draw(st.integers(0, len(body)))]
        elif how == "more":
            body = draw(st.binary(max_size=50)) + body + draw(st.binary(max_size=50))
        elif how == "newlines":
            body = body.replace(b"\r\n", b"\n")
        odd = [
            b"multipart/form-data",
            b"multipart/form-data; boundary=",
            b"multipart/form-data; boundary=" + b"b" * 300,
        ]
        odd += [b'multipart/form-data; boundary="fuzz-9f1c', b"multipart/mixed; boundary=fuzz-9f1c", b"image/png", b""]
        kind = b"multipart/form-data; boundary=" + line
        if draw(st.integers(0, 9)) == 0:
            kind = draw(st.sampled_from(odd))
        return Asked(
            f"form, {how}", "POST", path, route, [(b"Content-Type", kind), bearer(shop.writer)], body[:2_000_000]
        )

    return make()


def filters(shop: Shop) -> Strategy:
    """Searches of the steady client by filters, most of which its only product does not meet."""

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        bounds = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte", "eq", "$gt"]), values, max_size=3)
        condition = scalars | st.lists(scalars, max_size=4) | bounds | values
        filter_: Any = {"attributes": draw(st.dictionaries(texts, condition, min_size=1, max_size=3))}
        if draw(st.integers(0, 4)) == 0:
            filter_ |= draw(
                st.sampled_from([{"kind": "image"}, {"kind": "x"}, {"productIds": ["keyboard"]}, {"$or": []}])
            )
        body = dumped({"text": "keyboard", "filter": filter_})
        return Asked("filter", "POST", b"/v1/search", "/v1/search", [JSON, bearer(shop.searcher)], body)

    return make()


def paths(shop: Shop) -> Strategy:
    """Ids and queries."""
    places = [
        ("GET", "/v1/products"),
        ("GET", "/v1/products/{productId}/media"),
        ("GET", "/v1/products/{productId}"),
        ("PUT", "/v1/products/{productId}"),
        ("DELETE", "/v1/products/{productId}"),
        ("GET", "/v1/media/{mediaId}"),
        ("DELETE", "/v1/media/{mediaId}"),
        ("GET", "/v1/media/{mediaId}/duplicates"),
        ("GET", "/v1/media/{mediaId}/thumbnail"),
        ("HEAD", "/v1/media/{mediaId}/thumbnail"),
    ]
    odd = [
        "%",
        "%zz",
        "%00",
        "%ff",
        "%c0%ae",
        "..",
        "%2e%2e",
        "a;b",
        "a b",
        "%2F",
        "//",
        "?",
        "#",
        "%ED%A0%80",
        "a%0d%0ab",
    ]
    ids = (
        st.sampled_from([*odd, "x" * 128, "x" * 129, "x" * 5000]).map(str.encode)
        | texts.map(lambda one: quote(one.encode("utf-8", "surrogatepass")).encode())
        | st.binary(min_size=1, max_size=10).map(lambda one: quote(one).encode())
    )
    names = st.sampled_from(
        ["clientId", "limit", "clientId", "signature", "x", "cursor", "updatedSince", "isActive", "sku", "attributes"]
    )
    given = st.sampled_from(
        [
            "true",
            "2026-01-01T00:00:00Z",
            '{"a":1}',
            "null",
            "",
            "changing",
            "steady",
            "0",
            "-1",
            "1001",
            "1e3",
            "9" * 400,
            "nan",
            "%00",
            "%ff",
            "é",
        ]
    )

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        method, route = draw(st.sampled_from(places))
        head, _, tail = route.partition("{")
        path = head.encode() + (draw(ids) + tail.partition("}")[2].encode() if tail else b"")
        if draw(st.booleans()):
            query = [f"{draw(names)}={draw(given)}" for _ in range(draw(st.integers(1, 3)))]
            path += b"?" + quote("&".join(query), safe="=&%").encode()
        known = route if not tail or _is_one_segment(path, head, tail.partition("}")[2]) else ""
        body = b'{"name":"x"}' if method == "PUT" else b""
        headers = [JSON, bearer(draw(st.sampled_from([shop.writer, shop.admin])))]
        return Asked("path", method, path, known, headers, body, raw=b" " in path or path.count(b"#") > 0)

    return make()


def _is_one_segment(path: bytes, head: str, tail: str) -> bool:
    """Whether the id in it is one that the route's parameter takes: no bare slash, no dots, not empty."""
    middle = path.partition(b"?")[0].removeprefix(head.encode()).removesuffix(tail.encode())
    return bool(middle) and not set(b"/#? ") & set(middle) and middle not in (b"..", b".")


def keys(shop: Shop, derived: str | None) -> Strategy:
    """Keys that nobody was given: none of these may be let in. `derived`: a search key that is."""
    known = [*shop.good, *([derived] if derived else [])]

    @st.composite
    def spoilt(draw: st.DrawFn) -> bytes:
        key = draw(st.sampled_from(known)).encode()
        how = draw(st.sampled_from(["flip", "flip", "cut", "longer", "case", "inside", "other", "signature"]))
        at = draw(st.integers(0, len(key) - 1))
        if how == "flip":
            return key[:at] + bytes([key[at] ^ 1 << draw(st.integers(0, 7))]) + key[at + 1 :]
        if how == "cut":
            return key[:at]
        if how == "longer":
            return key + draw(st.sampled_from([b"A", b"=", b".", b"\0", b"x" * 7000, "é".encode(), b"%00"]))
        if how == "case":
            return key.swapcase()
        if how == "inside":
            return key[:at] + draw(st.sampled_from([b" ", b"\t", b"\xff", "é".encode(), b"\0", b","])) + key[at:]
        if how == "other":
            return draw(st.sampled_from([shop.expired.encode(), shop.revoked.encode()]))
        return base64.urlsafe_b64encode(draw(st.binary(max_size=64)))

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        key = draw(
            spoilt() | st.binary(max_size=60) | st.sampled_from([b"", b"twinlens_", b"twinlens-search..", b"null"])
        )
        while key.strip() in [one.encode() for one in known]:
            key += b"x"
        forms = [[bearer(key)], [(b"X-API-Key", key)], [(b"Authorization", b"Basic " + key)], [(b"Authorization", key)]]
        forms += [
            [bearer(key), bearer(key)],
            [bearer(key), (b"X-API-Key", key)],
            [(b"AUTHORIZATION", b"bEARER  " + key)],
        ]
        places = [("GET", b"/v1/products/x", "/v1/products/{productId}"), ("GET", b"/metrics", "/metrics")]
        places += [("POST", b"/v1/search", "/v1/search"), ("DELETE", b"/v1/media/x", "/v1/media/{mediaId}")]
        method, path, route = draw(st.sampled_from(places))
        raw = any((one < 32 and one != 9) or one == 127 for one in key)
        return Asked("key", method, path, route, draw(st.sampled_from(forms)), raw=raw)

    return make()


def headers(shop: Shop) -> Strategy:
    """Odd, long, many and doubled headers beside a sound request."""
    named: dict[bytes, list[bytes]] = {
        b"Twinlens-Deadline": [
            b"nan",
            b"inf",
            b"-1",
            b"0",
            b"1e-300",
            b"1e308",
            b"0x1",
            b"\xd9\xa1",
            b"",
            b"1,2",
            b"1" * 999,
        ],
        b"Twinlens-Lane": [b"bulk", b"BULK", b"", b"x" * 5000, b"\xff"],
        b"X-Request-Id": [b"", b"x" * 65, b"a b", b"\xff", b"../x", b"x\ty"],
        b"Content-Type": [b"", b"/", b"application", b"application/json; charset=\xff", b"a/b; " + b"c=d; " * 500],
        b"Content-Encoding": [b"", b"identity", b"gzip", b"\xff"],
        b"Content-Length": [b"-1", b"1", b"999999999999999999999", b"0x10", b"+5", b"5, 5", b""],
        b"Transfer-Encoding": [b"chunked", b"gzip, chunked", b"x", b""],
        b"Expect": [b"100-continue", b"x"],
        b"Accept": [b"text/html", b"\xff", b"*/*;q=" + b"0" * 900],
        b"Accept-Encoding": [b"gzip;q=nan", b"\xff"],
        b"Host": [b"", b"a b", b"[::1", b"evil.example", b"127.0.0.1:99999", b"\xff", b"x" * 5000],
        b"Origin": [b"null", b"https://evil.example", b"\xff"],
        b"Sec-Fetch-Site": [b"cross-site", b""],
        b"X-Forwarded-For": [b"1.2.3.4", b"\xff", b", " * 4000],
        b"Cookie": [b"a=" + b"b" * 5000],
        b"Range": [b"bytes=0-1", b"bytes=99999999999999999999-"],
        b"If-None-Match": [b"*", b"\xff", b'"' + b"a" * 5000],
        b"Upgrade": [b"websocket", b"h2c"],
        b"HTTP2-Settings": [b"AAMAAABkAAQAAP__"],
        b"Forwarded": [b"for=\xff"],
    }
    below = {b"Content-Length", b"Transfer-Encoding", b"Host", b"Expect", b"Upgrade"}

    @st.composite
    def make(draw: st.DrawFn) -> Asked:
        body = b'{"name":"x"}'
        chosen: list[tuple[bytes, bytes]] = []
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from([*named]))
            value = draw(st.sampled_from(named[name]) | st.binary(max_size=30).map(_visible))
            chosen += [(name, value)] * draw(st.sampled_from([1, 1, 1, 2]))
        many = draw(st.sampled_from([0, 0, 0, 90, 500]))
        chosen += [(b"X-%d" % number, b"y") for number in range(many)]
        method, path, route, sent = draw(
            st.sampled_from(
                [
                    ("PUT", b"/v1/products/shoe", "/v1/products/{productId}", body),
                    ("GET", b"/v1/media/x", "/v1/media/{mediaId}", b""),
                    ("GET", b"/health/live", "/health/live", b""),
                    ("OPTIONS", b"/v1/search", "", b""),
                    ("PATCH", b"/v1/products/shoe", "", body),
                    ("GET", b"/no/such", "", b""),
                ]
            )
        )
        kind = [] if any(name == b"Content-Type" for name, _ in chosen) else [JSON]
        odd = many > 90 or any(name in below for name, _ in chosen)
        return Asked("headers", method, path, route, [*kind, bearer(shop.writer), *chosen], sent, raw=odd)

    return make()


def _visible(data: bytes) -> bytes:
    return bytes(one for one in data if one >= 32 and one != 127)


KINDS: dict[str, Callable[[Shop], Strategy]] = {
    "JSON": bodies_of_json,
    "forms": forms,
    "filters": filters,
    "paths": paths,
    "headers": headers,
}
"""All but keys, which take a derived key as well."""
