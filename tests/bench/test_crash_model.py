"""The crasher's draws, its model and its checks, on plain values: each kind of fault is seen, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from bench.crash.checks import (
    FOREIGN,
    INACTIVE,
    LOST,
    NOT_FIRST,
    REMOVED,
    SHORT,
    WRONG,
    check_search,
)
from bench.crash.faults import KINDS, schedule, space_changes
from bench.crash.model import UNKNOWN_ID, Catalogue, Product, effect
from bench.crash.operations import CLIENTS, PRODUCTS, Filter, Operation, operations, product_id, product_of

PUT = Operation(7, "put product", "alfa", 3, 1, True, "hats", 20, 10, Filter(), True, 0.0)
SEARCH = replace(PUT, kind="search by picture")
HAT = Product("alfa product 3 v1", True, "hats", 20, ("m1", "m2", None, None))


@pytest.fixture
def catalogue() -> Catalogue:
    """One product with two pictures, and no other."""
    made = Catalogue("alfa")
    made.set(3, [HAT])
    return made


def match(media_id: str, **other: Any) -> dict[str, Any]:
    """A match as the API gives it."""
    standard = {
        "mediaId": media_id,
        "productId": product_id(3),
        "productName": HAT.name,
        "s3Key": f"media/alfa/{media_id}.webp",
        "similarity": 80.0,
    }
    return {**standard, **other}


ITSELF = match("m1", similarity=100.0)


def found(catalogue: Catalogue, *matches: dict[str, Any], operation: Operation = SEARCH) -> list[str]:
    """The kinds of fault in such an answer to a search with the picture m1."""
    with catalogue.window() as window:
        faults = list(check_search(operation, matches, window, catalogue, {"theirs"}, "m1"))
    return [fault.kind for fault in faults]


def test_the_same_seed_draws_the_same_operations_and_faults() -> None:
    def drawn(seed: int) -> list[object]:
        some = [list(islice(operations(seed, client, lane, 2), 200)) for client in CLIENTS for lane in range(2)]
        return [some, schedule(seed, list(KINDS), 600), space_changes(seed, 600)]

    assert drawn(1) == drawn(1)
    for one, other in zip(drawn(1), drawn(2), strict=True):
        assert one != other


def test_lanes_write_different_products_and_all_kinds_are_drawn() -> None:
    written = [{one.product for one in islice(operations(1, "alfa", lane, 2), 2000) if one.writes} for lane in range(2)]
    assert written[0] | written[1] == set(range(PRODUCTS))
    assert not written[0] & written[1]
    assert len({one.kind for one in islice(operations(1, "alfa", 0, 2), 2000)}) == 12


def test_each_kind_of_fault_comes_about_as_often() -> None:
    kinds = [blow.kind for blow in schedule(3, list(KINDS), 3600)]
    counts = [kinds.count(kind) for kind in KINDS]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) > 150
    assert {blow.beside.kind for blow in schedule(3, list(KINDS), 3600) if blow.beside} <= {*KINDS}


@pytest.mark.parametrize(
    ("kind", "there", "label"),
    [
        ("put product", None, "201"),
        ("put product", HAT, "200"),
        ("delete product", None, "404 product_not_found"),
        ("delete product", HAT, "200"),
        ("switch by SQL", None, "0 rows"),
        ("switch by SQL", HAT, "1 row"),
        ("add picture", None, "404 product_not_found"),
        ("add picture", HAT, "200"),
        ("delete picture", None, "404 media_not_found"),
        ("delete picture", HAT, "200"),
    ],
)
def test_what_a_write_is_answered(kind: str, there: Product | None, label: str) -> None:
    assert effect(replace(PUT, kind=kind), there, "m2")[0] == label


def test_a_put_keeps_the_pictures_and_a_deletion_takes_one() -> None:
    assert effect(PUT, HAT)[1] == Product(PUT.name, True, "hats", 20, HAT.media)
    assert effect(replace(PUT, kind="delete picture"), HAT, "m2")[1] == HAT.holding(1, None)
    assert effect(replace(PUT, kind="add picture", slot=2), HAT)[1] == HAT.holding(2, UNKNOWN_ID)


def test_a_write_under_way_leaves_both_states_and_its_answer_one(catalogue: Catalogue) -> None:
    adding = replace(PUT, kind="add picture", slot=2)
    before = catalogue.begin(adding, None)
    assert catalogue.entries[3].possible == {HAT, HAT.holding(2, UNKNOWN_ID)}
    assert catalogue.end(adding, before, "201", deletes=None, told="m3")
    assert catalogue.entries[3].state == HAT.holding(2, "m3")
    assert "m3" in catalogue.media


def test_an_answer_that_no_state_allows_is_seen(catalogue: Catalogue) -> None:
    before = catalogue.begin(PUT, None)
    assert not catalogue.end(PUT, before, "201", deletes=None, told=None)


def test_the_same_bytes_again_give_the_same_picture(catalogue: Catalogue) -> None:
    adding = replace(PUT, kind="add picture", slot=0)
    before = catalogue.begin(adding, None)
    assert not catalogue.end(adding, before, "200", deletes=None, told="another")
    assert catalogue.end(adding, before, "200", deletes=None, told="m1")


def test_a_window_has_every_state_that_there_was_meanwhile(catalogue: Catalogue) -> None:
    with catalogue.window() as window:
        for state in (None, HAT.holding(0, "m9")):
            catalogue.set(3, [state])
    assert window.seen[3] == {HAT, None, HAT.holding(0, "m9")}


def test_a_right_answer_has_no_fault(catalogue: Catalogue) -> None:
    assert found(catalogue, ITSELF, match("m2")) == []


@pytest.mark.parametrize(
    ("matches", "kinds"),
    [
        ([ITSELF], [SHORT]),
        ([], [SHORT, NOT_FIRST]),
        ([match("m2"), match("m1", similarity=80.0)], [NOT_FIRST]),
        ([match("m1", similarity=99.9), match("m2")], [NOT_FIRST]),
        ([ITSELF, match("m2"), match("gone")], [REMOVED]),
        ([ITSELF, match("m2", productId="product-4")], [REMOVED]),
        ([ITSELF, match("m2"), match("x", s3Key="media/bravo/x.webp")], [FOREIGN]),
        ([ITSELF, match("m2"), match("theirs")], [FOREIGN]),
        ([ITSELF, match("m2", productName="bravo product 3 v1")], [FOREIGN]),
        ([ITSELF, match("m2", productName="alfa product 3 v0")], [LOST]),
        ([ITSELF, match("m2"), match("m2")], [WRONG]),
        ([ITSELF, match("m2"), match("m2", similarity=90.0)], [WRONG, WRONG]),
    ],
    ids=lambda value: "-".join(value).replace(" ", "_") if value and isinstance(value[0], str) else None,
)
def test_each_fault_of_an_answer_is_seen(catalogue: Catalogue, matches: list[Any], kinds: list[str]) -> None:
    assert found(catalogue, *matches) == kinds


def test_what_is_inactive_must_not_be_shown_nor_what_a_filter_leaves_out(catalogue: Catalogue) -> None:
    lamps = replace(SEARCH, filter=Filter(category="lamps"))
    assert found(catalogue, operation=lamps) == []
    assert found(catalogue, ITSELF, operation=lamps) == [WRONG]
    catalogue.set(3, [replace(HAT, active=False)])
    assert found(catalogue) == []
    assert found(catalogue, ITSELF) == [INACTIVE]


def test_what_is_not_certain_may_be_shown_or_not(catalogue: Catalogue) -> None:
    catalogue.set(3, [HAT, replace(HAT, active=False)])
    assert found(catalogue) == []
    assert found(catalogue, ITSELF, match("m2")) == []
    catalogue.set(3, [HAT.holding(2, UNKNOWN_ID), HAT])
    assert found(catalogue, ITSELF, match("m2"), match("new")) == []


def test_a_vector_that_is_under_way_makes_no_list_short(catalogue: Catalogue) -> None:
    catalogue.late.add("m2")
    assert found(catalogue, ITSELF) == []


def test_a_filter_of_the_api_passes_what_the_models_own_does() -> None:
    narrowed = Filter(category="hats", below=21, products=(3, 4))
    assert (
        narrowed.json
        == '{"attributes": {"category": "hats", "price": {"lt": 21}}, "productIds": ["product-3", "product-4"]}'
    )
    assert narrowed.passes(3, "hats", 20)
    assert not narrowed.passes(3, "hats", 21)
    assert not narrowed.passes(5, "hats", 20)
    assert Filter().json is None


def test_only_products_that_operations_name_have_a_number() -> None:
    assert product_of("product-3") == 3
    assert product_of("product-99") is product_of("probe") is product_of("other-3") is None
