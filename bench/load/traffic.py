"""What a load test sends: which kind of request is next, which picture or words are in it, and what the answer must be.

Nothing here sends or waits: `bench/locustfile.py` does. Every answer is checked, because a
server that answers wrongly is easily quick.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bench import pictures
from bench.pictures import FORM_TYPE, Picture

KINDS = ("search", "words", "embed", "ingest")
DEFAULT_MIX = "search=6,words=2,embed=1"
"""Nothing is written into a server that somebody uses unless `ingest` is asked for."""

SEARCH_DEMO = "search, demo picture"
SEARCH_OTHER = "search, other picture"
WORDS = "words"
EMBED = "embed"
INGEST_PRODUCT = "ingest, product"
INGEST_PICTURE = "ingest, picture"

INGEST_CLIENT = "load-test"
# Not TWINLENS_...: the server refuses variables of that prefix that it does not know.
KEY_VARIABLE = "BENCH_KEY"

_JSON = "application/json"
_PHOTOGRAPHS = 64
_PICTURES_OF_A_PRODUCT = 4
_DRAWN_AT_ONCE = 4096

_COLOURS = ("black", "white", "red", "blue", "green", "yellow", "brown", "grey", "pink", "orange", "purple", "golden")
_LOOKS = ("small", "large", "old", "new", "shiny", "plain", "striped", "round", "wooden", "plastic", "metal", "soft")
_PLACES = ("", " on a table", " in a box", " on white", " seen from above", " in a shop window", " on the grass")


# --- the options, which `python -m bench load` hands on to locust -----------------------------------------------------


def add_options(parser: argparse._ArgumentGroup) -> None:
    """The options that say what is sent, the same for locust and for `python -m bench load`."""
    parser.add_argument("--mix", metavar="KIND=SHARE,...", default="", help=f"kinds of request ({DEFAULT_MIX})")
    parser.add_argument(
        "--zipf", metavar="EXPONENT", default="0", help="repeat pictures and words, 1.1 as shops do; 0: all alike (0)"
    )
    parser.add_argument("--distinct", type=int, default=10_000, help="so many different pictures (10000)")
    parser.add_argument(
        "--pictures", metavar="FOLDER", default="", help="pictures to send; else photographs, 640 x 480"
    )
    parser.add_argument("--words", metavar="FILE", default="", help="texts to search for, one a line; else objects")
    parser.add_argument("--demo-share", type=float, default=0.5, help="share of demo pictures among searches (0.5)")
    parser.add_argument("--client", default="demo", help="clientId to search as (demo)")
    parser.add_argument("--limit", type=int, default=24, help="matches to ask for (24)")


def arguments_of(asked: argparse.Namespace) -> list[str]:
    """The same options again, for another command line."""
    names = ("mix", "zipf", "distinct", "pictures", "words", "demo_share", "client", "limit")
    return [f"--{name.replace('_', '-')}={getattr(asked, name)}" for name in names]


def refused(asked: argparse.Namespace) -> str | None:
    """Why these options make no sense, in a sentence; None when they do."""
    try:
        read_mix(asked.mix)
        read_exponent(asked.zipf)
    except ValueError as error:
        return str(error)
    if not 0 <= asked.demo_share <= 1:
        return "--demo-share takes 0 to 1"
    if asked.distinct < 1:
        return "--distinct takes a number above 0"
    if not 1 <= asked.limit <= 1000:
        return "--limit takes 1 to 1000"
    return None


def refused_host(host: str, allow_remote: bool) -> str | None:
    """Why this server is not loaded; None when it may be."""
    try:
        parts = urlsplit(host)
        name, _ = parts.hostname, parts.port
    except ValueError:
        return f"--host takes an address such as http://127.0.0.1:8000, not {host!r}"
    if name is None or parts.scheme not in ("http", "https"):
        return "say which server, such as --host http://127.0.0.1:8000"
    if parts.username or parts.password:
        return f"--host takes no password; a key goes into {KEY_VARIABLE}"
    if not allow_remote and not is_loopback(name):
        return f"{name} is not this machine; --allow-remote loads it all the same, and somebody may be using it"
    return None


def is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def read_mix(text: str) -> dict[str, int]:
    """`search=6,words=2` as {"search": 6, "words": 2}. Raises ValueError with a sentence."""
    mix: dict[str, int] = {}
    for entry in (text or DEFAULT_MIX).split(","):
        kind, equals, share = (part.strip() for part in entry.partition("="))
        if kind not in KINDS:
            raise ValueError(f"--mix knows {', '.join(KINDS)}, not {kind!r}")
        if not equals or not re.fullmatch("[0-9]{1,4}", share):
            raise ValueError(f"--mix takes shares in whole numbers, such as {kind}=2, not {entry.strip()!r}")
        if kind in mix:
            raise ValueError(f"--mix names {kind} twice")
        mix[kind] = int(share)
    if not sum(mix.values()):
        raise ValueError("--mix leaves nothing to send")
    return {kind: share for kind, share in mix.items() if share}


def read_exponent(text: str) -> float:
    """Raises ValueError with a sentence."""
    try:
        exponent = float(text)
    except ValueError:
        exponent = math.nan
    if not 0 <= exponent <= 5:
        raise ValueError(f"--zipf takes 0 (all alike) to 5, such as 1.1, not {text!r}")
    return exponent


def read_seconds(text: str) -> float:
    """`5s`, `500ms`, `2m` or `5` in seconds. Raises argparse's error, with a sentence."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(ms|s|m|)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"takes a time such as 5s, not {text!r}")
    return float(found[1]) * {"ms": 0.001, "m": 60.0}.get(found[2], 1.0)


