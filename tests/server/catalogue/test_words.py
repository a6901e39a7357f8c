"""Words as people type them: which products they name, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.lexicon import PRODUCTS_AT_ONCE
from server.catalogue.rows import MOST_BONUSES, Query, SpaceRow
from server.catalogue.words import MOST_CHARACTERS, MOST_WORDS, Naming, edits
from server.database.isolation import SERVING_ROLE
from server.database.locks import LOCKS_OF_WORDS
from server.database.migrations import load_migrations, migrate
from server.database.pool import open_pool
from server.database.queries import SQL, Queries
from server.errors import ProductNotFound
from server.ingest import demo
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import role, run_sql
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    return open_test_space(database_url)


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def catalogue(database_url: str, space: SpaceRow, request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    async with (
        open_pool(database_url, min_size=1, max_size=4, timeout=30, role=request.param) as pool,
        open_pool(database_url, min_size=1, max_size=2, timeout=30) as background,
    ):
        yield Catalogue(pool, space, background=background)


def add(
    url: str,
    name: str,
    *,
    id: str | None = None,  # as the column
    client: str = "acme",
    sku: str | None = None,
    active: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """A product, as another program writes it. Its id is its name unless another one is given."""
    run_sql(
        url,
        'INSERT INTO products (id, "clientId", name, sku, "isActive", attributes) VALUES (%s, %s, %s, %s, %s, %s)',
        (id or name, client, name, sku, active, Jsonb(dict(attributes or {}))),
    )


def asked(client: str = "acme", filter: Filter | None = None, within: Filter | None = None) -> Query:
    return Query(client, [1.0] + [0.0] * (D - 1), filter=filter or Filter(), within=within or Filter())


async def named(catalogue: Catalogue, text: str, query: Query | None = None) -> list[tuple[str, str, float]]:
    """Products, how they answer, and how well."""
    naming = await catalogue.words.find(query or asked(), text)
    return [(one.product_id, one.by, one.likeness) for one in naming.products]


async def ids(catalogue: Catalogue, text: str, query: Query | None = None) -> list[str]:
    return [product for product, *_ in await named(catalogue, text, query)]


def load_demo(url: str) -> None:
    for one in demo.products():
        add(url, one.name, id=one.id, client="demo", sku=one.sku)


# --- what names a product --------------------------------------------------------------------------------------------


async def test_names_skus_beginnings_and_misspelt_words_find_products_of_the_demo_catalogue(
    catalogue: Catalogue, database_url: str
) -> None:
    load_demo(database_url)
    demo_query = asked("demo")
    expected: dict[str, list[tuple[str, str, float]]] = {
        "keyboard": [("demo-keyboard", "name", 1.0), ("demo-piano-keyboard", "words", 0.9)],
        "keybord": [("demo-keyboard", "misspelt", 0.5), ("demo-piano-keyboard", "misspelt", 0.5)],
        "bycicle": [("demo-bicycle", "misspelt", 0.4)],
        "DEMO-0001": [("demo-abacus", "sku", 1.0)],
        "demo 0001": [("demo-abacus", "sku", 1.0)],
        "demo0001": [("demo-abacus", "sku", 1.0)],
        "piano keyboard": [("demo-piano-keyboard", "name", 1.0)],
        "keyboard piano": [("demo-piano-keyboard", "words", 0.9)],
        "the piano's keyboard": [("demo-piano-keyboard", "misspelt", 0.5)],
        "a keyboard": [("demo-keyboard", "name", 1.0), ("demo-piano-keyboard", "words", 0.9)],
        "computer muse": [("demo-computer-mouse", "misspelt", 0.5)],
        "cricket bt": [("demo-cricket-bat", "misspelt", 0.5)],
        "flipflop": [("demo-flip-flop", "name", 1.0)],
        "teddybear": [("demo-teddy-bear", "name", 1.0)],
        "PINATA": [("demo-pinata", "name", 1.0)],
        "pin\u0303ata": [("demo-pinata", "name", 1.0)],
        "xqzv": [],
        "sailing": [("demo-sailing-boat", "words", 0.9)],
    }
    for text, products in expected.items():
        assert await named(catalogue, text, demo_query) == products, text
    begun = await named(catalogue, "keyb", demo_query)
    assert begun[:2] == [("demo-keyboard", "begun", 0.7), ("demo-piano-keyboard", "begun", 0.6)]
    assert len(await ids(catalogue, "DEMO-00", demo_query)) == 99
    assert len(await ids(catalogue, "demo", demo_query)) == len(demo.products())


async def test_a_word_of_the_language_alone_means_what_it_says(catalogue: Catalogue, database_url: str) -> None:
    for name in ("Computer mouse", "Shirt and tie"):
        add(database_url, name)

    async def found(text: str, *words: str) -> Naming:
        return await catalogue.words.find(asked(), text, is_word=lambda word: word in words)

    assert (await found("house")).corrected == {"house": ("mouse",)}
    assert (await found("house", "house")).products == []
    assert (await found("skirt", "skirt")).products == []
    # Beside words that tell enough it may be misspelt all the same.
    assert [one.product_id for one in (await found("computer house", "house")).products] == ["Computer mouse"]


async def test_a_word_that_a_product_has_is_never_corrected(catalogue: Catalogue, database_url: str) -> None:
    for name in ("Sailing boat", "Coat", "Red coat", "Green boots"):
        add(database_url, name)
    assert await ids(catalogue, "boat") == ["Sailing boat"]
    assert await ids(catalogue, "red boat") == []
    assert sorted(await ids(catalogue, "boatt")) == ["Sailing boat"]


async def test_what_is_known_is_what_may_be_found(catalogue: Catalogue, database_url: str) -> None:
    """A word of products that do not pass must not show, neither by an answer nor by the lack of one."""
    add(database_url, "Goats", attributes={"shown": False})
    add(database_url, "Boats", attributes={"shown": True})
    shown = Filter.of({"attributes": {"shown": True}})
    for query in (asked(filter=shown), asked(within=shown)):
        assert await ids(catalogue, "goats", query) == ["Boats"]
    assert await ids(catalogue, "goats") == ["Goats"]


async def test_digits_are_right(catalogue: Catalogue, database_url: str) -> None:
    add(database_url, "Lamp", sku="K-1")
    add(database_url, "Chair", sku="ABCD-1234")
    assert await named(catalogue, "K-1") == [("Lamp", "sku", 1.0)]
    assert await named(catalogue, "k1") == [("Lamp", "sku", 1.0)]
    assert await named(catalogue, "abcd-1234") == [("Chair", "sku", 1.0)]
    assert await named(catalogue, "abcd-12") == [("Chair", "begun", 0.7)]
    for near in ("K-2", "abcd-1235", "abcd-1243", "abcd1134"):
        assert await ids(catalogue, near) == []


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("Café-Crème TASCHE", ["cafe creme tasche", "CAFE\u0301 CRE\u0300ME", "cafecreme", "tashe cafe"]),
        ("Straße Øresund Łódź", ["strasse oresund lodz", "STRASSE", "STRAẞE ØRESUND"]),
        ("Жёлтая ЁЛКА", ["желтая елка", "ёлка ЖЁЛТАЯ", "елка", "жолтая елка"]),
        ("Άνοιξη ΣΟΦΟΣ", ["ανοιξη σοφος", "ΑΝΟΙΞΗ", "σοφοσ"]),
        ("한국어 신발", ["신발", "한국어", "신발 한국어", "\u1109\u1175\u11ab\u1107\u1161\u11af"]),
        ("红色连衣裙", ["连衣裙", "红色", "裙", "红色连衣裙", "连衣"]),
        ("パソコンケース iPhone15用", ["ケース", "iphone15", "ﾊﾟｿｺﾝ", "ＩＰＨＯＮＥ１５"]),
        ("กระเป๋า", ["กระเป๋า", "เป๋า"]),
        ("שָׁלוֹם", ["שלום", "שָׁלוֹם"]),
        ("مُحَمَّد", ["محمد"]),
        ("हिन्दी जूते", ["जूते", "हिन्दी"]),
        ("Ärmel ǅ", ["armel", "ARMEL", "a\u0308rmel"]),
    ],
    ids=["french", "latin", "russian", "greek", "korean", "chinese", "japanese", "thai", "hebrew", "arabic", "hindi",
         "digraph"],
)  # fmt: skip
async def test_letters_of_any_language_are_compared_without_case_and_accents(
    catalogue: Catalogue, database_url: str, name: str, texts: list[str]
) -> None:
    add(database_url, name, id="it")
    add(database_url, "Something else", id="other")
    for text in texts:
        assert await ids(catalogue, text) == ["it"], text


@pytest.mark.parametrize(
    "text",
    ["", " ", "!!!", "''", '"', "%", "%%%", "\\", "'; DROP TABLE products; --", "a' | 'b", ":*", "& | ! <->", "\0",
     "\t\n",
     "()", "$1", "%(client_id)s", "{}", "x" * 10_000, "word " * 2_000, "1", "٠", "0" * 300, "\U0001f600"],
    ids=["empty", "space", "marks", "quotes", "double quote", "percent", "percents", "backslash", "injection", "or",
         "prefix", "operators", "nul", "white", "brackets", "parameter", "named parameter", "braces", "long word",
         "many words", "digit", "arabic digit", "digits", "emoji"],
)  # fmt: skip
async def test_whatever_is_typed_is_only_words(catalogue: Catalogue, database_url: str, text: str) -> None:
    add(database_url, "A lamp")
    assert await ids(catalogue, text) == []
    assert await ids(catalogue, "lamp") == ["A lamp"]


@pytest.mark.parametrize("mark", [*"'\"%\\!&|:*()<>,.;-_/+?$#@~^`[]{}=\0\t\n«»—\u00a0。"], ids=ascii)
async def test_what_stands_between_words_only_parts_them(catalogue: Catalogue, database_url: str, mark: str) -> None:
    add(database_url, f"Red{mark}lamp" if mark != "\0" else "Red lamp")
    add(database_url, "Lamp", id="other")
    for text in (f"red{mark}lamp", f"{mark}red lamp{mark}", f"lamp{mark} {mark}red", "redlamp"):
        assert len(await ids(catalogue, text)) == 1, text


async def test_a_text_that_is_too_long_for_a_name_names_nothing(catalogue: Catalogue, database_url: str) -> None:
    words = [f"word{number}" for number in range(MOST_WORDS + 1)]
    add(database_url, " ".join(words), id="many")
    assert await ids(catalogue, " ".join(words[:MOST_WORDS])) == ["many"]
    assert await ids(catalogue, " ".join(words)) == []
    add(database_url, "x" * MOST_CHARACTERS, id="long")
    assert await ids(catalogue, "x" * MOST_CHARACTERS) == ["long"]
    assert await ids(catalogue, "x" * (MOST_CHARACTERS + 1)) == []


@pytest.mark.parametrize("name", ["", "!!!", "x" * 5000, "word " * 5000, "ﷺ" * 400, "字" * 3000], ids=len)
async def test_any_name_that_sql_may_write_is_taken(catalogue: Catalogue, database_url: str, name: str) -> None:
    add(database_url, name, id="odd", sku="ﷺ" * 255, attributes={"brand": [5, None, True, {"a": 1}, "y" * 100_000]})
    add(database_url, "Lamp")
    assert await ids(catalogue, "lamp") == ["Lamp"]
    assert await ids(catalogue, "5") == ["odd"]


def test_edits_count_letters_added_left_out_changed_and_swapped() -> None:
    expected = {("keyboard", "keyboard"): 0, ("keybord", "keyboard"): 1, ("kyeboard", "keyboard"): 1,
                ("keyboardd", "keyboard"): 1, ("keybaard", "keyboard"): 1, ("bycicle", "bicycle"): 2, ("", "abc"): 3,
                ("ca", "abc"): 3}  # fmt: skip
    for (one, other), distance in expected.items():
        assert edits(one, other) == edits(other, one) == distance


# --- in step with products -------------------------------------------------------------------------------------------


async def test_every_change_of_a_product_shows_at_once(catalogue: Catalogue, database_url: str) -> None:
    await catalogue.put_product("acme", "p", name="Lamp", sku="L-1", attributes={"brand": "Lumo", "note": "unread"})
    for text in ("lamp", "L-1", "lumo"):
        assert await ids(catalogue, text) == ["p"]
    assert await ids(catalogue, "unread") == []
    run_sql(database_url, "UPDATE products SET name = 'Chair', sku = 'C-2' WHERE id = 'p'")
    assert [await ids(catalogue, text) for text in ("lamp", "l-1", "chair", "c-2", "chiar")] == [
        [],
        [],
        ["p"],
        ["p"],
        ["p"],
    ]
    run_sql(database_url, """UPDATE products SET attributes = '{"brand": ["Sitwell", "Acme"]}' WHERE id = 'p'""")
    assert [await ids(catalogue, text) for text in ("lumo", "sitwell", "acme chair")] == [[], ["p"], ["p"]]
    run_sql(database_url, "UPDATE products SET id = 'q' WHERE id = 'p'")
    assert await ids(catalogue, "chair") == ["q"]
    run_sql(database_url, """UPDATE products SET "clientId" = 'other' WHERE id = 'q'""")
    assert await ids(catalogue, "chair") == []
    assert await ids(catalogue, "chair", asked("other")) == ["q"]
    run_sql(database_url, "DELETE FROM products")
    assert await ids(catalogue, "chair", asked("other")) == []
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_named") == [(0,)]


async def test_a_write_that_is_refused_or_changes_nothing_leaves_the_words(
    catalogue: Catalogue, database_url: str
) -> None:
    add(database_url, "Lamp")
    before = run_sql(database_url, "SELECT xmin::text FROM twinlens_named")
    with pytest.raises(ProductNotFound):
        await catalogue.delete_product("acme", "other")
    run_sql(database_url, """UPDATE products SET name = name, "updatedAt" = now()""")
    assert run_sql(database_url, "SELECT xmin::text FROM twinlens_named") == before
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE products SET name = 'Chair'")
        connection.rollback()
    assert await ids(catalogue, "lamp") == ["Lamp"]


async def test_many_rows_of_one_statement_and_of_copy_are_written_down(catalogue: Catalogue, database_url: str) -> None:
    run_sql(
        database_url,
        """INSERT INTO products (id, "clientId", name)
        SELECT 'p' || n, CASE n % 2 WHEN 0 THEN 'acme' ELSE 'other' END, 'Thing number' || n
        FROM generate_series(1, 200) n""",
    )
    copying = 'COPY products (id, "clientId", name) FROM STDIN'
    with psycopg.connect(database_url) as connection, connection.cursor().copy(copying) as copy:
        for number in range(50):
            copy.write_row((f"c{number}", "acme", f"Copied{number} lamp"))
    assert await ids(catalogue, "number44") == ["p44"]
    assert await ids(catalogue, "number45") == []
    assert len(await ids(catalogue, "lamp")) == 50
    run_sql(database_url, "UPDATE products SET name = 'Renamed ' || id")
    assert (await ids(catalogue, "renamed p44"), await ids(catalogue, "lamp")) == (["p44"], [])
    words = run_sql(
        database_url, """SELECT word, count(*) FROM twinlens_words GROUP BY "clientId", word HAVING count(*) > 1"""
    )
    assert words == []


async def test_a_role_that_may_only_write_products_can(catalogue: Catalogue, database_url: str) -> None:
    with role(database_url) as name:
        run_sql(database_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON products TO {name}")
        with psycopg.connect(database_url) as connection:
            connection.execute(f"SET ROLE {name}".encode())
            connection.execute("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'Lamp')""")
            connection.execute("UPDATE products SET name = 'Lantern' WHERE id = 'p'")
        assert await ids(catalogue, "lantern") == ["p"]
        run_sql(database_url, f"REVOKE ALL ON products FROM {name}")


