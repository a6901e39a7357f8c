"""Words as people type them: the products that a name, a SKU, some words of these, or a misspelt word mean.

What products are called stands in tables of its own, which triggers keep (0019_words.sql): for each product its words
as lexemes, and for each client the words that another one may be a misspelling of. PostgreSQL's own text search does
the rest, without a dictionary of any language: words are compared letter by letter, once case and accents are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, scalar_row, tuple_row

from server.catalogue.declared import types_of
from server.catalogue.filters import Conditions
from server.catalogue.rows import MOST_BONUSES, Query
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner

BONUS = 20.0
"""For a likeness of 1. A tenth of it is as far as two cosines can be apart: so the likeness decides the order, pictures
among what is equally like, and what no word names comes behind."""

MOST_NAMED = MOST_BONUSES
"""Products that words name, in one answer. Where more answer equally well, those with the lowest ids are taken."""

# Products that may answer to words. Where more do, words do not tell them apart, and pictures do it better: then only
# what has the text as its name or SKU is named. With a filter more may answer, since it is asked afterwards.
_LOOKED_AT = 3_000
_LOOKED_AT_BEFORE_A_FILTER = 20_000

MOST_CHARACTERS = 500
"""Of a text that may name something: the longest name that a product may have. A longer text names nothing."""

MOST_WORDS = 16

# Of a word: letters from which on one of them may be wrong, and two. A shorter word is like too many others, and is
# corrected only beside a word that is long enough.
_ONE_WRONG_FROM = 4
_TWO_WRONG_FROM = 7
# Letters of the others from which on a word of the language may be misspelt, too: computer muse.
_TELLING = 6
_SHORTEST_BEGUN = 3
"""Letters that a word must have to be taken for the beginning of another one."""

_MOST_CORRECTIONS = 10
"""Words that one misspelt word is taken for: those that are nearest, and equally near."""

# Words that nothing need be called by, since people put them in between: articles, and, of, with, for, in a few
# languages, as words are folded. They count where a text has no others.
_BETWEEN = frozenset(
    [
        *("a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"),
        *("das", "dem", "den", "der", "des", "die", "ein", "eine", "einen", "fur", "im", "mit", "oder", "und", "von"),
        *("au", "aux", "avec", "de", "des", "du", "en", "et", "la", "le", "les", "pour", "un", "une"),
        *("al", "con", "del", "e", "el", "il", "las", "lo", "los", "para", "per", "por", "una", "y"),
        *("een", "en", "het", "met", "van", "voor"),
    ]
)

_BEGUN, _MISSPELT, _TWICE_MISSPELT = 0.6, 0.4, 0.3

By = Literal["sku", "name", "words", "begun", "misspelt"]
"""How a product answers to a text, best first: it is its SKU, or its name; the product has all of the words; it has
all, the last one being the beginning of one of its words; it has all once misspelt ones are corrected."""


@dataclass(frozen=True, slots=True)
class NamedProduct:
    """A product that a text names."""

    product_id: str
    by: By
    likeness: float
    """From 0 to 1, in steps of a tenth: 1 for a SKU or a name, 0.8 where it has all of the words, 0.6 where the last
    one is begun, 0.4 or, with several wrong letters, 0.3 where they are misspelt; and 0.1 more where the text is at
    least half as long as its name."""

    @property
    def bonus(self) -> float:
        return round(self.likeness * BONUS, 6)


@dataclass(frozen=True, slots=True)
class Naming:
    """The products that a text names, best first, and how it was read."""

    products: list[NamedProduct] = field(default_factory=list)
    corrected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words of the text that were taken for others."""

    @property
    def bonuses(self) -> dict[str, float]:
        """By the product's id, what its pictures have to be ranked by beside their cosine."""
        return {one.product_id: one.bonus for one in self.products}


class _Read(NamedTuple):
    """A text as words are compared."""

    joined: str
    words: list[str]
    code: str
    """What stands for the client in front of each word."""

    @property
    def asked(self) -> list[str]:
        """The words that a product must have."""
        telling = [word for word in self.words if word not in _BETWEEN]
        return list(dict.fromkeys(telling or self.words))

    @property
    def told(self) -> str:
        """Those, with nothing between them."""
        return "".join(self.asked)


class _Correction(NamedTuple):
    """What a word may be misspelt for."""

    edits: int
    """Letters that are wrong."""
    words: tuple[str, ...]
    """None: the word is left out."""


