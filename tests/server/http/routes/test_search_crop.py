"""Searches with a part of a picture, over HTTP."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps

from tests import DEMO_PICTURES
from tests.support.databases import fresh_database
from tests.support.pictures import in_format, unseen
from tests.support.serving import Client, Shop, serving

KEYBOARD, VIOLIN = ((DEMO_PICTURES / f"{name}.webp").read_bytes() for name in ("keyboard", "violin"))
CROP = [0.1, 0.2, 0.9, 0.7]
NAMES = ("teapot", "violin", "saxophone", "skateboard", "camera", "running-shoe", "bicycle", "laptop")


def by_file(api: Client, data: bytes, crop: Any = None, **fields: Any) -> httpx.Response:
    cut = {} if crop is None else {"crop": json.dumps(crop)}
    return api.post("/v1/search", files={"file": data}, data={**cut, **fields})


def by_media(api: Client, media_id: str, crop: Any = None, **fields: Any) -> httpx.Response:
    cut = {} if crop is None else {"crop": crop}
    return api.post("/v1/search", json={"mediaId": media_id, **cut, **fields})


def compose(api: Client, *parts: Any, files: tuple[bytes, ...] = (), **fields: Any) -> httpx.Response:
    if not files:
        return api.post("/v1/search", json={"query": parts, **fields})
    return api.post("/v1/search", files=[("file", one) for one in files], data={"query": json.dumps(parts), **fields})


def results(response: httpx.Response) -> list[dict[str, Any]]:
    """The matches, without what is signed anew."""
    assert response.status_code == 200, response.text
    found = response.json()["results"]
    return [{name: one for name, one in match.items() if not name.endswith("Url")} for match in found]


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def cut(data: bytes, crop: list[float]) -> Image.Image:
    """By Pillow, of a picture whose sides make whole pixels of the crop."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    assert upright is not None
    left, top, right, bottom = crop
    width, height = upright.size
    return upright.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


@pytest.fixture(scope="module")
def media(api: Client) -> str:
    """The media of the demo's keyboard."""
    named: str = results(by_file(api, KEYBOARD, limit=1))[0]["mediaId"]
    return named


# --- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [[0.125, 0.25, 0.875, 1.0], [0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.375, 1]])
def test_a_crop_finds_exactly_what_a_file_of_nothing_else_finds(api: Client, media: str, crop: list[float]) -> None:
    alone = results(by_file(api, in_format(cut(KEYBOARD, crop), "PNG"), limit=30))
    assert results(by_file(api, KEYBOARD, crop, limit=30)) == alone
    assert results(by_media(api, media, crop, limit=30)) == alone
    assert results(compose(api, {"file": 0, "crop": crop}, files=(KEYBOARD,), limit=30)) == alone
    assert results(compose(api, {"mediaId": media, "crop": crop, "weight": 3}, limit=30)) == alone
    assert alone != results(by_file(api, KEYBOARD, limit=30))


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_a_crop_is_of_the_upright_picture(api: Client, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(VIOLIN)) as image:
        data = in_format(image.resize((200, 140)), "PNG", exif=exif)
    crop = [0.1, 0.2, 0.9, 0.7]
    assert results(by_file(api, data, crop)) == results(by_file(api, in_format(cut(data, crop), "PNG")))


def test_the_whole_picture_as_a_crop_is_the_picture_itself(api: Client, media: str) -> None:
    whole = results(by_file(api, KEYBOARD))
    assert (whole[0]["mediaId"], whole[0]["similarity"], whole[0]["grade"]) == (media, 100.0, "identical")
    for crop in ([0, 0, 1, 1], [0.0, -0.0, 1.0, 1.0]):
        assert results(by_file(api, KEYBOARD, crop)) == whole
        assert results(compose(api, {"file": 0, "crop": crop}, files=(KEYBOARD,))) == whole
        assert results(by_media(api, media, crop)) == results(by_media(api, media))


def test_a_crop_does_not_pass_for_the_file_that_it_is_cut_from(api: Client, client_id: str) -> None:
    """Two products have pictures that are equal where the crop is. The one whose file was sent may not go first."""
    query = {"clientId": client_id}
    with Image.open(io.BytesIO(VIOLIN)) as image:
        part = image.convert("RGB").resize((120, 120))
    wide = Image.new("RGB", (240, 120), "orange")
    wide.paste(part, (0, 0))
    sent = in_format(wide, "PNG")
    for name, data in (("alone", in_format(part, "PNG")), ("wide", sent)):
        path = f"/v1/products/{client_id}-{name}"
        assert api.put(path, params=query, json={"name": name}).status_code == 201
        assert api.post(f"{path}/media", params=query, files={"file": data}).status_code == 201
    # Whether the file's own vector is known already or not.
    for _ in range(2):
        found = results(by_file(api, sent, [0, 0, 0.5, 1], **query))
        assert [one["productName"] for one in found] == ["alone", "wide"]
        assert (found[0]["similarity"], found[0]["grade"]) == (100.0, "identical")
        assert found[1]["similarity"] < 100
        assert [one["productName"] for one in results(by_file(api, sent, **query))] == ["wide", "alone"]
    wide_media = found[1]["mediaId"]
    assert results(by_media(api, wide_media, [0, 0, 0.5, 1], **query)) == found