async def test_two_writers_of_the_same_words_do_not_wait_for_each_other(
    catalogue: Catalogue, database_url: str
) -> None:
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as other:
        for connection in (one, other):
            connection.execute("SET lock_timeout = '3s'")
        one.execute(
            """INSERT INTO products (id, "clientId", name) VALUES ('a', 'acme', 'Lantern'), ('b', 'acme', 'Chair')"""
        )
        other.execute(
            """INSERT INTO products (id, "clientId", name) VALUES ('c', 'acme', 'Chair'), ('d', 'acme', 'Lantern')"""
        )
    assert sorted(await ids(catalogue, "lantern")) == ["a", "d"]
    assert sorted(await ids(catalogue, "lantrn")) == ["a", "d"]


# --- whose products, and which ---------------------------------------------------------------------------------------


async def test_nobody_s_words_find_another_s_products(catalogue: Catalogue, database_url: str) -> None:
    for client in ("ours", "theirs"):
        add(database_url, "Lamp of " + client, id=f"{client}-lamp", client=client, sku="SAME-1")
    add(database_url, "Secretword", id="theirs-secret", client="theirs")
    ours = asked("ours")
    for text in ("lamp", "SAME-1", "lmap", "lam", "lamp of ours"):
        assert await ids(catalogue, text, ours) == ["ours-lamp"], text
    for text in ("secretword", "secretwrd", "secr", "lamp of theirs", "theirs"):
        assert await ids(catalogue, text, ours) == [], text
    assert await ids(catalogue, "secretwrd", asked("theirs")) == ["theirs-secret"]