class Words:
    """Looks up what the words of texts name. Every method may raise CatalogueUnavailable."""

    def __init__(self, reads: Runner | Replica, queries: Queries, *, isolated: bool) -> None:
        """`queries`: those of the catalogue. `isolated`: whether statements run as a role under row-level security."""
        own = Queries.read("words.sql").borrowing(queries, "product_api_id").including("passing", "likeness")
        kept = "under_policy" if isolated else "of_client"
        parts = {
            "named": own.composed(f"named_{kept}"),
            "vocabulary": own.composed(f"vocabulary_{kept}"),
            "products": queries.composed(f"products_{kept}"),
        }
        hits = own.composed("hits", named=parts["named"])
        self._statements = {
            name: own.composed(name, **{**parts, "hits": hits}).as_bytes(None)
            for name in ("read", "find", "find_where", "known", "near")
        }
        self._reads = reads

    async def find(self, query: Query, text: str, *, is_word: Callable[[str], bool] = lambda _: False) -> Naming:
        """The products that the text names, among those that the query may find; at most MOST_NAMED.

        `is_word`: whether a word, in lower case, is one of the language that pictures are searched with: alone, such a
        word means what it says and is not corrected. A word that a passing product has never is.
        """
        if len(text) > MOST_CHARACTERS:
            return Naming()
        client_id, names = query.client_id, query.filter.names | query.within.names
        conditions = Conditions.of(query.filter, query.within, types=await types_of(self._reads, client_id, names))
        if conditions.contradictory:
            return Naming()
        parameters = {
            "client_id": client_id,
            "text": text.replace("\0", " "),
            "product_ids": conditions.product_ids,
            "attributes": conditions.jsonpath,
            "inactive": conditions.inactive,
            "most": MOST_NAMED,
        }
        filtered = conditions.product_ids is not None or conditions.jsonpath is not None

        async def find(connection: AsyncConnection[TupleRow]) -> Naming:
            lookup = _Lookup(connection, self._statements, parameters, filtered, is_word)
            return await lookup.naming()

        return await self._reads.read(find, "find_words", client=client_id)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One text's words, on one connection."""

    connection: AsyncConnection[TupleRow]
    statements: Mapping[str, bytes]
    parameters: Mapping[str, Any]
    filtered: bool
    is_word: Callable[[str], bool]

    async def naming(self) -> Naming:
        cursor = self.connection.cursor(row_factory=class_row(_Read))
        await cursor.execute(self.statements["read"], self.parameters)
        (read,) = await cursor.fetchall()
        if not read.asked or len(read.asked) > MOST_WORDS:
            return Naming()
        whole = _any_of(*(_one(read.code, kind + read.joined) for kind in "=#"), _one(read.code, f"={read.told}"))
        exactly = _any_of(_all_of([[word] for word in read.asked], read.code), _one(read.code, read.joined), whole)
        found: list[NamedProduct] | None = None
        for asked in (_any_of(_begun(read), exactly), exactly, whole):
            if (found := await self._find(read, exactly, asked, "begun", _BEGUN)) is not None:
                break
        found = found or []
        if found and found[0].by != "begun":
            return Naming(found)
        corrections = await self._corrections(read)
        if not corrections:
            return Naming(found)
        wrong = sum(one.edits for one in corrections.values())
        meant = [corrections[word].words if word in corrections else (word,) for word in read.asked]
        asked = _all_of([some for some in meant if some], read.code, begun=read.asked[-1] not in corrections)
        likeness = _MISSPELT if wrong <= 1 else _TWICE_MISSPELT
        more = await self._find(read, exactly, asked, "misspelt", likeness) if asked else None
        there = {one.product_id for one in found}
        found += [one for one in more or () if one.product_id not in there]
        return Naming(found[:MOST_NAMED], {word: one.words for word, one in corrections.items()} if more else {})

    async def _find(
        self, read: _Read, exactly: str, asked: str, otherwise: By, likeness: float
    ) -> list[NamedProduct] | None:
        """The products that answer best; None where too many answer for the words to tell them apart."""
        looked = _LOOKED_AT_BEFORE_A_FILTER if self.filtered else _LOOKED_AT
        spelt = {
            "joined": read.joined,
            "told": read.told,
            "exactly": exactly,
            "asked": asked,
            "otherwise": otherwise,
            "likeness": likeness,
            "looked": looked,
        }
        cursor = self.connection.cursor(row_factory=tuple_row)
        await cursor.execute(self.statements["find_where" if self.filtered else "find"], {**self.parameters, **spelt})
        rows = await cursor.fetchall()
        if rows[0][-1] > looked:
            return None
        return [NamedProduct(*row[:-1]) for row in rows if row[0] is not None]

    async def _corrections(self, read: _Read) -> dict[str, _Correction]:
        """What words of the text may be misspelt for; nothing where all are known, or like no other."""
        may = {word: _may_be_wrong(word, read.asked, self.is_word) for word in read.asked}
        suspect = [word for word in read.asked if may[word]]
        there = await self._known(read, suspect)
        if not (unknown := [word for word in suspect if word not in there]):
            return {}
        cursor = self.connection.cursor(row_factory=tuple_row)
        await cursor.execute(self.statements["near"], {**self.parameters, "words": unknown})
        likely: dict[str, dict[str, int]] = {}
        for word, near in await cursor.fetchall():
            if (distance := edits(word, near)) <= may[word]:
                likely.setdefault(word, {})[near] = distance
        # The nearest one may be a word of products that do not pass, or that are no more.
        there = await self._known(read, sorted({near for of_one in likely.values() for near in of_one}))
        # One or two letters that nothing is called by, beside words that tell more, are left out.
        corrections = {word: _Correction(1, ()) for word in unknown if len(word) < _SHORTEST_BEGUN}
        for word, of_one in likely.items():
            if passing := {near: distance for near, distance in of_one.items() if near in there}:
                least = min(passing.values())
                nearest = sorted(near for near, distance in passing.items() if distance == least)
                corrections[word] = _Correction(least, tuple(nearest[:_MOST_CORRECTIONS]))
        return corrections

    async def _known(self, read: _Read, words: Sequence[str]) -> set[str]:
        """Those of the words that some product has which may be found."""
        if not words:
            return set()
        cursor = self.connection.cursor(row_factory=scalar_row)
        asked = {**self.parameters, "words": [*words], "alone": [_one(read.code, word) for word in words]}
        await cursor.execute(self.statements["known"], asked)
        return set(await cursor.fetchall())


