"""Many changes in one request, and media under ids of the caller's."""

from __future__ import annotations

import pytest

import twinlens
from tests.support.scripted import CLOSED, Reply, headers_of, scripted
from tests.support.served import ABACUS, KEYBOARD, Served
from twinlens import Client, Delete, Upsert


def test_a_batch_answers_for_each_item(client: Client) -> None:
    client.put_product("old", name="Old")
    answer = client.batch_products(
        [
            Upsert(id="a", name="A", sku="S", attributes={"colour": "red"}),
            Upsert(id="b", name="B", sku="S"),
            Upsert(id="old", name="New", is_active=False),
            Delete(id="none"),
        ]
    )
    assert [(one.id, one.status) for one in answer.items] == [("a", 201), ("b", 409), ("old", 200), ("none", 404)]
    assert [one.error.code if one.error else None for one in answer.items] == [
        None,
        "sku_taken",
        None,
        "product_not_found",
    ]
    assert client.get_product("a").attributes == {"colour": "red"}
    assert client.get_product("old").is_active is False
    assert [one.status for one in client.batch_products([Delete(id="a"), Delete(id="old")]).items] == [200, 200]


def test_an_atomic_batch_is_done_or_refused_as_a_whole(client: Client) -> None:
    with pytest.raises(twinlens.Conflict) as refused:
        client.batch_products([Upsert(id="a", name="A", sku="S"), Upsert(id="b", name="B", sku="S")], atomic=True)
    assert refused.value.code == "sku_taken"
    with pytest.raises(twinlens.NotFound):
        client.get_product("a")


def test_a_media_is_put_under_an_id_and_moved(client: Client) -> None:
    for id_ in ("p", "q"):
        client.put_product(id_, name=id_)
    made = client.put_media("front", KEYBOARD, product_id="p")
    assert (made.id, made.product_id) == ("front", "p")
    assert client.put_media("front", KEYBOARD, product_id="p").created_at == made.created_at
    assert client.patch_media("front", product_id="q").product_id == "q"
    assert client.search(KEYBOARD).results[0].product_id == "q"
    replaced = client.put_media("front", ABACUS, product_id="q")
    assert replaced.content_digest != made.content_digest
    with pytest.raises(twinlens.NotFound):
        client.patch_media("front", product_id="none")


def test_a_batch_that_is_sent_again_is_known_by_its_key() -> None:
    with scripted(CLOSED, Reply(body=b'{"items": []}')) as server, Client(server.url) as client:
        client.batch_products([Delete(id="p")])
        first, second = headers_of(server.asked, "idempotency-key")
        assert first == second is not None


def test_a_delete_whose_answer_was_lost_gives_it_when_it_is_sent_again(
    client: Client, served: Served, client_id: str
) -> None:
    """The second try has the same key, so that the server answers as it did, and not that there is nothing there."""
    client.put_product("p", name="P")
    with scripted(Reply(asks=served.url, cut=-1), Reply(asks=served.url)) as between:
        with Client(between.url, key=served.admin, client=client_id) as far:
            assert far.delete_product("p").id == "p"
        assert len(between.asked) == 2
    with pytest.raises(twinlens.NotFound):
        client.delete_product("p")