async def test_a_statement_that_forgets_its_client_finds_nothing_of_another_under_row_level_security(
    database_url: str, space: SpaceRow
) -> None:
    for client in ("ours", "theirs"):
        add(database_url, "Lamp", id=f"{client}-lamp", client=client)
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        words = Catalogue(pool, space).words
        forgetful = {
            name: text.replace(b'n."clientId" = %(client_id)s', b"true").replace(
                b'w."clientId" = %(client_id)s', b"true"
            )
            for name, text in words._statements.items()
        }
        assert forgetful != words._statements
        words._statements.update(forgetful)
        spied = Query("ours", [1.0] + [0.0] * (D - 1))
        assert [one.product_id for one in (await words.find(spied, "lamp")).products] == ["ours-lamp"]
        assert [one.product_id for one in (await words.find(spied, "lammp")).products] == ["ours-lamp"]


async def test_the_serving_role_reads_the_words_of_one_client_and_writes_none(
    database_url: str, space: SpaceRow
) -> None:
    for client in ("ours", "theirs"):
        add(database_url, "Lamp " + client, id=client, client=client)
    with psycopg.connect(database_url) as connection:
        connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
        for setting, expected in ((None, []), ("ours", ["ours"]), ("theirs", ["theirs"])):
            if setting is not None:
                connection.execute("SELECT set_config('twinlens.client', %s, true)", (setting,))
            for view in ("twinlens_client_named", "twinlens_client_words"):
                found = connection.execute(f'SELECT DISTINCT "clientId" FROM {view}'.encode()).fetchall()
                assert [client for (client,) in found] == expected
        connection.rollback()
    for table in ("twinlens_named", "twinlens_words", "twinlens_words_due"):
        for statement in (f"SELECT FROM {table}", f"DELETE FROM {table}"):
            with psycopg.connect(database_url) as connection:
                connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_what_is_not_active_is_named_only_where_it_is_asked_for(catalogue: Catalogue, database_url: str) -> None:
    add(database_url, "Lamp", active=False)
    assert await ids(catalogue, "lamp") == []
    assert await ids(catalogue, "lmap") == []
    operators = asked(filter=Filter.of({"isActive": "any"}))
    assert await ids(catalogue, "lamp", operators) == ["Lamp"]
    run_sql(database_url, """UPDATE products SET "isActive" = true""")
    assert await ids(catalogue, "lamp") == ["Lamp"]


