"""Whether a picture and words together find what neither finds alone: composed queries.

$ python -m bench compose
$ python -m bench compose --model models/clip-vit-b32 --json compose.json

Three sets of queries, each of a picture and a word or two that say what is to be otherwise, and each with one target:

- shapes: drawn shapes in ten colours, "this one, but blue". The picture that is asked with is drawn smaller and
  elsewhere than those that are searched.
- tints: pictures of the demo catalogue, each in eight colours, "this one, in red", among the whole demo catalogue.
- things: pictures of the demo catalogue, "this shoe, with wheels". The list was written before the first run, and the
  picture that is asked with is left out of what is searched.

Each is asked by the picture alone, the words alone, their plain sum, and sums with a weight of the words, as the server
makes them. A weight is chosen on one half of the queries and measured on the other, both ways. `centred`: the mean of
the demo's pictures is taken from a picture and the mean of its products' names from words, before they are added.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from bench import machine
from bench.near_duplicates import PICTURES, embed, read_pictures
from server.artifact.artifact import Artifact, Vectors
from server.catalogue.composing import composed
from server.errors import TwinlensError
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.text import Tokenizer

FIRST = 5
"""A target counts as found among so many."""

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the words, beside 1 of the picture."""

LESS = (0.25, 0.5, 1.0)
"""Of the words for what the picture is and the target is not, beside the weight of the other words."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (245, 135, 25),
    "yellow": (250, 215, 40),
    "green": (40, 160, 65),
    "blue": (35, 85, 215),
    "purple": (125, 50, 170),
    "pink": (250, 130, 185),
    "brown": (125, 75, 40),
    "grey": (135, 135, 135),
    "black": (25, 25, 25),
}
TINTS = tuple(COLOURS)[:8]

_SIDE = 256
_TINTED_EACH = 7  # every seventh picture of the demo's 280

THINGS = (
    ("running-shoe", "ice", "ice-skate"),
    ("running-shoe", "wheels", "roller-skate"),
    ("running-shoe", "mountain hike", "hiking-boot"),
    ("leather-shoe", "high heel", "high-heeled-shoe"),
    ("leather-shoe", "beach", "sandal"),
    ("toy-car", "fire", "toy-fire-engine"),
    ("toy-car", "bus", "toy-bus"),
    ("toy-car", "farm", "toy-tractor"),
    ("toy-delivery-van", "train", "toy-steam-locomotive"),
    ("toy-helicopter", "space", "toy-rocket"),
    ("violin", "electric", "electric-guitar"),
    ("saxophone", "brass", "trumpet"),
    ("piano-keyboard", "computer", "keyboard"),
    ("glasses", "sun", "sunglasses"),
    ("glasses", "swimming", "goggles"),
    ("baseball-cap", "magician", "top-hat"),
    ("baseball-cap", "summer", "sun-hat"),
    ("coat", "laboratory", "lab-coat"),
    ("desktop-monitor", "portable", "laptop"),
    ("desktop-monitor", "television programme", "television"),
    ("camera", "film", "camcorder"),
    ("wristwatch", "sand", "hourglass"),
    ("wristwatch", "alarm", "alarm-clock"),
    ("cup-of-tea", "pot", "teapot"),
    ("red-wine-glass", "beer", "beer-mug"),
    ("red-wine-glass", "trophy", "trophy"),
    ("handbag", "school", "school-backpack"),
    ("handbag", "travel", "suitcase"),
    ("skateboard", "snow", "skis"),
    ("sailing-boat", "paddle", "canoe"),
    ("pencil", "paint", "paintbrush"),
    ("pencil", "make-up", "lipstick"),
    ("baseball", "basket", "basketball"),
    ("baseball", "foot", "football"),
    ("red-apple", "yellow", "lemon"),
    ("croissant", "chocolate", "chocolate-bar"),
    ("sunflower", "red", "rose"),
    ("hammer", "screw", "screwdriver"),
    ("motorcycle", "pedals", "bicycle"),
    ("notebook", "open", "open-book"),
)
"""A picture of the demo catalogue, words, and the picture that both mean."""


@dataclass(frozen=True, slots=True)
class Query:
    """A picture and words, and which picture both mean."""

    picture: int
    """Its row among the set's pictures to ask with."""
    words: str
    target: int
    """Its row among the set's pictures to search."""
    less: str | None = None
    """What the picture is and the target is not."""
    without: int | None = None
    """A row that is not searched: the picture that is asked with."""


@dataclass(frozen=True, slots=True)
class Set:
    """Queries, the pictures that they ask with, and those that are searched: float32[N, D] both."""

    name: str
    asked: Vectors
    searched: Vectors
    queries: Sequence[Query]


@dataclass(frozen=True, slots=True)
class Centre:
    """What is taken from each kind of vector before they are added: float32[D] each, or nothing."""

    pictures: Vectors | None = None
    words: Vectors | None = None

    def of(self, picture: Vectors, words: Vectors) -> tuple[Vectors, Vectors]:
        if self.pictures is None or self.words is None:
            return picture, words
        return unit(picture - self.pictures), unit(words - self.words)


