"""What a part of a picture finds, and how good the server's proposals of parts are.

$ python -m bench regions
$ python -m bench regions --json regions.json

Each picture of the demo catalogue is searched with 80 and 50 % of its sides, in the middle and in each corner. Then 40
scenes of two to four of these things, on plain, shaded and textured grounds, are searched thing by thing: with all of
the scene, with the thing's true box, and with the nearest of five proposals, which are made in several ways. In a third
of the scenes things may cover each other. Then the same on photographs of something else.

The bar for the server to offer proposals was set before the first was made: of all things 70 % have a proposal with an
overlap (intersection over union) of at least 0.5, and 80 % of these are found first with it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import machine
from bench.near_duplicates import MAX_PIXELS, PICTURES
from bench.regions import finding
from bench.regions.finding import Chosen, Finder, Summary, choose, own_parts
from bench.regions.scenes import GROUNDS, Scene, scenes
from server.artifact.artifact import Artifact
from server.errors import TwinlensError
from server.inference.encoder import Encoder
from server.preprocessing.media import decode

PHOTOGRAPHS = Path(__file__).parent.parent.parent / "export" / "pictures"

LEAST_RECALL = 0.7
LEAST_RIGHT = 0.8


def measure(encoder: Encoder, artifact: Artifact) -> dict[str, Any]:
    """All of it, as JSON has it."""
    pictures: dict[str, Image.Image] = {}
    layered: list[tuple[str, Image.Image]] = []
    for path in sorted(PICTURES.glob("*.webp")):
        pictures[path.stem] = decode(path.read_bytes(), max_pixels=MAX_PIXELS, alpha=artifact.spec.alpha).in_srgb()
        with Image.open(path) as image:
            layered.append((path.stem, image.convert("RGBA")))
    finder = Finder(encoder, artifact.spec, pictures)
    drawn, on_photographs = scenes(layered), scenes(layered, _photographs())
    ways: dict[str, finding.Proposing] = {
        "what stands out from the ground": finding.by_ground,
        "windows by the tower": finding.by_tower(finder),
        "quarters and the middle": finding.quarters,
    }
    return {
        "parts": [asdict(part) for part in own_parts(finder, pictures)],
        "scenes": _of_scenes(finder, drawn, ways),
        "photographs": _of_scenes(finder, on_photographs, ways),
    }


def _photographs() -> list[Image.Image]:
    paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
    return [decode(path.read_bytes(), max_pixels=MAX_PIXELS, jpeg_at_least=480).in_srgb() for path in paths]


def _of_scenes(finder: Finder, made: Sequence[Scene], ways: Mapping[str, finding.Proposing]) -> dict[str, Any]:
    things = [(scene, thing) for scene in made for thing in scene.things]
    whole = choose(finder, made, finding.of_all)
    true = finder.first([scene.image.crop(thing.box) for scene, thing in things])
    proposals = [len(finding.by_ground(scene.image)) for scene in made]
    return {
        "scenes": len(made),
        "things": len(things),
        "wholeRight": float(np.mean([one.right for one in whole])),
        "trueBoxRight": float(np.mean([name == thing.name for name, (_, thing) in zip(true, things, strict=True)])),
        "meanProposals": float(np.mean(proposals)),
        "ways": {name: _summaries(choose(finder, made, propose)) for name, propose in ways.items()},
    }


def _summaries(chosen: Sequence[Chosen]) -> dict[str, Any]:
    sets: dict[str, Sequence[Chosen]] = {"all": chosen}
    for ground in GROUNDS:
        sets[ground] = [one for one in chosen if one.scene.ground == ground]
    sets["apart"] = [one for one in chosen if not one.scene.overlaps]
    sets["may overlap"] = [one for one in chosen if one.scene.overlaps]
    return {name: asdict(Summary.of(some)) for name, some in sets.items() if some}


def report(found: Mapping[str, Any]) -> None:
    """Print what was measured."""
    print("a picture of the catalogue is first when it is searched with a part of itself, %")
    for part in found["parts"]:
        print(f"  {part['kept']:.0%} of each side, {part['place']:<12} {100 * part['first']:6.1f}")
    for name in ("scenes", "photographs"):
        one = found[name]
        print(f"\n{name}: {one['scenes']} with {one['things']} things; the thing is first, searched with")
        print(f"  all of the scene {100 * one['wholeRight']:.1f} %, its true box {100 * one['trueBoxRight']:.1f} %")
        print(f"  {'proposals':<34}{'things':>7}{'recall':>8}{'right of these':>16}{'right of all':>14}")
        for way, sets in one["ways"].items():
            for kind, of in sets.items():
                figures = (of["recall"], of["right_of_found"], of["right"])
                shares = "".join(f"{100 * value:>{wide}.1f}" for value, wide in zip(figures, (8, 16, 14), strict=True))
                print(f"  {way if kind == 'all' else '  ' + kind:<34}{of['things']:>7}{shares}")
    ours = found["scenes"]["ways"]["what stands out from the ground"]["all"]
    met = ours["recall"] >= LEAST_RECALL and ours["right_of_found"] >= LEAST_RIGHT
    print(f"\nthe bar, {LEAST_RECALL:.0%} and {LEAST_RIGHT:.0%}, is {'met' if met else 'not met'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0 done, 2 refused (standard error has a sentence)."""
    parser = argparse.ArgumentParser(prog="python -m bench regions", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="the artifact's folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    try:
        artifact = Artifact.read(options.model)
        with Encoder(artifact, options.precision, options.device) as encoder:
            found = measure(encoder, artifact)
    except TwinlensError as exc:
        print(f"bench: {exc.sentence}", file=sys.stderr)
        return 2
    print(machine.sentence())
    print(f"{artifact.manifest.model}, {options.precision}\n")
    report(found)
    if options.json is not None:
        command = shlex.join(
            ["python", "-m", "bench", "regions", *(arguments if arguments is not None else sys.argv[2:])]
        )
        about = {"command": command, "machine": machine.describe(), "model": artifact.manifest.model}
        options.json.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    return 0
