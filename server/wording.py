"""How numbers of things read in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`, `1,000 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