# --- which one is next ------------------------------------------------------------------------------------------------


def deal(mix: Mapping[str, int]) -> Iterator[str]:
    """Kinds for ever, so evenly mixed that every stretch of them holds the shares, give or take one."""
    total = sum(mix.values())
    credit = dict.fromkeys(mix, 0)
    while True:
        for kind, share in mix.items():
            credit[kind] += share
        kind = max(credit, key=lambda one: credit[one])
        credit[kind] -= total
        yield kind


def ranks(count_: int, exponent: float, seed: int) -> Iterator[int]:
    """Numbers below `count_` for ever: rank r with a likelihood of (r + 1) ** -exponent, or each in turn for 0."""
    if not exponent:
        while True:
            yield from range(count_)
    weights = np.cumsum(np.arange(1, count_ + 1, dtype=np.float64) ** -exponent)
    chance = np.random.default_rng(seed)
    while True:
        yield from np.searchsorted(weights, chance.random(_DRAWN_AT_ONCE) * weights[-1]).tolist()


# --- what it must bring back ------------------------------------------------------------------------------------------


def wrong_search(picture: Picture | None, content: bytes) -> str | None:
    """What is wrong with a search's answer, in a few words; None when nothing is."""
    try:
        results = json.loads(content)["results"]
        if not results:
            return "no results"
        first, similarity = results[0]["productId"], results[0]["similarity"]
    except (ValueError, KeyError, TypeError, IndexError):
        return "the answer is not one of a search"
    # The names of products stay out of it: locust counts each different text as an error of its own.
    if picture is None or picture.product is None:
        return None
    if first != picture.product:
        return "another product came first"
    return None if similarity == 100.0 else "the same picture came first, but below 100 %"


def wrong_embedding(content: bytes) -> str | None:
    """What is wrong with an embedding; None when it is of unit length."""
    try:
        vector = np.asarray(json.loads(content)["embedding"], dtype=np.float64)
    except (ValueError, KeyError, TypeError):
        return "the answer is not an embedding"
    return None if vector.ndim == 1 and abs(np.linalg.norm(vector) - 1) < 1e-3 else "the vector is not of unit length"


def wrong_id(field: str, expected: str, content: bytes) -> str | None:
    """What is wrong with what was put in: it must name the product."""
    try:
        return None if json.loads(content)[field] == expected else "the answer names another product"
    except (ValueError, KeyError, TypeError):
        return "the answer is not what was put in"


# --- the requests -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One request that is ready to be sent."""

    name: str
    """The row that it is counted in: its kind, and after a comma what sets it apart."""
    method: str
    path: str
    body: bytes
    content_type: str
    wrong: Callable[[bytes], str | None]
    product: str | None = None
    """The product that is there once this is answered."""