async def test_filters_hold_for_what_words_name(catalogue: Catalogue, database_url: str) -> None:
    for number, colour in enumerate(("red", "blue", "red")):
        add(database_url, f"Lamp {number}", id=str(number), attributes={"colour": colour, "price": str(number)})
    red = Filter.of({"attributes": {"colour": "red"}})
    assert await ids(catalogue, "lamp", asked(filter=red)) == ["0", "2"]
    assert await ids(catalogue, "lamp", asked(within=red)) == ["0", "2"]
    assert await ids(catalogue, "lanp", asked(within=red)) == ["0", "2"]
    assert await ids(catalogue, "lamp", asked(filter=Filter.of({"productIds": ["1", "2"]}))) == ["1", "2"]
    assert await ids(catalogue, "lamp", asked(filter=Filter.of({"productIds": ["1"]}), within=red)) == []
    await catalogue.declare("acme", {"price": "number"})
    cheap = Filter.of({"attributes": {"price": {"lt": 2}}})
    assert await ids(catalogue, "lamp", asked(filter=cheap)) == ["0", "1"]


async def test_ids_are_those_of_the_api(catalogue: Catalogue) -> None:
    """Two clients may have products of one id, of which one is elsewhere in the database."""
    for client in ("acme", "other"):
        await catalogue.put_product(client, "lamp-1", name="Lamp")
    assert [await ids(catalogue, "lamp", asked(client)) for client in ("acme", "other")] == [["lamp-1"]] * 2
    shown = Filter.of({"productIds": ["lamp-1"]})
    assert await ids(catalogue, "lamp", asked("other", filter=shown)) == ["lamp-1"]