def test_a_vector_is_kept_for_each_crop(api: Client) -> None:
    data = unseen(KEYBOARD)
    other = [0.1, 0.2, 0.9, 0.71]
    asked = [by_file(api, data, crop) for crop in (CROP, None, other, CROP, None, other)]
    assert [[*one.json()["timings"]] == ["search"] for one in asked] == [False] * 3 + [True] * 3
    assert [results(one) for one in asked[:3]] == [results(one) for one in asked[3:]]
    assert len({results(one)[0]["cosine"] for one in asked}) == 3


@pytest.mark.parametrize("kept", [0.8, 0.5])
@pytest.mark.parametrize("corner", ["middle", "upper left", "lower right"])
def test_a_part_of_a_picture_finds_the_picture(api: Client, kept: float, corner: str) -> None:
    """Thresholds well below what `python -m bench regions` has measured."""
    low = {"middle": (1 - kept) / 2, "upper left": 0.0, "lower right": 1 - kept}[corner]
    crop = [low, low, low + kept, low + kept]
    found = [results(by_file(api, (DEMO_PICTURES / f"{name}.webp").read_bytes(), crop, limit=5)) for name in NAMES]
    first = sum(one[0]["productId"] == f"demo-{name}" for one, name in zip(found, NAMES, strict=True))
    assert first >= (6 if kept == 0.8 else 5 if corner == "middle" else 2)


def test_a_part_among_others_is_cut_and_they_are_not(api: Client, media: str) -> None:
    """Each part counts as it would alone: what the two parts' own searches give, summed, ranks the matches."""
    crop = [0.0, 0.0, 0.5, 1.0]
    both = results(compose(api, {"mediaId": media, "crop": crop}, {"file": 0}, files=(VIOLIN,), limit=280))
    swapped = results(compose(api, {"file": 0, "crop": crop}, {"file": 1}, files=(KEYBOARD, VIOLIN), limit=280))
    assert both == swapped
    whole = results(compose(api, {"mediaId": media}, {"file": 0}, files=(VIOLIN,), limit=280))
    assert [one["cosine"] for one in both] != [one["cosine"] for one in whole]
    one, other = (
        {match["mediaId"]: match["cosine"] for match in results(found)}
        for found in (by_file(api, KEYBOARD, crop, limit=280), by_file(api, VIOLIN, limit=280))
    )
    summed = [one[match["mediaId"]] + other[match["mediaId"]] for match in both]
    assert all(near >= far - 0.002 for near, far in pairwise(summed))


def test_one_picture_may_be_cut_in_several_ways_at_once(api: Client, media: str) -> None:
    parts = [{"mediaId": media, "crop": [0, 0, 0.5, 1]}, {"mediaId": media, "crop": [0.5, 0, 1, 1]}]
    by_id = results(compose(api, *parts, limit=20))
    files = [{"file": 0, "crop": part["crop"]} for part in parts]
    assert results(compose(api, *files, files=(KEYBOARD,), limit=20)) == by_id
    assert by_id != results(by_media(api, media, limit=20))


def test_a_blank_part_is_never_the_same_picture(api: Client, client_id: str) -> None:
    """As a blank picture is not, whatever the rest of the picture shows."""
    query = {"clientId": client_id}
    picture = Image.new("RGB", (200, 100), "white")
    with Image.open(io.BytesIO(VIOLIN)) as image:
        picture.paste(image.convert("RGB").resize((100, 100)), (100, 0))
    white = in_format(Image.new("RGB", (100, 100), "white"), "PNG")
    path = f"/v1/products/{client_id}"
    api.put(path, params=query, json={"name": "White"})
    for data in (white, in_format(picture, "PNG")):
        assert api.post(f"{path}/media", params=query, files={"file": data}).status_code == 201
    blank = [0, 0, 0.5, 1]
    found = results(by_file(api, in_format(picture, "PNG"), blank, **query))
    assert found[0]["cosine"] == 1.0
    assert {one["grade"] for one in found} <= {"similar", "weak"}
    assert results(by_file(api, in_format(picture, "PNG"), blank, minGrade="near-duplicate", **query)) == []
    shown = results(by_file(api, in_format(picture, "PNG"), [0.5, 0, 1, 1], **query))
    assert len(shown) == 2


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "said"),
    [
        ([0, 0, 1], "crop needs four numbers"),
        ([0, 0, 1, 1, 1], "crop needs four numbers"),
        ([0, 0, 1, 2], "from 0 to 1"),
        ([-0.5, 0, 1, 1], "from 0 to 1"),
        ([10, 10, 200, 200], "from 0 to 1"),
        ([0.5, 0, 0.5, 1], "left must be less than right"),
        ([0, 0.7, 1, 0.2], "top must be less than bottom"),
        ([0, 0, 0.0000005, 1], "less than a millionth"),
        (["a", 0, 1, 1], "crop"),
        ([None, 0, 1, 1], "crop"),
        ({"left": 0}, "crop"),
        (0.5, "crop"),
        ("0,0,1,1", "crop"),
    ],
)
def test_a_crop_that_makes_no_sense_is_422_with_a_sentence(api: Client, media: str, crop: Any, said: str) -> None:
    asked = (
        by_file(api, KEYBOARD, crop),
        by_media(api, media, crop),
        compose(api, {"text": "violin", "weight": 0}, {"mediaId": media, "crop": crop}),
        compose(api, {"file": 0, "crop": crop}, files=(KEYBOARD,)),
    )
    for response in asked:
        assert refusal(response) == (422, "bad_parameter"), response.text
        assert said in response.json()["error"]
    if said != "crop":
        assert "query[1].crop" in asked[2].json()["error"]


