"""How numbers of things read in sentences, and what is said of a document that is none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.wording import counted, explained


@pytest.mark.parametrize(("count", "text"), [(0, "0 groups"), (1, "1 group"), (2, "2 groups"), (1234, "1,234 groups")])
def test_only_one_thing_is_singular(count: int, text: str) -> None:
    assert counted(count, "group") == text


class _Within(msgspec.Struct):
    sizes: dict[str, int | list[int]]
    name: str = ""


class _Document(msgspec.Struct):
    within: _Within


@pytest.mark.parametrize(
    ("within", "sentence"),
    [
        ({"sizes": {"a": 1, "b": "2", "c": 3}}, "within.sizes.b: expected int | array, got str."),
        ({"sizes": {"b": [1, "2"]}}, "within.sizes.b[1]: expected int, got str."),
        ({"sizes": {f"s{at}": 1 for at in range(99)} | {"x" * 200: None}}, f"within.sizes.{'x' * 100}...: expected"),
        ({"sizes": {"a.b": None}}, "within.sizes.a.b: expected int | array, got null."),
        ({"sizes": []}, "within.sizes: expected object, got array."),
        ({"sizes": {"a": 1}, "name": 1}, "within.name: expected str, got int."),
    ],
)
def test_the_member_of_a_mapping_that_is_wrong_is_named(within: Any, sentence: str) -> None:
    text = json.dumps({"within": within}).encode()
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=_Document)
    assert explained(caught.value, text, _Document).startswith(sentence)
