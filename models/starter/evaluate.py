"""How well the trained heads do on pictures and concepts that they never saw: every figure of the card."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from export.checkpoints.starter import (
    POOLS,
    Pools,
    image_head,
    lite0_weights,
    read_backbone,
    text_head,
)
from models.starter import features, sources
from models.starter.before import expected_features, orthogonal_signs
from models.starter.dataset import Collected, Views, Words

GALLERY = 2000
"""Among how many pictures an altered one is searched for."""

THINGS = {"objects", "food", "animals", "travel", "activities"}
QUESTIONS = (
    "red apple", "shoe", "guitar", "something to drink", "fruit", "musical instrument", "sports equipment", "clock",
    "kitchen knife", "toy for children", "hot beverage", "vehicle", "jewellery", "birthday party", "camera",
    "light in the dark", "running shoes", "tool for repairs", "flower", "bag",
)  # fmt: skip


def as_pools(pools: Any) -> Pools:
    """An array of all pools to one tensor for each."""
    whole = torch.from_numpy(np.asarray(pools).astype(np.float32))
    return {name: whole[:, features.part(name)] for name in POOLS}


def caption(item: sources.Item) -> str:
    """A stamp's caption is a sentence and often more: its first part names the thing."""
    return re.split(r"[.!;:(–—,]", item.name)[0].strip() if item.set == "tuxpaint" else item.name


class Embedder:
    """Pools and texts to vectors of the space, by the heads as they are stored."""

    def __init__(self, trained: dict[str, torch.Tensor], words: Words) -> None:
        self._head = image_head(trained, read_backbone()[1])
        self._text = text_head(trained)
        self._words = words
        self.visual = self._head.visual.out_features

    def pictures(self, pools: Any) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([self._head(as_pools(pools[at : at + 1024])) for at in range(0, len(pools), 1024)])

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        with torch.inference_mode():
            return functional.pad(functional.normalize(self._text(self._words.of(texts)), dim=1), (self.visual, 0))


class Untrained:
    """What the classifier alone can do: its classes' probabilities times the vectors of their names."""

    def __init__(self, words: Words, classes: list[tuple[str, ...]]) -> None:
        self._classifier = read_backbone()[1]
        self._words = words
        self._names = torch.stack([functional.normalize(words.of(names).mean(0), dim=0) for names in classes])

    def pictures(self, pools: Any) -> torch.Tensor:
        with torch.inference_mode():
            sure = torch.softmax(self._classifier(as_pools(pools)["head"]), 1)
            return functional.normalize(sure @ self._names, dim=1)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self._words.of(texts)


class Before:
    """The starter as it was before anything was trained: the last features, centred, projected by random signs."""

    def __init__(self) -> None:
        weights = lite0_weights()
        self._centre = torch.from_numpy(expected_features(weights["_bn1.bias"], weights["_bn1.weight"]))
        self._signs = torch.from_numpy(orthogonal_signs())

    def pictures(self, pools: Any) -> torch.Tensor:
        return functional.normalize((as_pools(pools)["head"] - self._centre) @ self._signs.T, dim=1)


class Embeds(Protocol):
    """Whatever makes vectors of pictures."""

    def pictures(self, pools: Any) -> torch.Tensor: ...


class EmbedsBoth(Embeds, Protocol):
    """Whatever makes vectors of pictures and of texts, in one space."""

    def texts(self, texts: Sequence[str]) -> torch.Tensor: ...


def recall(queries: torch.Tensor, gallery: torch.Tensor) -> dict[str, Any]:
    """Row i of the gallery is what row i of the queries looks for."""
    cosines = queries @ gallery.T
    rank = (cosines > cosines.diagonal()[:, None]).sum(1)
    found = {f"recall@{k}": round(float((rank < k).float().mean()), 4) for k in (1, 5, 10)}
    return {"items": len(queries), **found, "median rank": int(rank.median()) + 1}


def _once(views: Views) -> list[int]:
    """One row for each caption."""
    seen: dict[str, int] = {}
    for at in sorted(range(len(views.items)), key=lambda at: sources.draw(f"gallery/{views.items[at].key}")):
        seen.setdefault(caption(views.items[at]), at)
    return list(seen.values())


def near_duplicates(embed: Embeds, held: Views, altered: dict[str, Views]) -> dict[str, Any]:
    """How often an altered picture has its original first among GALLERY pictures, and their mean cosine.

    A dozen pictures are there twice, pixel by pixel (an l and an I): a twin is not counted as another picture.
    """
    rows = {(item.set, item.key): at for at, item in enumerate(held.items)}
    order = sorted(held.items, key=lambda item: sources.draw(f"{item.set}/{item.key}"))[:GALLERY]
    pools = held.pools[[rows[item.set, item.key] for item in order]]
    gallery = embed.pictures(pools)
    head = torch.from_numpy(pools[:, features.part("head")].astype(np.float32))
    twins = torch.cdist(head, head, p=torch.inf) < 0.02
    found: dict[str, Any] = {}
    for kind, views in altered.items():
        cosines = embed.pictures(views.pools) @ gallery.T
        at = torch.arange(len(cosines))
        own = cosines[at, at].clone()
        cosines[twins[: len(cosines)]] = -1
        found[kind] = {
            "first": round(float((own > cosines.max(1).values).float().mean()), 4),
            "cosine": round(float(own.mean()), 4),
        }
    themselves = gallery @ gallery.T
    itself = themselves.diagonal().clone()
    themselves[twins] = -1
    return {
        "gallery": len(gallery),
        "of them twins of another": int((twins.sum(1) > 1).sum()),
        "mean": round(float(np.mean([one["first"] for one in found.values()])), 4),
        "by alteration": found,
        "itself first": round(float((itself >= themselves.max(1).values).float().mean()), 4),
        "another at cosine 0.999 or more": int((themselves.max(1).values > 0.999).sum()),
        "median cosine of unrelated pictures": round(float(themselves[themselves > -1].median()), 4),
    }