@pytest.mark.parametrize("text", ["[0, 0, NaN, 1]", "[0, 0, 1e999, 1]", "[0, 0, 1", "0 0 1 1", "[" * 10_000])
def test_a_forms_crop_is_json_of_finite_numbers(api: Client, text: str) -> None:
    response = api.post("/v1/search", files={"file": KEYBOARD}, data={"crop": text})
    assert refusal(response) == (422, "bad_parameter"), response.text
    assert "crop" in response.json()["error"]


def test_nothing_is_cut_from_words_or_vectors(api: Client, words_api: Client) -> None:
    for body in ({"text": "violin"}, {"embedding": [1.0], "space": "s"}):
        response = words_api.post("/v1/search", json={**body, "crop": CROP})
        assert refusal(response) == (422, "bad_parameter")
        assert "crop goes with a picture" in response.json()["error"]
        response = compose(words_api, {"text": "teapot"}, {**body, "crop": CROP})
        assert refusal(response) == (422, "bad_parameter")
        assert "query[1].crop goes with a picture" in response.json()["error"]


def test_a_crop_beside_a_query_is_refused_since_nobody_knows_whose_it_is(api: Client, media: str) -> None:
    for response in (
        compose(api, {"mediaId": media}, crop=CROP),
        compose(api, {"file": 0}, files=(KEYBOARD,), crop=json.dumps(CROP)),
    ):
        assert refusal(response) == (422, "bad_parameter")
        assert "beside query" in response.json()["error"]


def test_the_call_of_the_legacy_service_takes_no_crop(api: Client) -> None:
    response = api.post("/api/search/by-image", files={"file": KEYBOARD}, data={"crop": json.dumps(CROP)})
    assert refusal(response) == (422, "bad_parameter")


def test_a_media_that_is_not_there_or_anothers_cannot_be_cut(api: Client, media: str, client_id: str) -> None:
    assert refusal(by_media(api, "nobody", CROP)) == (404, "media_not_found")
    assert refusal(by_media(api, media, CROP, clientId=client_id)) == (404, "media_not_found")
    hidden = compose(api, {"mediaId": media, "crop": CROP}, {"file": 0}, files=(VIOLIN,), clientId=client_id)
    assert refusal(hidden) == (404, "media_not_found")


def test_a_picture_that_is_gone_from_the_store_cannot_be_cut_and_is_still_found(shop: Shop) -> None:
    with serving(*shop, demo=True) as client:
        found = results(by_file(client, KEYBOARD, limit=1))[0]
        for path in (Path(shop.data) / "media").rglob(f"{found['mediaId']}.*"):
            path.unlink()
        assert refusal(by_media(client, found["mediaId"], CROP)) == (503, "bytes_missing")
        assert 'twinlens_store_failures_total{kind="missing"} 1.0' in client.get("/metrics").text
        assert results(by_media(client, found["mediaId"], limit=1)) == [found]


def test_a_media_that_is_cut_counts_as_a_picture_of_its_caller(
    postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    with (
        fresh_database(postgres_url, template_database) as url,
        serving(url, tmp_path, client_limits="pictures=0.001/5") as client,
    ):
        client.put("/v1/products/p", json={"name": "P"})
        media = client.post("/v1/products/p/media", files={"file": KEYBOARD}).json()["id"]
        assert by_media(client, media, CROP).status_code == 200
        part = {"mediaId": media, "crop": CROP}
        assert compose(client, part, {**part, "crop": [0, 0, 0.5, 0.5]}).status_code == 200
        assert by_media(client, media).status_code == 200  # is no picture
        assert by_media(client, media, [0, 0, 1, 1]).status_code == 200  # nor is that
        assert by_media(client, media, CROP).status_code == 200
        assert refusal(by_media(client, media, CROP)) == (429, "rate_limited")
