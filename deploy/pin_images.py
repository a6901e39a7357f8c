"""Writes the digests of the images that we build on into the files that name them.

    python deploy/pin_images.py             # ask the registries, and write image:tag@sha256:...
    python deploy/pin_images.py --check     # only say what would be written; exit code 1 where anything would

A tag can be moved to another image; a digest is one image for ever. A person runs this, and commits what it wrote: it
asks registries on the internet, which no build and no test does. Exit code 2: a registry did not say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile", "Dockerfile.gpu", "compose.yaml")

# ARG BASE=..., and `image: ...` of compose. What is built here has no tag, and what has variables in it is the
# operator's to pin.
NAMED = re.compile(
    r"^(?P<before>ARG BASE=|\s+image:\s*)(?P<image>[^\s@$#]+:[^\s@$#]+)(?P<digest>@sha256:[0-9a-f]{64})?", re.M
)

HUB = "registry-1.docker.io"
# Of all platforms together, where an image has several: so the same line serves each of them.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
TIMEOUT_SECONDS = 30


class NotSaid(Exception):
    """What a registry did not say, as a sentence."""


@dataclass(frozen=True)
class Image:
    """An image of a registry: `python:3.11-slim` is that of Docker Hub's own folder `library`."""

    registry: str
    name: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Image:
        path, _, tag = text.rpartition(":") if ":" in text.rsplit("/", 1)[-1] else (text, "", "latest")
        first, slash, rest = path.partition("/")
        if slash and (re.search(r"[.:]", first) or first == "localhost"):
            return cls(first, rest, tag)
        return cls(HUB, path if slash else f"library/{path}", tag)

    @property
    def url(self) -> str:
        loopback = re.fullmatch(r"(localhost|127\.[0-9.]+)(:[0-9]+)?", self.registry)
        return f"{'http' if loopback else 'https'}://{self.registry}/v2/{self.name}/manifests/{self.tag}"


def digest_of(image: Image) -> str:
    """`sha256:...` of the image that its tag names now. Raises NotSaid."""
    headers = {"Accept": ", ".join(MANIFESTS), "User-Agent": "twinlens-pin-images"}
    try:
        try:
            answer = _head(image.url, headers)
        except urllib.error.HTTPError as refused:
            if refused.code != 401:
                raise
            token = _token(refused.headers.get("WWW-Authenticate", ""))
            answer = _head(image.url, {**headers, "Authorization": f"Bearer {token}"})
    except (OSError, ValueError, KeyError) as exc:
        raise NotSaid(f"{image.registry} did not say what {image.name}:{image.tag} is: {exc}") from exc
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", answer):
        raise NotSaid(f"{image.registry} gave no digest of {image.name}:{image.tag}.")
    return answer


def _head(url: str, headers: dict[str, str]) -> str:
    # The scheme is ours: https, or http to this machine.
    request = urllib.request.Request(url, headers=headers, method="HEAD")  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str) -> str:
    """A token that anybody is given, from the place that the registry's refusal names."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm")
    if not re.match(r"https://|http://(localhost|127\.)", realm):
        raise ValueError(f"tokens come from {realm}, which is not https")
    url = f"{realm}?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        said = json.load(answer)
    return str(said.get("token") or said["access_token"])


def pinned(text: str, digests: dict[str, str]) -> str:
    """The text with the digest of each image that it names; `digests` is asked first, and filled."""

    def written(found: re.Match[str]) -> str:
        image = found["image"]
        if image not in digests:
            digests[image] = digest_of(Image.parse(image))
        return f"{found['before']}{image}@{digests[image]}"

    return NAMED.sub(written, text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[ROOT / name for name in FILES])
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args(arguments)
    digests: dict[str, str] = {}
    try:
        changed = {path: new for path in given.files if (new := pinned(old := path.read_text(), digests)) != old}
    except NotSaid as exc:
        print(f"{exc} Nothing was written.", file=sys.stderr)
        return 2
    for image, digest in digests.items():
        print(f"{image}@{digest}")
    for path, new in changed.items():
        print(f"{path}: {'is not up to date' if given.check else 'written'}")
        if not given.check:
            path.write_text(new)
    return 1 if given.check and changed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
