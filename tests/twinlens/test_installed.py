"""The wheel in an empty environment, as those have it who install it, against a running server."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.packaging import build_wheel, install, run
from tests.support.served import ABACUS, KEYBOARD, Served

pytestmark = pytest.mark.slow  # it asks the package index

NEEDED = {"anyio", "certifi", "h11", "httpcore", "httpx", "idna", "msgspec", "twinlens", "typing_extensions"}

CODE = """
import asyncio, importlib.metadata, json, sys
from twinlens import AsyncClient, Client

picture = sys.argv[1]
with Client() as client:
    client.put_product("p", name="P")
    media = client.add_media("p", picture)
    found = [client.search(picture, limit=1).results[0].media_id == media.id]
    found.append(client.search(text="a keyboard").results[0].product_id == "p")

async def again():
    async with AsyncClient() as client:
        return (await client.search(media_id=media.id)).results[0].similarity

found.append(asyncio.run(again()))
names = sorted(one.metadata["Name"] for one in importlib.metadata.distributions())
print(json.dumps({"found": found, "names": names}))
"""

WITH_IMAGES = """
import sys
import numpy as np
from PIL import Image
from twinlens import Client

with Client() as client, Image.open(sys.argv[1]) as image:
    pixels = np.asarray(image.convert("RGB"))
    print(*(client.search(one, limit=1).results[0].product_id for one in (image, pixels)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(served: Served, client_id: str, tmp_path: Path) -> dict[str, str]:
    ours = {"TWINLENS_URL": served.url, "TWINLENS_KEY": served.admin, "TWINLENS_CLIENT": client_id}
    return {**os.environ, **ours, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": ""}


def test_installed_alone_it_searches_and_has_the_command(
    wheel: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    python = install(tmp_path, wheel, "--constraint", ROOT / "constraints.txt")
    printed = json.loads(run(python, "-I", "-c", CODE, KEYBOARD, folder=tmp_path, env=environment))
    assert printed == {"found": [True, True, 100.0], "names": sorted(NEEDED)}

    (tmp_path / "shop" / "abacus").mkdir(parents=True)
    shutil.copy(ABACUS, tmp_path / "shop" / "abacus")

    def command(*words: str | Path) -> str:
        return run(python.parent / "twinlens", *words, folder=tmp_path, env=environment)

    assert "is ready." in command("status")
    assert command("push", "shop") == "Products: 1 new.\nPictures: 1 added.\n"
    assert command("search", ABACUS, "--limit", "1").splitlines()[1].split()[:3] == ["100.0", "%", "identical"]
    assert [line.split()[0] for line in command("list").splitlines()] == ["product", "abacus", "p"]


def test_with_its_extras_it_takes_images_and_arrays(wheel: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    python = install(tmp_path, f"twinlens[cli,images] @ {wheel.as_uri()}", "--constraint", ROOT / "constraints.txt")
    run(python, "-I", "-c", CODE, KEYBOARD, folder=tmp_path, env=environment)
    assert run(python, "-I", "-c", WITH_IMAGES, KEYBOARD, folder=tmp_path, env=environment) == "p p\n"
