"""Duplicates: the same file, and the same picture in another file, over HTTP and from the command line."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from PIL import Image

from export.proof.alterations import ALTERATIONS
from server.__main__ import main
from server.catalogue import duplicates
from server.catalogue.duplicates import link
from server.spaces.spaces import SpaceDescription, open_space
from tests import DEMO_PICTURES
from tests.support.pictures import in_format
from tests.support.vectors import UnitVectors

D = 16
KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
VIOLIN = (DEMO_PICTURES / "violin.webp").read_bytes()
GRADES = {"identical": 0.999, "nearDuplicate": 0.9, "similar": 0.5}


def _towards(one: NDArray[np.float32], other: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """A unit vector with that cosine to `one`."""
    across = other - (other @ one) * one
    across /= np.linalg.norm(across)
    towards: NDArray[np.float32] = (cosine * one + (1 - cosine**2) ** 0.5 * across).astype(np.float32)
    return towards


# --- linking ---------------------------------------------------------------------------------------------------------


def test_linking_in_small_blocks_finds_what_looking_at_all_pairs_finds(
    unit_vectors: UnitVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    monkeypatch.setattr(duplicates, "_COLUMNS", 12)
    vectors = unit_vectors(100, 4).astype(np.float16)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = wide @ wide.T
    np.fill_diagonal(cosines, -2)
    for least in (0.999, 0.95, 0.8):
        reached = cosines >= least
        groups = []
        left = set(np.flatnonzero(reached.any(axis=1)).tolist())
        while left:
            group, edge = set(), {min(left)}
            while edge:
                group |= edge
                edge = set(np.flatnonzero(reached[list(edge)].any(axis=0)).tolist()) - group
            groups.append(sorted(group))
            left -= group
        found = link(vectors, least)
        assert found.groups == groups
        near = np.flatnonzero(reached.any(axis=1))
        assert np.array_equal(found.nearest[near], cosines[near].argmax(axis=1))
        assert np.allclose(found.cosines[near], cosines[near].max(axis=1), atol=1e-6)
        assert (np.delete(found.nearest, near) == -1).all()
    assert link(vectors[:0], 0.9).groups == link(vectors[:1], 0.9).groups == []


def test_one_picture_many_times_is_one_group(unit_vectors: UnitVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_ROWS", 50)
    vectors = np.repeat(unit_vectors(1, D), 300, axis=0).astype(np.float16)
    assert link(vectors, 0.9999).groups == [list(range(300))]


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_a_media_names_its_exact_and_near_duplicates(api: Any, client_id: str) -> None:
    query = {"clientId": client_id}
    altered = in_format(ALTERATIONS["WebP, quality 60"](Image.open(io.BytesIO(KEYBOARD)).convert("RGB")), "PNG")
    ids = []
    for number, data in enumerate((KEYBOARD, KEYBOARD, altered, VIOLIN, KEYBOARD)):
        product = f"{client_id}-{number}"
        api.put(f"/v1/products/{product}", params=query, json={"name": f"Thing {number}"})
        ids.append(api.post(f"/v1/products/{product}/media", params=query, files={"file": data}).json()["id"])
    api.put(f"/v1/products/{client_id}-4", params=query, json={"name": "Gone", "isActive": False})

    found = api.get(f"/v1/media/{ids[0]}/duplicates", params=query).json()
    assert set(found) == {"exact", "near", "space"}
    assert [(match["mediaId"], match["grade"], match["similarity"]) for match in found["exact"]] == [
        (ids[1], "identical", 100.0)
    ]
    assert found["exact"][0]["productName"] == "Thing 1"
    assert [(match["mediaId"], match["grade"]) for match in found["near"]] == [(ids[2], "near-duplicate")]
    assert api.get(f"/v1/media/{ids[3]}/duplicates", params=query).json()["near"] == []

    # Of the same file both are near to the altered one; as many as are asked for.
    found = api.get(f"/v1/media/{ids[2]}/duplicates", params={**query, "limit": 1}).json()
    assert (found["exact"], len(found["near"])) == ([], 1)
    assert found["near"][0]["mediaId"] in ids[:2]

    # Without a vector, duplicates are found by their file alone.
    with psycopg.connect(api.app.state.services.settings.database_url, autocommit=True) as connection:
        connection.execute('DELETE FROM twinlens_space_1 WHERE "mediaId" = ANY(%s)', (ids[:2],))
    found = api.get(f"/v1/media/{ids[0]}/duplicates", params=query).json()
    assert ([match["mediaId"] for match in found["exact"]], found["near"]) == ([ids[1]], None)

    assert api.get("/v1/media/none/duplicates", params=query).json()["code"] == "media_not_found"
    assert api.get(f"/v1/media/{ids[0]}/duplicates", params={"clientId": "another"}).status_code == 404
    for limit in ("0", "1001", "some"):
        refused = api.get(f"/v1/media/{ids[0]}/duplicates", params={**query, "limit": limit})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_parameter")
        assert refused.json()["error"].startswith("limit: expected int")


# --- the command -----------------------------------------------------------------------------------------------------


def _catalogue(url: str, unit_vectors: UnitVectors, *, graded: bool = True) -> None:
    """Of acme: a and b are one file; c and d are one picture; e is of an inactive product, near to f; g has no vector
    and the bytes of a; h is like none. Of others: the vector and the bytes of a."""
    space_id = "a" * 64
    variant = {"space": space_id, **({"grades": GRADES} if graded else {})}
    manifest = {"precisions": {"fp32": variant}}
    space = open_space(url, SpaceDescription(space_id, D, "test", manifest, "none"))
    some = unit_vectors(8, D)
    vectors = {"a": some[0], "b": some[0], "c": some[1], "d": _towards(some[1], some[2], 0.95)}
    vectors |= {"e": some[3], "f": _towards(some[3], some[4], 0.92), "h": some[5], "x": some[0]}
    files = dict.fromkeys("abgx", "one file")
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        for name in "abcdefghx":
            client = "others" if name == "x" else "acme"
            connection.execute(
                'INSERT INTO products (id, "clientId", name, "isActive") VALUES (%s, %s, %s, %s)',
                (f"p-{name}", client, f"Thing\x1b {name}", name != "e"),
            )
            connection.execute(
                'INSERT INTO media (id, "productId", "clientId", "s3Key", "contentDigest") VALUES (%s, %s, %s, %s, %s)',
                (name, f"p-{name}", client, name, hashlib.sha256(files.get(name, name).encode()).digest()),
            )
            if name in vectors:
                connection.execute(
                    f'INSERT INTO {space.table} (space, "mediaId", embedding) VALUES (%s, %s, %s)',
                    (space.number, name, HalfVector(vectors[name])),
                )


def _run(url: str, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    code = main(["--database-url", url, "duplicates", "--client", "acme", *flags])
    said = capsys.readouterr()
    return code, said.out, said.err


def _groups(groups: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[copy["mediaId"] for copy in group] for group in groups]


def test_the_command_lists_groups_of_one_client(
    database_url: str, unit_vectors: UnitVectors, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(database_url, unit_vectors)
    code, out, _ = _run(database_url, capsys, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["clientId"], found["media"], found["withoutVector"]) == ("acme", 7, 1)
    assert _groups(found["exact"]) == [["a", "b", "g"]]
    assert _groups(found["near"]) == [["c", "d"]]
    one = found["near"][0][0]
    assert (one["nearest"], one["cosine"], one["grade"]) == ("d", pytest.approx(0.95, abs=2e-3), "near-duplicate")
    assert one["similarity"] == pytest.approx(97.5, abs=0.2)

    found = json.loads(_run(database_url, capsys, "--json", "--all")[1])
    assert (_groups(found["near"]), found["near"][1][0]["isActive"]) == ([["c", "d"], ["e", "f"]], False)
    found = json.loads(_run(database_url, capsys, "--json", "--exact-only")[1])
    assert (_groups(found["exact"]), found["near"]) == ([["a", "b", "g"]], None)

    _, out, _ = _run(database_url, capsys)
    assert "The same file: 3 pictures in 1 group" in out
    assert "near-duplicate  p-d  Thing· d" in out
    assert "\x1b" not in out


def test_the_command_names_the_ids_of_the_api(
    database_url: str, unit_vectors: UnitVectors, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(database_url, unit_vectors)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """UPDATE products SET "apiId" = 'x-' || id; UPDATE media SET "apiId" = translate(id, 'ad', 'zA')"""
        )
    found = json.loads(_run(database_url, capsys, "--json")[1])
    assert (_groups(found["exact"]), _groups(found["near"])) == ([["b", "g", "z"]], [["A", "c"]])
    assert [(copy["nearest"], copy["productId"]) for copy in found["near"][0]] == [("c", "x-p-d"), ("A", "x-p-c")]


def test_the_command_leaves_blank_pictures_out_and_says_how_many(
    database_url: str, unit_vectors: UnitVectors, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(database_url, unit_vectors)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""UPDATE twinlens_space_1 SET blank = true WHERE "mediaId" IN ('b', 'c')""")
    found = json.loads(_run(database_url, capsys, "--json")[1])
    assert (found["media"], found["blank"]) == (7, 2)
    assert (_groups(found["exact"]), found["near"]) == ([["a", "g"]], [])
    assert "2 of them show nothing but one colour, and are left out" in _run(database_url, capsys)[1]


def test_without_grades_the_command_says_so(
    database_url: str, unit_vectors: UnitVectors, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(database_url, unit_vectors, graded=False)
    code, out, err = _run(database_url, capsys, "--json")
    assert (code, _groups(json.loads(out)["exact"]), json.loads(out)["near"]) == (0, [["a", "b", "g"]], None)
    assert "exported without grades" in err
    code, out, err = _run(database_url, capsys, "--near")
    assert (code, out) == (2, "")
    assert "exported without grades" in err