def unit(vector: Vectors) -> Vectors:
    """The vector, or each of several, at unit length."""
    made: Vectors = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return made


# --- pictures --------------------------------------------------------------------------------------------------------


def _star(points: int, inner: float, turn: float = -pi / 2) -> list[tuple[float, float]]:
    """A star's corners around (0, 0), its points at distance 1. With `inner` 1, a polygon of twice as many corners."""
    spots = ((turn + pi * at / points, 1.0 if at % 2 == 0 else inner) for at in range(2 * points))
    return [(far * cos(angle), far * sin(angle)) for angle, far in spots]


def _polygon(corners: int, turn: float = -pi / 2) -> list[tuple[float, float]]:
    return [(cos(turn + 2 * pi * at / corners), sin(turn + 2 * pi * at / corners)) for at in range(corners)]


SHAPES: Mapping[str, Sequence[tuple[float, float]]] = {
    "circle": _polygon(64),
    "square": _polygon(4, pi / 4),
    "triangle": _polygon(3),
    "diamond": [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)],
    "hexagon": _polygon(6),
    "star": _star(5, 0.4),
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
    "arrow": [(-1, -0.3), (0.2, -0.3), (0.2, -0.8), (1, 0), (0.2, 0.8), (0.2, 0.3), (-1, 0.3)],
    "bar": [(-1, -0.25), (1, -0.25), (1, 0.25), (-1, 0.25)],
    "crescent": [
        *((cos(pi / 2 + pi * at / 24), sin(pi / 2 + pi * at / 24)) for at in range(25)),
        *((0.45 * cos(3 * pi / 2 - pi * at / 24), sin(3 * pi / 2 - pi * at / 24)) for at in range(25)),
    ],
}  # fmt: skip


def drawn(shape: str, colour: str, *, radius: float, at: tuple[float, float]) -> Image.Image:
    """A shape of one colour on white, drawn large and made smaller so that its edges are smooth."""
    scale = 4
    image = Image.new("RGB", (_SIDE * scale, _SIDE * scale), "white")
    spots = [((at[0] + radius * x) * _SIDE * scale, (at[1] + radius * y) * _SIDE * scale) for x, y in SHAPES[shape]]
    ImageDraw.Draw(image).polygon(spots, fill=COLOURS[colour])
    return image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def tinted(picture: Image.Image, colour: str) -> Image.Image:
    """A picture on white in shades of one colour: light stays light and dark dark."""
    red, green, blue = (one / 255 for one in COLOURS[colour])
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    dark = tuple(round(255 * one) for one in colorsys.hls_to_rgb(hue, 0.12, saturation))
    return ImageOps.colorize(ImageOps.grayscale(picture), black=dark, mid=COLOURS[colour], white=(255, 255, 255))


# --- sets of queries -------------------------------------------------------------------------------------------------

Look = Callable[[Sequence[Image.Image]], Vectors]


def shapes(look: Look) -> Set:
    """Each shape in each colour, asked for with the same shape in each other colour."""
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    place = {kind: at for at, kind in enumerate(kinds)}
    queries = [
        Query(place[shape, colour], other, place[shape, other], less=colour)
        for shape, colour in kinds
        for other in COLOURS
        if other != colour
    ]
    asked = look([drawn(*kind, radius=0.26, at=(0.42, 0.56)) for kind in kinds])
    searched = look([drawn(*kind, radius=0.4, at=(0.5, 0.5)) for kind in kinds])
    return Set("shapes", asked, searched, queries)


def tints(look: Look, demo: Mapping[str, Image.Image], vectors: Vectors) -> Set:
    """Some pictures of the demo catalogue in each of the tints, beside all of its pictures as they are."""
    chosen = range(0, len(demo), _TINTED_EACH)
    pictures = list(demo.values())
    copies = look([tinted(pictures[at], colour) for at in chosen for colour in TINTS])
    first = len(pictures)
    queries = [
        Query(at, colour, first + number * len(TINTS) + tint, without=at)
        for number, at in enumerate(chosen)
        for tint, colour in enumerate(TINTS)
    ]
    return Set("tints", vectors, np.concatenate([vectors, copies]), queries)


def things(demo: Mapping[str, Image.Image], vectors: Vectors) -> Set:
    """THINGS among all pictures of the demo catalogue."""
    place = {Path(name).stem: at for at, name in enumerate(demo)}
    queries = [Query(place[one], words, place[target], without=place[one]) for one, words, target in THINGS]
    return Set("things", vectors, vectors, queries)


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one set and one way to ask."""

    of: str
    way: str
    recall: float
    """The share of the queries, 0 to 1, whose target is among the first FIRST."""
    weights: tuple[float, ...] = ()
    """Chosen on the one half and on the other."""


def found(of: Set, query: Query, vector: NDArray[np.float64] | Vectors) -> bool:
    """Whether the query's target is among the first FIRST of what this vector finds."""
    cosines = of.searched @ vector.astype(np.float32)
    if query.without is not None:
        cosines[query.without] = -np.inf
    return bool((cosines > cosines[query.target]).sum() < FIRST)