def zero_shot(embed: Embedder, held: Views, classes: list[tuple[str, ...]]) -> dict[str, Any]:
    """Held-out pictures whose caption is a name of an ImageNet class, classified among all 1000 classes."""
    by_name = {name: number for number, names in reversed(list(enumerate(classes))) for name in names}
    known = [(at, by_name[caption(item)]) for at, item in enumerate(held.items) if caption(item) in by_name]
    vectors = embed.texts([names[0] for names in classes])
    order = (embed.pictures(held.pools[[at for at, _ in known]]) @ vectors.T).argsort(1, descending=True)
    right = order == torch.tensor([number for _, number in known])[:, None]
    return {
        "pictures": len(known),
        "classes": len(classes),
        "top-1": round(float(right[:, :1].any(1).float().mean()), 4),
        "top-5": round(float(right[:, :5].any(1).float().mean()), 4),
    }


def text_to_picture(embed: EmbedsBoth, held: Views) -> dict[str, Any]:
    """Recall on the sets that were never trained on: a caption is asked for, one picture has it."""
    once = _once(held)
    emoji = [at for at in once if held.items[at].set == "fluent-3d"]
    stamps = [at for at in once if held.items[at].set == "tuxpaint" and "symbols" not in held.items[at].tags]
    chosen = {
        "Fluent 3D, 1000 drawn at random": emoji[:1000],
        "Fluent 3D, things (no faces, people, symbols)": [at for at in emoji if held.items[at].tags & THINGS],
        "Tux Paint stamps, captions of up to four words": [
            at for at in stamps if len(caption(held.items[at]).split()) <= 4
        ],
    }
    return {
        name: recall(embed.texts([caption(held.items[at]) for at in rows]), embed.pictures(held.pools[rows]))
        for name, rows in chosen.items()
    }


def untaught(embed: EmbedsBoth, collected: Collected, names: frozenset[str]) -> dict[str, Any]:
    """Recall of a model that never met these names, in any picture or text: in sets that it knows, and in one not."""
    known = collected.clean.only([at for at, item in enumerate(collected.clean.items) if item.name in names])
    rows = _once(known)
    found = {
        "in sets that were trained on, among each other": recall(
            embed.texts([known.items[at].name for at in rows]), embed.pictures(known.pools[rows])
        )
    }
    held = collected.held
    emoji = [at for at in _once(held) if held.items[at].set == "fluent-3d"][:1000]
    asked = [at for at, row in enumerate(emoji) if held.items[row].name in names]
    cosines = embed.texts([held.items[emoji[at]].name for at in asked]) @ embed.pictures(held.pools[emoji]).T
    rank = (cosines > cosines[torch.arange(len(asked)), asked][:, None]).sum(1)
    found["in Fluent 3D, among 1000"] = {
        "items": len(asked),
        **{f"recall@{k}": round(float((rank < k).float().mean()), 4) for k in (1, 5, 10)},
    }
    return found


def figures(
    trained: dict[str, torch.Tensor],
    twin: dict[str, torch.Tensor],
    collected: Collected,
    words: Words,
    names: frozenset[str],
    classes: list[tuple[str, ...]],
) -> dict[str, Any]:
    """All of them, as figures.json has them. `twin` never met the concepts with these names."""
    embed = Embedder(trained, words)
    held = collected.held
    emoji = [at for at in _once(held) if held.items[at].set == "fluent-3d"]
    cosines = embed.texts(QUESTIONS) @ embed.pictures(held.pools[emoji]).T
    shown = {
        question: [held.items[emoji[at]].name for at in cosines[row].argsort(descending=True)[:5].tolist()]
        for row, question in enumerate(QUESTIONS)
    }
    return {
        "trained views": len(collected.training.items),
        "trained pictures": len({(item.set, item.key) for item in collected.training.items}),
        "pictures by set": dict(sorted(Counter(item.set for item in {*collected.training.items, *held.items}).items())),
        "text to picture, sets never trained on": text_to_picture(embed, held),
        "the same, untrained: class probabilities times names' vectors": text_to_picture(
            Untrained(words, classes), held
        ),
        "text to picture, concepts never trained on (a twin)": {"names": len(names)}
        | untaught(Embedder(twin, words), collected, names),
        "zero-shot over the names of ImageNet's classes": zero_shot(embed, held, classes),
        "picture to near-duplicate": near_duplicates(embed, held, collected.altered),
        "the same, untrained: the starter before, centred and projected": near_duplicates(
            Before(), held, collected.altered
        ),
        "questions, among all of Fluent 3D": shown,
    }
