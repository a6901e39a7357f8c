"""How numbers of things read in sentences, and what a decoder says of a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`, `1,000 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plainly(message: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.limit`" as "limit: expected int >= 1."."""
    said, _, place = message.replace("`", "").partition(" - at $.")
    return f"{place}: {said[:1].lower()}{said[1:]}." if place else f"{said}."


_SOME_MEMBER = "[...]"
"""What msgspec writes for a member of a mapping, whose name it leaves out."""

_LONGEST_NAME = 100


def explained(exc: msgspec.ValidationError, text: bytes | bytearray | msgspec.Raw | str, kind: Any) -> str:
    """What is wrong with a JSON document that is no `kind`, with the name of the member that is wrong.

    msgspec says `$.attributes[...]` of any attribute. Which one it is, is found by decoding again with half of them,
    and half of those that are left.
    """
    message = str(exc)
    before, found, after = message.partition(_SOME_MEMBER)
    place = before.rpartition(" - at `$")[2]
    if not found or "[" in place:
        return plainly(message)
    path = [step for step in place.split(".") if step]
    try:
        document = msgspec.json.decode(text)
        members: Any = document
        for step in path:
            members = members[step]
        names = list(members)
        while len(names) > 1:
            half = names[: len(names) // 2]
            smaller = _with(document, path, {name: members[name] for name in half})
            names = half if _still(message, smaller, kind) else names[len(names) // 2 :]
    except (msgspec.DecodeError, LookupError, TypeError, RecursionError):
        return plainly(message)
    name = names[0] if len(names[0]) <= _LONGEST_NAME else f"{names[0][:_LONGEST_NAME]}..."
    said = plainly(f"{before.rpartition(' - at')[0]}")
    return f"{'.'.join([*path, name])}{after.rstrip('`')}: {said[:1].lower()}{said[1:]}"


def _with(document: Any, path: list[str], members: Mapping[str, Any]) -> Any:
    """The document, with these members in place of those at the path."""
    return {**document, path[0]: _with(document[path[0]], path[1:], members)} if path else members


def _still(message: str, document: Any, kind: Any) -> bool:
    """Whether the document is wrong in a member of the same mapping."""
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as exc:
        return (
            _SOME_MEMBER in str(exc)
            and str(exc).partition(_SOME_MEMBER)[0].rpartition(" - at ")[2]
            == (message.partition(_SOME_MEMBER)[0].rpartition(" - at ")[2])
        )
    return False
