"""How numbers of things read in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`, `1,000 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plainly(message: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.limit`" as "limit: expected int >= 1."."""
    said, _, place = message.replace("`", "").partition(" - at $.")
    return f"{place}: {said[:1].lower()}{said[1:]}." if place else f"{said}."
