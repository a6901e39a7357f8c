"""How numbers of things read in sentences."""

from __future__ import annotations

import pytest

from server.wording import counted


@pytest.mark.parametrize(("count", "text"), [(0, "0 groups"), (1, "1 group"), (2, "2 groups"), (1234, "1,234 groups")])
def test_only_one_thing_is_singular(count: int, text: str) -> None:
    assert counted(count, "group") == text
