"""The metrics: that they are those of the documentation, that they name nobody, and what they count."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from server.http import problems
from server.operations.disks import Room
from server.operations.load import Connections, Load, Queue
from server.operations.metrics import Metrics
from server.preprocessing import media
from tests import DEMO_PICTURES, ROOT
from tests.support.pictures import in_format, unseen
from tests.support.serving import Client

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
OF_PYTHON = ("process_", "python_")


def samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


def scraped(api: Client) -> list[Sample]:
    return list(samples(api.get("/metrics").text))


def value(found: list[Sample], name: str, **labels: str) -> float:
    """The sum over all series that have these labels."""
    return sum(one.value for one in found if one.name == name and labels.items() <= one.labels.items())


# --- the list ---------------------------------------------------------------------------------------------------------


def documented() -> dict[str, set[str]]:
    """The metrics of the table, with their labels: each part of that column is a label with its values, or labels."""
    table = (ROOT / "docs" / "observability.md").read_text("utf-8").split("### What there is\n")[1].split("\n\n**")[0]
    found = {}
    for row in table.splitlines():
        names, labels = (row.split("|") + [""] * 4)[1:4:2]
        parts = [part.split(":")[0] for part in re.sub(r"\(.*?\)", "", labels).split(";")]
        for name in re.findall(r"`(twinlens_\w+)`", names):
            found[name] = {label for part in parts for label in re.findall(r"`(\w+)`", part)}
    return found


def test_the_table_names_every_metric_and_no_other() -> None:
    metrics = {one.name: one for one in Metrics().registry.collect() if not one.name.startswith(OF_PYTHON)}
    kinds = {f"{name}_total" if one.type == "counter" else name for name, one in metrics.items()}
    assert kinds == set(documented())


def test_the_table_names_every_label(api: Client) -> None:
    known = documented()
    api.post("/v1/search", files={"file": unseen(KEYBOARD)})
    api.post("/embed-image", files={"file": b"text"})
    for one in scraped(api):
        if one.name.startswith(OF_PYTHON) or one.name.endswith("_created"):
            continue
        name = one.name if one.name in known else re.sub(r"_(bucket|sum|count)$", "", one.name)
        assert set(one.labels) - {"le"} == known[name], one.name


# --- whom they name ---------------------------------------------------------------------------------------------------


def test_no_series_has_a_word_that_a_caller_chose(api: Client, client_id: str) -> None:
    word = f"word-{client_id}"
    query = {"clientId": client_id}
    api.put(f"/v1/products/{word}", params=query, json={"name": word, "sku": word})
    api.post(f"/v1/products/{word}/media", params=query, files={"file": (f"{word}.webp", unseen(KEYBOARD))})
    api.post("/v1/search", params=query, files={"file": (word, KEYBOARD, f"image/{word}")})
    api.post("/v1/search", json={"text": word, "clientId": client_id})
    api.post("/v1/search", json={word: word})
    api.get(f"/{word}", headers={"X-Request-Id": word, "Twinlens-Lane": word, "Origin": f"https://{word}.example"})
    api.request(word.upper(), "/health/live")
    api.get("/v1/media/x", headers={"Host": f"{word}.example", "X-API-Key": word})
    text = api.get("/metrics").text
    assert client_id not in text
    assert client_id.upper() not in text


def test_codes_and_formats_are_those_of_our_lists(api: Client) -> None:
    for data in (b"text", b"%PDF-1.7", KEYBOARD[:300], b"\x00" * 50):
        api.post("/embed-image", files={"file": data})
    found = scraped(api)
    codes = {one.labels["code"] for one in found if "code" in one.labels}
    assert {"", "not_a_picture", "unreadable_picture"} <= codes <= {*problems.codes(), "", "caller_left"}
    formats = {one.labels["format"] for one in found if "format" in one.labels}
    assert formats <= {*(kind.removeprefix("image/") for kind in media.reads()), "heic", "heif", "none"}
    classes = {one.labels["status_class"] for one in found if "status_class" in one.labels}
    assert {"2xx", "4xx"} <= classes <= {"2xx", "3xx", "4xx", "5xx"}


# --- what they count --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "code", "given"),
    [
        ("jpeg", "unreadable_picture", in_format(Image.new("RGB", (64, 64), (9, 8, 7)), "JPEG")[:200]),
        ("webp", "unreadable_picture", KEYBOARD[:300]),
        ("none", "not_a_picture", b"a text, and no picture"),
        ("png", "picture_too_large", None),
    ],
    ids=["cut-jpeg", "cut-webp", "text", "huge-png"],
)
def test_pictures_that_cannot_be_decoded_are_counted_by_format(
    api: Client, form: str, code: str, given: bytes | None
) -> None:
    if given is None:  # made here, since parameters should be small: 65 million pixels of one colour
        given = in_format(Image.new("1", (8100, 8100)), "PNG")
    labels = {"format": form, "code": code}
    before = value(scraped(api), "twinlens_decode_failures_total", **labels)
    assert api.post("/embed-image", files={"file": given}).json()["code"] == code
    assert value(scraped(api), "twinlens_decode_failures_total", **labels) == before + 1


def test_times_are_kept_by_class_of_status(api: Client) -> None:
    def counted(status_class: str) -> float:
        labels = {"route": "/embed-image", "status_class": status_class}
        return value(scraped(api), "twinlens_request_seconds_count", **labels)

    before = counted("2xx"), counted("4xx")
    api.post("/embed-image", files={"file": KEYBOARD})
    api.post("/embed-image", files={"file": b"text"})
    assert (counted("2xx"), counted("4xx")) == (before[0] + 1, before[1] + 1)


def test_they_say_what_runs_and_that_all_is_well(api: Client) -> None:
    found, ready = scraped(api), api.get("/health/ready").json()
    (build,) = [one for one in found if one.name == "twinlens_build_info"]
    assert build.value == 1
    assert {name: ready[name] for name in ("model", "space", "precision", "device")}.items() <= build.labels.items()
    checks = {one.labels["check"]: one.value for one in found if one.name == "twinlens_check_failed"}
    assert checks == dict.fromkeys(ready["checks"], 0)
    for pool in ("requests", "background"):
        assert value(found, "twinlens_pool_connections", pool=pool) >= 1
        assert value(found, "twinlens_pool_waiting", pool=pool) == 0
    assert (
        0
        < value(found, "twinlens_disk_free_bytes", folder="media")
        <= value(found, "twinlens_disk_size_bytes", folder="media")
    )
    queues = {(one.labels["stage"], one.labels["lane"]) for one in found if one.name == "twinlens_queue_age_seconds"}
    assert {("decode", "interactive"), ("decode", "bulk"), ("encode", "interactive"), ("encode", "bulk")} <= queues


def load(**given: object) -> Load:
    return Load(pictures=0, texts=0, vectors={}, **given)  # type: ignore[arg-type]


def test_what_others_count_becomes_counters_that_only_rise() -> None:
    metrics = Metrics()
    for waited, refused in ((1.5, 0), (4.0, 2), (4.0, 2)):
        pool = Connections(lent=1, resting=2, waiting=3, waited=waited, refused=refused)
        metrics.observe(load(pools={"requests": pool}))
    found = list(samples(metrics.render().decode()))
    assert value(found, "twinlens_pool_wait_seconds_total", pool="requests") == 4.0
    assert value(found, "twinlens_pool_refused_total", pool="requests") == 2
    assert value(found, "twinlens_pool_connections", pool="requests", state="lent") == 1
    assert value(found, "twinlens_pool_connections", pool="requests", state="resting") == 2
    assert value(found, "twinlens_pool_waiting", pool="requests") == 3


def test_a_folder_that_goes_away_has_no_size_any_more() -> None:
    metrics = Metrics()
    metrics.observe(load(disks={"media": Room(5, 10)}))
    assert value(list(samples(metrics.render().decode())), "twinlens_disk_free_bytes", folder="media") == 5
    metrics.observe(load(disks={}))
    assert math.isnan(value(list(samples(metrics.render().decode())), "twinlens_disk_free_bytes", folder="media"))


def test_queues_have_their_depth_and_age() -> None:
    metrics = Metrics()
    metrics.observe(load(queues=(Queue("encode", "image", "bulk", 7, 2.5),), runs={"image": 0.25}))
    found = list(samples(metrics.render().decode()))
    labels = {"stage": "encode", "tower": "image", "lane": "bulk"}
    assert value(found, "twinlens_queue_depth", **labels) == 7
    assert value(found, "twinlens_queue_age_seconds", **labels) == 2.5
    assert value(found, "twinlens_run_age_seconds", tower="image") == 0.25


def test_what_was_counted_of_the_catalogue_says_when(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.counted("s", {"media": 3}, {"untried": 1, "failed": 0}, 12.5)
    metrics.indexes_seen({"ready": 2, "building": 1, "incomplete": 0})
    found = list(samples(metrics.render().decode()))
    assert value(found, "twinlens_catalogue_size", what="media") == 3
    assert value(found, "twinlens_media_without_vector", space="s", why="untried") == 1
    assert value(found, "twinlens_indexes", state="building") == 1
    assert value(found, "twinlens_pending_overdue_seconds") == 12.5
    assert value(found, "twinlens_catalogue_counted_timestamp_seconds", space="s") > 1_700_000_000