async def test_words_that_too_many_products_have_tell_none_apart_but_names_and_skus_do(
    catalogue: Catalogue, database_url: str
) -> None:
    run_sql(
        database_url,
        """INSERT INTO products (id, "clientId", name, sku, attributes)
        SELECT 'p' || n, 'acme', 'Shirt in colour ' || n, 'S-' || n, jsonb_build_object('n', n)
        FROM generate_series(1, 3100) n""",
    )
    add(database_url, "Shirt")
    assert await named(catalogue, "shirt") == [("Shirt", "name", 1.0)]
    assert await named(catalogue, "a shirt") == [("Shirt", "name", 1.0)]
    assert await ids(catalogue, "shirt colour") == []
    assert (await named(catalogue, "S-17"))[0] == ("p17", "sku", 1.0)
    assert (await named(catalogue, "shirt 17"))[0] == ("p17", "words", 0.8)
    # With a filter more may answer.
    few = asked(filter=Filter.of({"attributes": {"n": {"lte": 3}}}))
    assert sorted(await ids(catalogue, "shirt", few)) == ["p1", "p2", "p3"]
    many = asked(filter=Filter.of({"attributes": {"n": {"lte": 2000}}}))
    found = await ids(catalogue, "shirt", many)
    assert len(found) == MOST_BONUSES
    assert found == await ids(catalogue, "shirt", many) == sorted(found)


