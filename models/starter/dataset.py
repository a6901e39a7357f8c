"""What the training learns from and the evaluation measures on: pictures as the backbone sees them, and texts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.checkpoints.starter import minilm_folder, read_minilm
from models.starter import features, sources
from models.starter.sources import Item

QUERIES = 1000
"""How many held-out pictures are altered in each way and searched for."""

# There are hundreds of emoji of people, alike but for who does it: one view of each is enough.
_PEOPLE = re.compile(r"(man|woman|men|women|family|couple|kiss|flag|regional|people|person|keycap|japanese)\b")
_NEAR_DUPLICATES = 3000


class Words:
    """The vectors that MiniLM gives texts, float32[384] each, kept on disk."""

    def __init__(self, cache: Path) -> None:
        self._paths = cache / "texts.json", cache / "texts.npy"
        self._rows: dict[str, int] = {}
        self.vectors = np.zeros((0, 384), np.float32)
        if self._paths[0].exists():
            texts = json.loads(self._paths[0].read_bytes())
            self._rows = {text: row for row, text in enumerate(texts)}
            self.vectors = np.load(self._paths[1])

    def learn(self, texts: set[str]) -> None:
        """Embed the texts that are not on disk yet."""
        new = sorted(texts - self._rows.keys())
        if not new:
            return
        print(f"embedding {len(new)} texts", flush=True)
        minilm, _ = read_minilm(minilm_folder())
        tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(64)
        tokens = [tokenizer.encode(text).ids for text in new]
        vectors = np.zeros((len(new), 384), np.float32)
        by_length = defaultdict(list)
        for at, ids in enumerate(tokens):
            by_length[len(ids)].append(at)
        with torch.inference_mode():
            for _, members in sorted(by_length.items()):
                for start in range(0, len(members), 128):
                    part = members[start : start + 128]
                    vectors[part] = minilm(torch.tensor([tokens[at] for at in part])).numpy()
        self.vectors = np.concatenate([self.vectors, vectors])
        for text in new:
            self._rows[text] = len(self._rows)
        self._paths[0].write_text(json.dumps(list(self._rows)))
        np.save(self._paths[1], self.vectors)

    def row(self, text: str) -> int:
        """Where the text's vector is among `vectors`."""
        return self._rows[text]

    def of(self, texts: Sequence[str]) -> torch.Tensor:
        """The texts' vectors, float32[N, 384]."""
        self.learn(set(texts))
        return torch.from_numpy(self.vectors[[self._rows[text] for text in texts]])


@dataclass(frozen=True)
class Views:
    """Views of pictures, as the backbone's pools, and of which items they are."""

    items: list[Item]
    pools: NDArray[np.float16]

    def only(self, rows: Sequence[int]) -> Views:
        return Views([self.items[at] for at in rows], self.pools[list(rows)])


@dataclass(frozen=True)
class Collected:
    """Everything the backbone saw."""

    training: Views
    """Every view of the sets that are trained on."""
    pairs: tuple[NDArray[np.float16], NDArray[np.float16]]
    """Clean pictures and altered forms of the same, row by row."""
    clean: Views
    """The pictures in colour of the sets that are trained on, as they are."""
    held: Views
    """Pictures of the sets that are never trained on."""
    altered: dict[str, Views]
    """The same, as each of views.MEASURED alters them."""


def collect(data: Path, everything: list[Item]) -> Collected:
    """Look at each picture in each of its views, or read what was seen from the cache."""
    cache = data / "cache"
    model = features.write_model(cache)

    def seen(items: list[Item], kind: str) -> Views:
        return Views(items, features.look(data, items, kind, cache, model))

    held = [item for item in everything if item.set in sources.NEVER_TRAINED]
    trained = [item for item in everything if item.set not in sources.NEVER_TRAINED]
    colour = [item for item in trained if item.set not in sources.ONE_COLOUR]
    lines = [item for item in trained if item.set in sources.ONE_COLOUR]
    vivid = [item for item in colour if not _PEOPLE.match(item.name)]
    some = sorted(vivid, key=lambda item: sources.draw(f"near/{item.set}/{item.key}"))[:_NEAR_DUPLICATES]
    clean, near, strong = seen(colour, "clean"), seen(some, "near"), seen(vivid, "strong")
    parts = (clean, near, strong, seen(lines, "strong"))
    row = {(item.set, item.key): at for at, item in enumerate(colour)}
    gallery = sorted(held, key=lambda item: sources.draw(f"{item.set}/{item.key}"))[:QUERIES]
    return Collected(
        training=Views([item for part in parts for item in part.items], np.concatenate([part.pools for part in parts])),
        pairs=(clean.pools[[row[item.set, item.key] for item in some]], near.pools),
        clean=clean,
        held=seen(held, "clean"),
        altered={kind: seen(gallery, kind) for kind in features.MEASURED},
    )
