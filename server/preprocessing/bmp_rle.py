"""The run-length encodings of BMP: of 4 and 8 bits a pixel, and OS/2's of 24."""

from __future__ import annotations

from server.errors import UnreadablePicture, UnsupportedPicture

_END_OF_ROW, _END, _SKIP = 0, 1, 2

# Each takes about a microsecond, whatever it fills. A drawing of a million pixels has some 100,000.
_MOST_RUNS = 1_000_000
# A hexadecimal digit to its number.
_HALVES = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


def unrolled(data: bytes, size: tuple[int, int], bits: int) -> bytearray:
    """The pixels, 1 byte each (of 24 bits: 3), in the order of the file and without filling.

    What the file skips, at the end of a row or anywhere, is 0. `data` begins with the first run; what follows the last
    one does not matter. Raises UnreadablePicture where the file ends before the picture.
    """
    width, height = size
    each = 3 if bits == 24 else 1
    pixels = bytearray(width * height * each)
    x = y = at = 0
    for _ in range(_MOST_RUNS):
        if y >= height:
            return pixels
        if at + 2 > len(data):
            # Only the mark of the end is missing where the last row is full, or ended.
            if y == height - 1 and x >= width:
                return pixels
            raise UnreadablePicture()
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            if bits == 24:
                run = data[at - 1 : at + 2] * count
                at += 2
                if at > len(data):
                    raise UnreadablePicture()
            elif bits == 4:
                run = (bytes((value >> 4, value & 15)) * ((count + 1) // 2))[:count]
            else:
                run = bytes((value,)) * count
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
            continue
        elif value == _END:
            return pixels
        elif value == _SKIP:
            if at + 2 > len(data):
                raise UnreadablePicture()
            x, y = x + data[at], y + data[at + 1]
            at += 2
            continue
        else:
            count = value
            length = (count + 1) // 2 if bits == 4 else count * each
            run = data[at : at + length]
            if len(run) < length:
                raise UnreadablePicture()
            if bits == 4:
                run = run.hex().encode().translate(_HALVES)[:count]
            at += length + length % 2
        fits = min(count, width - x)
        if fits > 0:
            place = (y * width + x) * each
            pixels[place : place + fits * each] = run[: fits * each]
        x += count
    raise UnsupportedPicture(f"This BMP is run-length encoded in more than {_MOST_RUNS:,} runs; save it as PNG.")
