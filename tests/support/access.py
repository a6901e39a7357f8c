"""A small catalogue, for tests of what keys open, and search keys as no deriver of ours makes them."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import httpx

from server.access.keys import search_secret_of
from tests import DEMO_PICTURES
from twinlens.search_keys import PREFIX


def signed(key: str, document: bytes | dict[str, Any]) -> str:
    """A search key with whatever document, as another deriver might make it: ours refuses what makes no sense."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    begun = f"{PREFIX}.{base64.urlsafe_b64encode(data).rstrip(b'=').decode()}"
    made = hmac.digest(search_secret_of(key), begun.encode(), "sha256")
    return f"{begun}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


CATALOGUE: dict[str, dict[str, Any]] = {
    "keyboard": {"category": "office", "price": 50},
    "notebook": {"category": "office", "price": 5},
    "violin": {"category": "music", "price": 500},
    "accordion": {"category": "music", "price": 900},
    "drum": {"category": "music", "price": 90},
    "teapot": {"category": "kitchen", "price": 30},
}
"""Products with a picture each, and their attributes."""

_PICTURES = {"drum": "snare-drum"}


def picture(product: str) -> bytes:
    return (DEMO_PICTURES / f"{_PICTURES.get(product, product)}.webp").read_bytes()


def fill(client: httpx.Client, key: str) -> dict[str, str]:
    """Put the catalogue there, with a key that may write; the ids of the media by product."""
    headers = {"Authorization": f"Bearer {key}"}
    media: dict[str, str] = {}
    for product, attributes in CATALOGUE.items():
        put = {"name": product.title(), "attributes": attributes}
        client.put(f"/v1/products/{product}", json=put, headers=headers).raise_for_status()
        added = client.post(f"/v1/products/{product}/media", files={"file": picture(product)}, headers=headers)
        media[product] = added.raise_for_status().json()["id"]
    return media
