"""What the tests of the export share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from export.artifacts import publish
from export.proof import parity


@pytest.fixture(scope="module")
def few_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests that export many times over: the gate looks at a sixth of its pictures, the goldens among them."""
    folder = tmp_path_factory.mktemp("pictures")
    everything = sorted(parity.PICTURES.iterdir())
    for path in everything:
        if path.name in (*publish.GOLDENS, "LICENCES.md") or (
            path in everything[::8] and path.stat().st_size < 200_000
        ):
            (folder / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parity, "PICTURES", folder)
        yield
