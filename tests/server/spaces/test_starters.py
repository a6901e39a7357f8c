"""A catalogue that was filled with a starter released before is embedded anew with the present one."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw

from export.proof.profiles import SPACES, in_space, rgb_profile
from server.artifact.artifact import Artifact, short_id
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support.pictures import in_format
from tests.support.process import PATIENCE, Process, Serve
from tests.support.starters import RELEASED, earlier_starter, released

PRESENT = Artifact.read(STARTER).space("fp32").id


def logo(kind: str) -> bytes:
    """White on transparency."""
    image = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse((15, 15, 105, 105), fill="white")
    else:
        draw.rectangle((15, 40, 105, 80), fill="white")
    return in_format(image, "PNG")


def photograph() -> bytes:
    """In Display P3."""
    profile = rgb_profile("Display P3", SPACES["Display P3"])
    with Image.open(io.BytesIO((DEMO_PICTURES / "teapot.webp").read_bytes())) as image:
        return in_format(in_space(image.convert("RGB"), profile), "PNG", icc_profile=profile)


PICTURES = {
    "Keyboard": (DEMO_PICTURES / "keyboard.webp").read_bytes(),
    "Teapot, wide": photograph(),
    "Disc": logo("disc"),
    "Bar": logo("bar"),
}


def fill(server: Process) -> None:
    with server.client() as client:
        for number, (name, data) in enumerate(PICTURES.items()):
            client.put(f"/v1/products/p{number}", json={"name": name}).raise_for_status()
            client.post(f"/v1/products/p{number}/media", files={"file": data}).raise_for_status()


def found(client: httpx.Client, data: bytes) -> tuple[str, float, str]:
    answer = client.post("/v1/search", files={"file": data}).raise_for_status().json()
    first = answer["results"][0]
    return first["productName"], first["similarity"], answer["space"]


def test_the_present_starter_is_none_of_those_before() -> None:
    assert {path.name for path in RELEASED.iterdir() if path.is_dir()} == {"72b1084832f6", "1ef554193999"}
    assert short_id(PRESENT) not in {"72b1084832f6", "1ef554193999"}


@pytest.mark.slow
@pytest.mark.parametrize("before", ["72b1084832f6", "1ef554193999"])
def test_every_picture_finds_itself_after_reembed_from_a_starter_released_before(
    before: str, serve: Serve, database_url: str, tmp_path: Path
) -> None:
    earlier = earlier_starter(tmp_path / "earlier", before)
    data = tmp_path / "data"
    shared = ("--database-url", database_url, "--device", "cpu")
    server = serve(*shared, data=data, model=earlier).ready()
    fill(server)
    with server.client() as client:
        assert found(client, PICTURES["Keyboard"]) == ("Keyboard", 100.0, released(before).space.id)
    server.stop()

    refused = serve(*shared, data=data)
    assert refused.end() == 2
    assert "reembed --artifact" in refused.log[-1]

    command = [sys.executable, "-m", "server", "reembed", "--data", str(data), "--database-url", database_url]
    work = subprocess.run(
        [*command, "--device", "cpu", "--threads", "1", "--artifact", str(STARTER)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (work.returncode, "is live now" in work.stdout) == (0, True), work.stderr

    server = serve(*shared, data=data).ready()
    with server.client() as client:
        for name, picture in PICTURES.items():
            assert found(client, picture) == (name, 100.0, PRESENT)
