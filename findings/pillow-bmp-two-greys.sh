#!/usr/bin/env bash
# Pillow: a BMP of 8 or 4 bits a pixel whose palette is black and white is read as if it had 1 bit, without an error.
#
# Versions: Pillow 13.0.0.
#
# A good guess: a BMP says how many bits a pixel has, and a palette of two colours is a palette like any other.
#
# What happens: where the colours of the palette are greys in order, Pillow leaves the palette out and takes the numbers
# for samples, of as many bits as the palette has colours: 2 colours make mode "1", whatever the header says. Eight
# pixels are then taken from each byte, and most of the picture is black. A palette of 16 greys in 4 bits raises instead.
#
# Why it matters: programs that reduce a scan or a label to the colours that it has write such files. Nothing tells that
# the picture is another one. A palette with any colour in it, or with its two colours the other way round, is read
# rightly, so tests with made pictures pass. Handing the rows to Pillow's raw decoder (`Image.frombytes`) with the
# header's own number of bits, and the palette to `putpalette`, reads them all.
#
# Seen:
#   Pillow 13.0.0
#   8 bits, palette black, white: mode 1, 255 for 1 of 8 pixels that are white
#   4 bits, palette black, white: mode 1, 255 for 2 of 8 pixels that are white
#   8 bits, palette black, red: mode P, 255 for 8 of 8 pixels that are red
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0

"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import PIL
from PIL import Image

print("Pillow", PIL.__version__)


def lit(bits, second):
    """One row of 8 pixels that all have number 1; how Pillow reads it."""
    row = bytes([1] * 8) if bits == 8 else bytes([0x11] * 4)
    palette = bytes(4) + bytes([*second, 0])
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(row), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 1, 1, bits, 0, len(row), 0, 0, 2, 0)
    image = Image.open(io.BytesIO(head + info + palette + row))
    reds = list(image.convert("RGB").getchannel("R").tobytes())
    return image.mode, reds.count(255)


white, red = (255, 255, 255), (0, 0, 255)  # blue, green, red
seen = []
for bits, name, colour in ((8, "white", white), (4, "white", white), (8, "red", red)):
    mode, count = lit(bits, colour)
    seen.append((mode, count))
    print(f"{bits} bits, palette black, {name}: mode {mode}, 255 for {count} of 8 pixels that are {name}")
as_stated = seen[0][0] == seen[1][0] == "1" and seen[0][1] < 8 and seen[1][1] < 8 and seen[2] == ("P", 8)
print("As stated." if as_stated else "NOT as stated.")
raise SystemExit(not as_stated)
PYTHON
