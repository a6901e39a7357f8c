"""All that a server and the operator's commands do with a database, in one go, on the real thing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from server.access.clients import DEFAULT_CLIENT
from server.artifact.artifact import Artifact
from server.catalogue import duplicates
from server.database.isolation import arrange
from server.database.migrations import migrate
from server.doctor.doctor import examine
from server.settings import Settings
from server.spaces import spaces, worker
from server.spaces.reembed import Options, Outcome, reembed
from server.spaces.switch import drop, switch
from server.spaces.worker import work
from tests import DEMO_PICTURES, STARTER
from tests.support.databases import run_sql
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
TEAPOT = (DEMO_PICTURES / "teapot.webp").read_bytes()


def use_the_api(client: Client, name: str) -> None:
    """Products and media come, are found and filtered, change and go; two products of the names stay."""
    for product, colour, picture in ((f"{name}-1", "red", KEYBOARD), (f"{name}-2", "blue", TEAPOT)):
        for status in (201, 200):  # the second time it is a change
            put = client.put(f"/v1/products/{product}", json={"name": name, "attributes": {"colour": colour}})
            assert put.status_code == status, put.text
            assert put.json()["createdAt"].endswith(("Z", "+00:00"))
        added = client.post(f"/v1/products/{product}/media", files={"file": picture})
        assert added.status_code == 201, added.text
        assert client.get(f"/v1/media/{added.json()['id']}").json() == added.json()
    for _ in range(7):  # psycopg prepares what it has run five times
        found = client.post("/v1/search", files={"file": KEYBOARD}).json()["results"]
        assert found[0]["cosine"] == 1.0
        filtered = client.post(
            "/v1/search", files={"file": KEYBOARD}, data={"filter": '{"attributes": {"colour": "blue"}}'}
        )
        assert {one["productId"] for one in filtered.json()["results"]} == {f"{name}-2"}, filtered.text
    assert client.post("/v1/products/nothing/media", files={"file": KEYBOARD}).status_code == 404
    client.put(f"/v1/products/{name}-gone", json={"name": "gone"}).raise_for_status()
    media = client.post(f"/v1/products/{name}-gone/media", files={"file": KEYBOARD}).json()["id"]
    assert client.delete(f"/v1/media/{media}").status_code < 300
    assert client.delete(f"/v1/products/{name}-gone").status_code < 300
    # A product that is switched off takes its media out of every search: triggers see to it.
    for active in (False, True):
        client.put(f"/v1/products/{name}-1", json={"name": name, "isActive": active}).raise_for_status()
        found = client.post("/v1/search", files={"file": KEYBOARD}).json()["results"]
        assert (f"{name}-1" in {one["productId"] for one in found}) is active
    assert client.get("/health/ready").status_code == 200


def use_everything(url: str, data: Path, other: Path, **settings: Any) -> None:
    """A migrated, empty database at `url` serves, is examined, gets the model in `other` and goes back."""
    arrange(url)
    with serving(url, data, **settings) as client:
        use_the_api(client, "flow")
    chosen = Settings(database_url=url, data=data, model=STARTER, device="cpu", threads=2, batch=8, **settings)
    found = duplicates.find(chosen, url, DEFAULT_CLIENT)
    assert (found.media, found.exact) == (2, [])
    assert examine(chosen, url).findings == []
    outcomes: list[Any] = []
    asyncio.run(reembed(chosen, other, url, Options(), outcomes.append))
    assert [one.ending for one in outcomes if isinstance(one, Outcome)] == ["switched"]
    assert [one.state for one in spaces.list_spaces(url)] == ["retired", "live"]
    old, new = (spaces.choose(url, one.id) for one in spaces.list_spaces(url))
    assert (spaces.count_vectors(url, new), spaces.missing(url, old).total) == (2, 0)
    switch(url, old)
    drop(url, spaces.choose(url, new.id))
    assert [one.id for one in spaces.list_spaces(url)] == [Artifact.read(STARTER).space("fp32").id]
    # What another system writes, on a connection with whatever defaults it has.
    (data / "media" / "of-another-system").write_bytes(TEAPOT)
    ((schema,),) = run_sql(url, "SELECT schemaname FROM pg_tables WHERE tablename = 'twinlens_pending'")
    run_sql(
        url,
        f"""INSERT INTO "{schema}".media (id, "productId", "clientId", "s3Key", status)
        VALUES ('of-another-system', 'flow-1', %s, 'of-another-system', 'pending')""",
        (DEFAULT_CLIENT,),
    )
    assert asyncio.run(work(chosen, url, worker.Options(once=True))).done.embedded == 1
    assert spaces.count_vectors(url, old) == 3
    assert migrate(url) == []