class Traffic:
    """Requests, dealt out in turn to all callers.

    The server keeps the vectors of pictures by their bytes, so a picture that is sent twice costs next to nothing the
    second time. To be asked for `distinct` different ones, a few pictures get bytes at their end that no decoder looks
    at; `salt` makes them new to a server that a former run has been at. What is seen is the same, and so are vectors.
    """

    def __init__(
        self,
        *,
        demo: Sequence[Picture],
        other: Sequence[Picture],
        texts: Callable[[int, str], str],
        distinct: int,
        zipf: float,
        demo_share: float,
        client: str,
        limit: int,
        salt: str,
        words: str = "objects",
    ) -> None:
        self.products: list[str] = []
        """Every product that was asked for, whether or not it came to be."""
        self._demo, self._other, self._texts = demo, other, texts
        self._distinct, self._zipf, self._demo_share = distinct, zipf, demo_share
        self._client, self._limit, self._salt, self._words = client, limit, salt, words
        self._turns = count()
        names = (SEARCH_DEMO, SEARCH_OTHER, WORDS, EMBED)
        self._ranks = {name: ranks(distinct, zipf, seed) for seed, name in enumerate(names)}
        self._there: str | None = None
        self._room = 0
        self._uploads = count()

    @classmethod
    def read(cls, asked: argparse.Namespace) -> Traffic:
        """What the options ask for. Raises ValueError or OSError when there are no such pictures or words."""
        other = pictures.folder(Path(asked.pictures)) if asked.pictures else pictures.photographs(_PHOTOGRAPHS)
        return cls(
            demo=pictures.demo(),
            other=other,
            texts=_texts_of(Path(asked.words)) if asked.words else _objects(),
            distinct=asked.distinct,
            zipf=read_exponent(asked.zipf),
            demo_share=asked.demo_share,
            client=asked.client,
            limit=asked.limit,
            salt=os.urandom(4).hex(),
            words=hashlib.sha256(Path(asked.words).read_bytes()).hexdigest()[:12] if asked.words else "objects",
        )

    def described(self) -> dict[str, object]:
        """What two runs should have in common to be compared, beside their mix."""
        digest = hashlib.sha256(b"".join(hashlib.sha256(one.data).digest() for one in self._other))
        return {
            "zipf": self._zipf,
            "distinct": self._distinct,
            "demoShare": self._demo_share,
            "client": self._client,
            "limit": self._limit,
            "words": self._words,
            "pictures": {
                "count": len(self._other),
                "meanBytes": round(sum(len(one.data) for one in self._other) / len(self._other)),
                "digest": digest.hexdigest()[:12],
            },
        }

    def next(self, kind: str) -> Request:
        """The next request of a kind."""
        makers = {"search": self._search, "words": self._search_words, "embed": self._embed, "ingest": self._ingest}
        return makers[kind]()

    def is_there(self, product: str) -> None:
        """A product has been put in: pictures may be added to it."""
        self._there, self._room = product, _PICTURES_OF_A_PRODUCT

    def _search(self) -> Request:
        turn = next(self._turns)
        of_demo = int((turn + 1) * self._demo_share) > int(turn * self._demo_share)
        name = SEARCH_DEMO if of_demo else SEARCH_OTHER
        picture, data = self._variant(name, self._demo if of_demo else self._other, next(self._ranks[name]))
        form = pictures.form(data, {"clientId": self._client, "limit": str(self._limit)})
        return Request(name, "POST", "/v1/search", form, FORM_TYPE, partial(wrong_search, picture))

    def _search_words(self) -> Request:
        text = self._texts(next(self._ranks[WORDS]), self._salt)
        body = json.dumps({"text": text, "clientId": self._client, "limit": self._limit}).encode()
        return Request(WORDS, "POST", "/v1/search", body, _JSON, partial(wrong_search, None))

    def _embed(self) -> Request:
        _, data = self._variant(EMBED, self._other, next(self._ranks[EMBED]))
        return Request(EMBED, "POST", "/embed-image", pictures.form(data), FORM_TYPE, wrong_embedding)

    def _ingest(self) -> Request:
        """A product, or a picture of the last one. Pictures that are put in are always new, as a catalogue's are."""
        if self._there is None or not self._room:
            product = f"{INGEST_CLIENT}-{self._salt}-{len(self.products)}"
            self.products.append(product)
            body = json.dumps({"name": "Put in by a load test", "clientId": INGEST_CLIENT}).encode()
            path = f"/v1/products/{product}"
            return Request(INGEST_PRODUCT, "PUT", path, body, _JSON, partial(wrong_id, "id", product), product)
        self._room -= 1
        _, data = self._variant(INGEST_PICTURE, self._other, next(self._uploads))
        form = pictures.form(data, {"clientId": INGEST_CLIENT})
        path = f"/v1/products/{self._there}/media"
        return Request(INGEST_PICTURE, "POST", path, form, FORM_TYPE, partial(wrong_id, "productId", self._there))

    def _variant(self, name: str, of: Sequence[Picture], rank: int) -> tuple[Picture, bytes]:
        """The picture of this rank in this row, and its bytes: what one row asks for is no repeat in another."""
        picture = of[rank % len(of)]
        tag = f"{self._salt} {name} {rank}".encode()
        # A box named `free`: AVIF's parser wants boxes to the end, and no other format's decoder looks behind its own.
        return picture, picture.data + (8 + len(tag)).to_bytes(4, "big") + b"free" + tag


def _texts_of(path: Path) -> Callable[[int, str], str]:
    """The lines of a file, by rank, as they are."""
    texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"there is no text in {path}")
    return lambda rank, _: texts[rank % len(texts)]


def _objects() -> Callable[[int, str], str]:
    """`striped red accordion on a table`: an object by rank, looking different in each run."""
    listing = json.loads((pictures.DEMO / "catalogue.json").read_bytes())
    names = [one["name"].lower() for one in listing["products"]]

    def text(rank: int, salt: str) -> str:
        turn, which = divmod(rank + int(salt, 16), len(names))
        turn, colour = divmod(turn, len(_COLOURS))
        turn, look = divmod(turn, len(_LOOKS))
        return f"{_LOOKS[look]} {_COLOURS[colour]} {names[which]}{_PLACES[turn % len(_PLACES)]}"

    return text