def edits(one: str, other: str) -> int:
    """How many letters must be added, left out, changed, or swapped with their neighbour to make one of the other.

    The restricted Damerau-Levenshtein distance: no letter is changed twice.
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        this = [row]
        for column, theirs in enumerate(other, 1):
            least = min(last[column] + 1, this[column - 1] + 1, last[column - 1] + (letter != theirs))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == theirs:
                least = min(least, before[column - 2] + 1)
            this.append(least)
        before, last = last, this
    return last[-1]


def _may_be_wrong(word: str, words: Sequence[str], is_word: Callable[[str], bool]) -> int:
    """How many letters of one of the words may be wrong.

    Digits are right: a SKU is like its neighbours, and is none of them.
    """
    if max(map(len, words)) < _ONE_WRONG_FROM or any(character.isdigit() for character in word):
        return 0
    if is_word(word):
        return int(sum(map(len, words)) - len(word) >= _TELLING)
    return 1 if len(word) < _TWO_WRONG_FROM else 2


# --- the text search's queries: words have neither quotes nor backslashes --------------------------------------------


def _one(code: str, word: str, *, begun: bool = False) -> str:
    """A word, or what begins with it."""
    return f"'{code}:{word}'" + (":*" if begun and len(word) >= _SHORTEST_BEGUN else "")


def _all_of(words: Sequence[Sequence[str]], code: str, *, begun: bool = False) -> str:
    """Of each of these one; `begun`: the last one may be the beginning of a word."""
    last = len(words) - 1
    return " & ".join(
        _any_of(*(_one(code, word, begun=begun and place == last) for word in some)) for place, some in enumerate(words)
    )


def _any_of(*queries: str) -> str:
    return f"({' | '.join(queries)})"


def _begun(read: _Read) -> str:
    """All of the words, the last one begun; or the whole, as one word or, where it has digits, as a SKU, begun."""
    ways = {_all_of([[word] for word in read.asked], read.code, begun=True), _one(read.code, read.joined, begun=True)}
    if any(character.isdigit() for character in read.joined):
        ways.add(_one(read.code, f"#{read.joined}", begun=True))
    return _any_of(*sorted(ways))
