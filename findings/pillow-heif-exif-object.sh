#!/usr/bin/env bash
# pillow-heif: saving with `exif=image.getexif()` loses the picture's turn; with the same EXIF as bytes it is kept.
#
# Versions: pillow-heif 1.8.1, Pillow 13.0.0.
#
# A good guess: `save(..., exif=...)` takes an `Image.Exif` or its bytes, as Pillow's own formats do, and both write
# the same file.
#
# What happens: in HEIF the turn is a property of the image, beside the EXIF. pillow-heif finds out what to write
# there by searching the EXIF's bytes; in an `Image.Exif` it finds nothing and says nothing. The EXIF in the file
# still has the turn, but readers of HEIF go by the property, and pillow-heif itself sets EXIF's orientation to 1 when
# it opens the file (what was there is left in `info["original_orientation"]`). Saved as JPEG, the object and the
# bytes behave alike.
#
# Why it matters: a photograph that is copied to HEIC by the usual line, `exif=image.getexif()`, lies on its side from
# then on, and every reader that goes by the property shows it so. Pass `exif.tobytes()`, or turn the pixels before
# saving (`ImageOps.exif_transpose`). Test fixtures are where this bites first.
#
# Seen:
#   pillow-heif 1.8.1 libheif 1.23.6 Pillow 13.0.0
#   a picture of 64 x 32 with orientation 6, saved as
#   JPEG with EXIF as object: opens as (64, 32), orientation 6 (originally None), shown as (32, 64)
#   JPEG with EXIF as bytes : opens as (64, 32), orientation 6 (originally None), shown as (32, 64)
#   HEIF with EXIF as object: opens as (64, 32), orientation 1 (originally 6), shown as (64, 32)
#   HEIF with EXIF as bytes : opens as (32, 64), orientation 1 (originally 6), shown as (32, 64)
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow-heif==1.8.1 pillow==13.0.0

"$folder/venv/bin/python" - <<'PYTHON'
import io

import PIL
import pillow_heif
from PIL import ExifTags, Image, ImageOps

pillow_heif.register_heif_opener()
print("pillow-heif", pillow_heif.__version__, "libheif", pillow_heif.libheif_version(), "Pillow", PIL.__version__)

exif = Image.Exif()
exif[ExifTags.Base.Orientation] = 6  # to be shown turned by a quarter
picture = Image.new("RGB", (64, 32), "red")
print("a picture of 64 x 32 with orientation 6, saved as")

shown = {}
for file_format in ("JPEG", "HEIF"):
    for name, value in (("object", exif), ("bytes", exif.tobytes())):
        file = io.BytesIO()
        picture.save(file, file_format, exif=value)
        image = Image.open(file)
        shown[file_format, name] = ImageOps.exif_transpose(image).size
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        print(
            f"{file_format} with EXIF as {name:6}: opens as {image.size}, orientation {orientation} (originally "
            f"{image.info.get('original_orientation')}), shown as {shown[file_format, name]}"
        )

turned, lying = (32, 64), (64, 32)
expected = {("JPEG", "object"): turned, ("JPEG", "bytes"): turned, ("HEIF", "object"): lying, ("HEIF", "bytes"): turned}
if shown != expected:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