# --- which attributes, and what is due -------------------------------------------------------------------------------


async def test_a_client_chooses_the_attributes_whose_words_are_searched(
    catalogue: Catalogue, database_url: str
) -> None:
    attributes = {"brand": "Lumo", "collection": ["Winter", "Oak"], "description": "soft"}
    add(database_url, "Lamp", attributes=attributes)
    add(database_url, "Lamp", id="other", client="other", attributes=attributes)
    usual = (await catalogue.declarations.of("acme")).searchable
    assert {"brand", "category", "colour", "color"} <= {*usual}
    assert "description" not in usual
    chosen = await catalogue.declare("acme", {"price": "number"}, ["collection", "collection"])
    assert (chosen.types, chosen.searchable) == ({"price": "number"}, ["collection"])
    assert await catalogue.declarations.of("acme") == chosen
    assert [await ids(catalogue, text) for text in ("lumo", "winter", "oak lamp", "soft")] == [
        [],
        ["Lamp"],
        ["Lamp"],
        [],
    ]
    assert await ids(catalogue, "lumo", asked("other")) == ["other"]
    add(database_url, "Chair", attributes=attributes)
    assert sorted(await ids(catalogue, "winter")) == ["Chair", "Lamp"]
    assert (await catalogue.declare("acme", {}, [])).searchable == []
    assert [await ids(catalogue, text) for text in ("lumo", "winter", "lamp")] == [[], [], ["Lamp"]]
    assert (await catalogue.declare("acme", {})).searchable == usual
    assert sorted(await ids(catalogue, "lumo")) == ["Chair", "Lamp"]
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_words_due") == [(0,)]


