"""What the grade of words is worth: which right and wrong pairs of words and a picture reach it. It trains nothing.

    python -m models.starter.words --data FOLDER

The threshold is in the artifact, chosen by `captions.csv`: the names of the demo catalogue's 280 pictures. Those
pictures were never trained on, nor were the others of Fluent 3D and Tux Paint's stamps, which it is measured on here.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.proof.captions import Caption, captioned, read_captions
from export.proof.gate import BATCH
from models.starter import sources
from models.starter.evaluate import THINGS, caption
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.text import Tokenizer

STARTER = Path(__file__).parent

NONSENSE = 300
"""How many words without meaning are searched for."""


def nonsense(number: int) -> str:
    """Four to nine letters that depend on nothing but the number."""
    drawn = hashlib.sha256(f"nonsense {number}".encode()).digest()
    return "".join(chr(ord("a") + byte % 26) for byte in drawn[1 : 5 + drawn[0] % 6])


def sets_of(data: Path) -> dict[str, list[Caption]]:
    """Captioned pictures that the starter was never trained on; the first is what the threshold was chosen by."""
    demo = read_captions(STARTER / "captions.csv")
    bundled = {hashlib.sha256(one.picture.read_bytes()).digest() for one in demo}
    everything = sources.held_out(data)
    fluent = [
        item
        for item in everything
        if item.set == "fluent-3d" and hashlib.sha256((data / item.picture).read_bytes()).digest() not in bundled
    ]
    stamps = [item for item in everything if item.set == "tuxpaint" and len(caption(item).split()) <= 4]

    def captions(items: Sequence[sources.Item]) -> list[Caption]:
        return [Caption(data / item.picture, caption(item), 0) for item in items]

    return {
        "demo catalogue": demo,
        "Fluent 3D without it": captions(fluent),
        "of these, things": captions([item for item in fluent if item.tags & THINGS]),
        "Tux Paint's stamps": captions(stamps),
    }


def measure(captions: Sequence[Caption]) -> list[str]:
    """A row of the table: what part of right and wrong pairs is similar, and of words without meaning what part finds
    anything."""
    artifact = Artifact.read(STARTER)
    variant, tower = artifact.variant("fp32"), artifact.manifest.text
    if variant.text_grades is None or tower is None:
        raise SystemExit("The starter has no grades of words.")
    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    pairs = captioned(captions, artifact.spec, tokenizer)
    with Encoder(artifact, "fp32", "cpu") as encoder, TextEncoder(artifact, "fp32", "cpu") as words:
        batches = range(0, len(pairs.pixels), BATCH)
        pictures = np.concatenate([encoder.encode(np.stack(pairs.pixels[at : at + BATCH])) for at in batches])
        meant = np.concatenate([words.encode(tokens[None]) for tokens in pairs.tokens])
        meaningless = [words.encode(tokenizer.tokens(nonsense(number))[None]) for number in range(NONSENSE)]
    similar = meant @ pictures.T >= variant.text_grades.similar
    found = np.concatenate(meaningless) @ pictures.T >= variant.text_grades.similar
    return [
        str(len(pictures)),
        f"{100 * similar[pairs.own].mean():.1f}",
        f"{100 * similar[~pairs.own].mean():.2f}",
        f"{100 * found.mean():.3f}",
        f"{100 * found.any(axis=1).mean():.1f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.starter.words", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where packages are kept (about 400 MB)")
    options = parser.parse_args(arguments)
    sources.fetch(options.data, (*sources.HELD_OUT, *sources.WORDS))
    for name, captions in sets_of(options.data).items():
        print(f"| {name} | {' | '.join(measure(captions))} |", flush=True)


if __name__ == "__main__":
    main()