def asked(
    of: Set, words: Mapping[str, Vectors], weight: float, less: float = 0.0, centre: Centre | None = None
) -> NDArray[np.bool_]:
    """Which queries of a set find their target: bool[N]. `weight`: of the words, `less`: of what it should not be."""
    centre = centre or Centre()
    answers = []
    for query in of.queries:
        picture, said = centre.of(of.asked[query.picture], words[query.words])
        parts, weights = [picture, said], [1.0, weight]
        if less and query.less is not None:
            parts.append(centre.of(of.asked[query.picture], words[query.less])[1])
            weights.append(-less)
        answers.append(found(of, query, composed(parts, weights)))
    return np.array(answers)


def measure(of: Set, words: Mapping[str, Vectors], centre: Centre) -> Iterator[Measured]:
    """Every way to ask, on one set."""
    picture = np.array([found(of, query, of.asked[query.picture]) for query in of.queries])
    yield Measured(of.name, "picture alone", float(picture.mean()))
    yield Measured(of.name, "words alone", float(np.mean([found(of, one, words[one.words]) for one in of.queries])))
    for name, middle in (("", None), (", centred", centre)):
        by_weight = {weight: asked(of, words, weight, centre=middle) for weight in WEIGHTS}
        yield Measured(of.name, f"plain sum{name}", float(by_weight[1.0].mean()))
        yield from (
            Measured(of.name, f"words x {weight:g}{name}", float(by_weight[weight].mean())) for weight in WEIGHTS
        )
        yield _chosen(of.name, f"weight chosen{name}", {(weight,): given for weight, given in by_weight.items()})
        if any(query.less for query in of.queries):
            both: dict[tuple[float, ...], NDArray[np.bool_]] = {
                (weight, less): asked(of, words, weight, weight * less, centre=middle)
                for weight in WEIGHTS
                for less in LESS
            }
            yield _chosen(of.name, f"weight chosen, and less of what it is{name}", both)


def _chosen(of: str, way: str, given: Mapping[tuple[float, ...], NDArray[np.bool_]]) -> Measured:
    """The best weights of each half of the queries, measured on the other half."""
    (count,) = {len(one) for one in given.values()}
    order = np.random.default_rng(1).permutation(count)
    halves = order[: count // 2], order[count // 2 :]
    best = [max(given, key=lambda weights: given[weights][half].mean()) for half in halves]
    right = sum(int(given[best[one]][halves[1 - one]].sum()) for one in (0, 1))
    return Measured(of, way, right / count, tuple(one for weights in best for one in weights))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0 done, 2 refused (standard error has a sentence)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench compose", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="the artifact's folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args(arguments)
    try:
        artifact = Artifact.read(options.model)
        tower = artifact.manifest.text
        if tower is None:
            print("bench: this model reads no words, so that nothing can be composed of words.", file=sys.stderr)
            return 2
        demo = read_pictures(PICTURES)
        tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
        with (
            Encoder(artifact, options.precision, options.device) as encoder,
            TextEncoder(artifact, options.precision, options.device) as reader,
        ):

            def look(images: Sequence[Image.Image]) -> Vectors:
                return embed(encoder, artifact.spec, list(images))

            def read(text: str) -> Vectors:
                (vector,) = reader.encode(tokenizer.tokens(text)[np.newaxis])
                return unit(vector)

            vectors = look(list(demo.values()))
            sets = [shapes(look), tints(look, demo, vectors), things(demo, vectors)]
            said = {words for one in sets for query in one.queries for words in (query.words, query.less) if words}
            words = {text: read(text) for text in sorted(said)}
            names = [Path(name).stem.replace("-", " ") for name in demo]
            centre = Centre(vectors.mean(axis=0), np.stack([read(name) for name in names]).mean(axis=0))
    except TwinlensError as exc:
        print(f"bench: {exc.sentence}", file=sys.stderr)
        return 2
    print(machine.sentence())
    print(f"{artifact.manifest.model}, {options.precision}: recall@{FIRST}\n")
    results = []
    for one in sets:
        print(f"{one.name}: {len(one.queries)} queries among {len(one.searched)} pictures")
        for given in measure(one, words, centre):
            results.append(given)
            weights = f"  weights {', '.join(f'{weight:g}' for weight in given.weights)}" if given.weights else ""
            print(f"  {given.way:<48}{given.recall:>7.1%}{weights}")
        print()
    if options.json:
        figures = [
            {"set": one.of, "way": one.way, "recall": round(one.recall, 4), "weights": one.weights} for one in results
        ]
        command = shlex.join(["python", "-m", "bench", "compose", *(sys.argv[2:] if arguments is None else arguments)])
        kept = {"command": command, "machine": machine.describe(), f"recall@{FIRST}": figures}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