async def test_who_writes_a_product_while_attributes_are_chosen_knows_what_is_chosen(
    catalogue: Catalogue, database_url: str
) -> None:
    with psycopg.connect(database_url) as writer:
        writer.execute("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'Lamp')""")
        held = run_sql(
            database_url,
            """SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND classid = %s::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
            (LOCKS_OF_WORDS,),
        )
        assert held == [("ShareLock",)]
        with psycopg.connect(database_url) as chooser:
            chooser.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                chooser.execute("INSERT INTO twinlens_searchable VALUES ('acme', '{note}')")


async def test_more_than_some_turns_of_products_are_left_to_the_servers_background(
    catalogue: Catalogue, database_url: str
) -> None:
    many = 4 * PRODUCTS_AT_ONCE + 10
    run_sql(
        database_url,
        """INSERT INTO products (id, "clientId", name, attributes)
        SELECT 'p' || n, 'acme', 'Thing ' || n, jsonb_build_object('note', 'noted' || n)
        FROM generate_series(1, %s) n""",
        (many,),
    )
    await catalogue.declare("acme", {}, ["note"])
    assert run_sql(database_url, 'SELECT "clientId" FROM twinlens_words_due') == [("acme",)]
    missing = [number for number in range(1, many + 1) if not await ids(catalogue, f"noted{number}")]
    assert len(missing) == 10
    assert await catalogue.lexicon.catch_up() == 1
    assert await ids(catalogue, f"noted{missing[0]}") == [f"p{missing[0]}"]
    assert await catalogue.lexicon.catch_up() == 0


async def test_what_one_server_writes_down_another_leaves_to_it(catalogue: Catalogue, database_url: str) -> None:
    add(database_url, "Lamp")
    run_sql(database_url, "DELETE FROM twinlens_named; INSERT INTO twinlens_words_due VALUES ('acme')")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM twinlens_words_due FOR UPDATE")
        await catalogue.lexicon.catch_up()
        assert await ids(catalogue, "lamp") == []
    await catalogue.lexicon.catch_up()
    assert await ids(catalogue, "lamp") == ["Lamp"]


async def test_a_database_of_the_version_before_is_filled_beside_running_servers(
    bare_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("migrations")
    for one in load_migrations():
        if one.number < 19:
            (folder / f"{one.name}.sql").write_text(one.text)
    migrate(bare_database_url, folder)
    space = open_test_space(bare_database_url)
    for client in ("acme", "other"):
        add(bare_database_url, "Lamp", id=f"{client}-lamp", client=client)
    look = "SELECT pg_relation_filenode('products'), (SELECT count(xmin::text) FROM products)"
    before = run_sql(bare_database_url, look)
    assert migrate(bare_database_url, SQL)[0] == "0019_words"
    assert run_sql(bare_database_url, look) == before
    # A version before this one adds another, and changes one.
    add(bare_database_url, "Chair")
    run_sql(bare_database_url, "UPDATE products SET name = 'Lantern' WHERE id = 'other-lamp'")
    async with open_pool(bare_database_url, min_size=1, max_size=2, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        assert [await ids(catalogue, text) for text in ("lamp", "chair")] == [[], ["Chair"]]
        assert await ids(catalogue, "lantern", asked("other")) == ["other-lamp"]
        assert await catalogue.lexicon.catch_up() == 2
        assert [await ids(catalogue, text) for text in ("lamp", "lmap")] == [["acme-lamp"]] * 2
        assert await ids(catalogue, "lantern", asked("other")) == ["other-lamp"]
        assert await catalogue.lexicon.catch_up() == 0


# --- as part of a search ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_what_is_named_comes_first_whatever_its_picture_and_nothing_is_left_out(
    catalogue: Catalogue, database_url: str, space: SpaceRow, unit_vectors: UnitVectors, indexed: bool
) -> None:
    vectors = unit_vectors(400, D, 3)
    fill(database_url, space, "acme", vectors)
    if indexed:
        assert (await catalogue.maintain_indexes(threshold=200)).built == ("acme",)
    far = sorted(range(400), key=lambda number: float(vectors[number] @ vectors[0]))[:3]
    for number, name in zip(far, ("Blue lantern", "Lantern", "Lantarn"), strict=True):
        run_sql(database_url, "UPDATE products SET name = %s WHERE id = %s", (name, f"acme-{number:06}"))
    query = Query("acme", vectors[0], limit=10)
    plain = [match.product_id for match in (await catalogue.search(query)).matches]
    naming = await catalogue.words.find(query, "lantern")
    found = (await catalogue.search(replace(query, bonuses=naming.bonuses))).matches
    by_name = [f"acme-{number:06}" for number in (far[1], far[0])]
    assert [match.product_id for match in found] == [*by_name, *plain[:8]]
    assert [match.cosine for match in found[2:]] == sorted((match.cosine for match in found[2:]), reverse=True)
    naming = await catalogue.words.find(query, "lanternn")
    assert naming.corrected == {"lanternn": ("lantern",)}
    found = (await catalogue.search(replace(query, bonuses=naming.bonuses))).matches
    assert {match.product_id for match in found[:2]} == {*by_name}
    naming = await catalogue.words.find(query, "xqzv")
    found = (await catalogue.search(replace(query, bonuses=naming.bonuses))).matches
    assert [match.product_id for match in found] == plain


def test_the_statements_and_what_they_are_made_of_are_those_of_the_file() -> None:
    parts = {"named_of_client", "named_under_policy", "vocabulary_of_client", "vocabulary_under_policy"}
    of_words, of_lexicon = (
        {"read", "find", "find_where", "known", "near", "hits", "passing", "likeness"},
        {"due", "name_due"},
    )
    assert Queries.read("words.sql").names == parts | of_words | of_lexicon
