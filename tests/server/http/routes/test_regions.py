"""Which parts of a picture may be searched for: `GET /v1/media/{id}/regions`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests import DEMO_PICTURES
from tests.support.pictures import in_format
from tests.support.serving import Client, Shop, serving

THINGS = {"teapot": (40, 60), "camera": (420, 260), "violin": (430, 20)}


def scene() -> Image.Image:
    """Three things of the demo catalogue on a table."""
    image = Image.new("RGB", (720, 540), (214, 205, 190))
    for name, at in THINGS.items():
        with Image.open(DEMO_PICTURES / f"{name}.webp") as thing:
            small = thing.convert("RGBA").resize((230, 230))
        image.paste(small, at, small)
    return image


def add(api: Client, client_id: str, data: bytes) -> str:
    query = {"clientId": client_id}
    path = f"/v1/products/{client_id}"
    assert api.put(path, params=query, json={"name": "Scene"}).status_code in (200, 201)
    added = api.post(f"{path}/media", params=query, files={"file": data})
    assert added.status_code == 201, added.text
    media: str = added.json()["id"]
    return media


def regions(api: Client, client_id: str, media: str) -> httpx.Response:
    return api.get(f"/v1/media/{media}/regions", params={"clientId": client_id})


def found(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["regions"]
    return listed


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_what_is_proposed_finds_each_thing_of_a_scene(api: Client, client_id: str, form: str) -> None:
    data = in_format(scene(), form)
    proposals = found(regions(api, client_id, add(api, client_id, data)))
    # The violin's parts are proposed besides.
    assert 3 <= len(proposals) <= 5
    assert [one["score"] for one in proposals] == sorted((one["score"] for one in proposals), reverse=True)
    products = set()
    for one in proposals:
        assert {*one} == {"crop", "score"}
        form_fields = {"crop": str(one["crop"]), "limit": "1"}
        answer = api.post("/v1/search", files={"file": data}, data=form_fields)
        products.add(answer.json()["results"][0]["productId"])
    assert products >= {f"demo-{name}" for name in THINGS}


@pytest.mark.parametrize("orientation", [6, 8, 3])
def test_proposals_are_of_the_upright_picture(api: Client, client_id: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turned = scene().transpose(back[orientation])
    straight = found(regions(api, client_id, add(api, client_id, in_format(scene(), "PNG"))))
    assert found(regions(api, client_id, add(api, client_id, in_format(turned, "PNG", exif=exif)))) == straight


def test_nothing_is_proposed_where_nothing_stands_out(api: Client, client_id: str) -> None:
    assert (
        found(regions(api, client_id, add(api, client_id, in_format(Image.new("RGB", (90, 90), "red"), "PNG")))) == []
    )


def test_a_media_that_is_not_there_or_anothers_is_404(api: Client, client_id: str) -> None:
    media = add(api, client_id, in_format(scene(), "PNG"))
    for response in (regions(api, "demo", media), regions(api, client_id, "nobody")):
        assert (response.status_code, response.json()["code"]) == (404, "media_not_found")


def test_a_picture_that_is_gone_from_the_store_is_503(shop: Shop) -> None:
    with serving(*shop, demo=True) as client:
        media = client.get("/v1/products/demo-violin").json()["media"][0]["id"]
        assert regions(client, "demo", media).status_code == 200
        for path in (Path(shop.data) / "media").rglob(f"{media}.*"):
            path.unlink()
        answer = regions(client, "demo", media)
        assert (answer.status_code, answer.json()["code"]) == (503, "bytes_missing")
