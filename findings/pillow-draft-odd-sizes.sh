#!/usr/bin/env bash
# Pillow: a JPEG opened with `draft` is a little larger than its picture, unless its sides divide evenly.
#
# Versions: Pillow 13.0.0 (its wheel, with libjpeg-turbo), numpy 2.4.6.
#
# A good guess: `draft` decodes at 1/2, 1/4 or 1/8. A picture of 233 x 233 becomes 29 x 29 at 1/8, whole, and is then
# resized like any other image.
#
# What happens: sizes are rounded up, to 30 x 30. The picture fills 29.125 columns and rows; most of the last ones is
# what the encoder put behind the picture's edge to fill its last blocks. So the aspect is no longer exact (1001 x 667
# at 1/2 is 501 x 334), and a plain `resize` squeezes the picture and moves it towards the left and the top, most at
# the far edge. `draft` returns the true extent, a box with fractions, which few callers look at: `resize(...,
# box=box)` takes just the picture.
#
# Why it matters: with the box, the pixels of scaled decoding agree closely with those of full decoding. Without it,
# the same picture decoded in two ways gives two embeddings that differ for no good reason. Compute the new shape from
# the picture's own width and height, too, read before `draft`.
#
# Seen:
#   Pillow 13.0.0 libjpeg-turbo 3.2.0
#   (1001, 667) at 1/2: size (501, 334), and draft says that the picture is (0, 0, 500.5, 333.5)
#   (233, 233) at 1/8: size (30, 30), and draft says that the picture is (0, 0, 29.125, 29.125)
#   plain resize        less full decoding, of 255, left to right: 0 1 2 3 3 2 3 3 4 4 5 6 6 6 8 6
#   resize with the box less full decoding, of 255, left to right: 0 0 0 1 1 0 0 -1 0 0 0 0 0 0 0 1
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image, features

print("Pillow", PIL.__version__, "libjpeg-turbo", features.version_feature("libjpeg_turbo"))


def opened(width, height):
    """A JPEG that grows brighter from left to right, not decoded yet."""
    ramp = np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))
    file = io.BytesIO()
    Image.fromarray(ramp).convert("RGB").save(file, "JPEG", quality=95)
    return Image.open(file)


sizes = {}
for picture, scale in (((1001, 667), 2), ((233, 233), 8)):
    image = opened(*picture)
    _, box = image.draft("RGB", (picture[0] // scale, picture[1] // scale))
    sizes[picture] = image.size
    print(f"{picture} at 1/{scale}: size {image.size}, and draft says that the picture is {box}")

in_full = opened(233, 233).resize((16, 16), Image.Resampling.BICUBIC)
image = opened(233, 233)
_, box = image.draft("RGB", (29, 29))
plain = image.resize((16, 16), Image.Resampling.BICUBIC)
boxed = image.resize((16, 16), Image.Resampling.BICUBIC, box=box)
away = {}
for name, small in (("plain resize", plain), ("resize with the box", boxed)):
    away[name] = (np.asarray(small, int) - np.asarray(in_full, int))[8, :, 0]
    print(f"{name:19} less full decoding, of 255, left to right: {' '.join(f'{value:d}' for value in away[name])}")

if sizes != {(1001, 667): (501, 334), (233, 233): (30, 30)}:
    raise SystemExit("No longer as stated: other sizes.")
if abs(away["plain resize"]).max() < 4 or abs(away["resize with the box"]).max() > 2:
    raise SystemExit("No longer as stated: other pixels.")
print("As stated.")
PYTHON
