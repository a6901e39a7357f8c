"""JPEG XL: how a file begins, bare and in its container. What would follow needs an encoder."""

from __future__ import annotations

import struct

import numpy as np

CONTAINER = bytes.fromhex("0000000c4a584c200d0a870a") + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")


def codestream(width: int, height: int) -> bytes:
    """The signature and the size, in numbers of 30 bits, lowest bit first; then nothing."""
    bits = "0" + "11" + f"{height - 1:030b}"[::-1] + "000" + "11" + f"{width - 1:030b}"[::-1]
    digits = np.array([int(bit) for bit in bits.ljust(-(-len(bits) // 8) * 8, "0")], np.uint8)
    return b"\xff\x0a" + np.packbits(digits, bitorder="little").tobytes() + bytes(100)
