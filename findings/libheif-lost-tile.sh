#!/usr/bin/env bash
# libheif: a tile that cannot be decoded is left out of its picture, without an error; a picture that is no grid raises.
#
# Versions: pillow-heif 1.8.1 (libheif 1.23.6), Pillow 13.0.0.
#
# A good guess: a HEIC whose data are damaged raises when it is decoded, as a damaged PNG does; at worst, what cannot be
# decoded is grey.
#
# What happens: a phone's HEIC is a grid of tiles of 512 x 512, each coded by itself. libheif decodes leniently unless it
# is told otherwise, and leaves out the tiles that fail. Their samples stay zero, which in YCbCr is a strong green. The
# caller is told nothing: libheif keeps a list of warnings, which pillow-heif does not show. The same damage to a picture
# that is coded in one piece raises.
#
# Why it matters: whoever makes vectors, thumbnails or copies of uploads gets a wrong picture and a success. Decode the
# tiles one by one, each as a picture of its own, and put them together yourself; a broken one raises then.
#
# Seen:
#   pillow-heif 1.8.1 libheif 1.23.6
#   in one piece, damaged: ValueError
#   in 4 tiles, one damaged: no error; the middle of each is (200, 30, 39), (200, 30, 39), (200, 30, 39), (0, 136, 0)
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow-heif==1.8.1 pillow==13.0.0

"$folder/venv/bin/python" - <<'PYTHON'
import io

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
print("pillow-heif", pillow_heif.__version__, "libheif", pillow_heif.libheif_version())


def damaged(tile_size: int) -> bytes:
    """Red, with the bytes of the tile that was written last all zero."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (200, 30, 40)).save(file, "HEIF", quality=90, tile_size=tile_size)
    data = file.getvalue()
    # All tiles are alike, so the last is where the first one's coded bytes come for the last time.
    start = data.index(b"mdat") + 4
    first = data[start : start + 4 + int.from_bytes(data[start : start + 4])]
    last = data.rindex(first)
    return data[: last + 4] + bytes(len(first) - 4) + data[last + len(first) :]


def middles(data: bytes) -> list[tuple[int, ...]]:
    picture = Image.open(io.BytesIO(data))
    return [picture.getpixel((x, y)) for y in (64, 192) for x in (64, 192)]


try:
    middles(damaged(0))
    raised = "no error"
except Exception as error:
    raised = type(error).__name__
print("in one piece, damaged:", raised)
found = middles(damaged(128))
print("in 4 tiles, one damaged: no error; the middle of each is", ", ".join(map(str, found)))

if raised == "no error" or len(set(found)) != 2 or found.count(found[0]) != 3:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
