"""What a cosine means in a space: identical, near-duplicate, similar or weak, by thresholds that the export measured.

The same cosine says different things of different models: of one, two pictures of different things have 0.2, of another
0.8. So the thresholds belong to the space, and the artifact's manifest brings them (see export/proof/grading.py).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from server.errors import BadParameter

Grade = Literal["identical", "near-duplicate", "similar", "weak"]

GRADES: Final[tuple[Grade, ...]] = get_args(Grade)
"""The best first."""


class _Record(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A part of the manifest, as those of artifact.py are."""


class Grades(_Record, frozen=True):
    """The least cosine of each grade; what has less than `similar` is weak."""

    identical: float
    """The same picture: the same pixels, losslessly saved again, or decoded by another decoder."""
    near_duplicate: float
    """The same picture, altered: compressed, resized, cropped, framed, brighter, turned a little."""
    similar: float
    """More alike than two pictures are by chance."""

    def __post_init__(self) -> None:
        # Also refuses what is not a number, of which every comparison is false.
        if not 1 >= self.identical >= self.near_duplicate >= self.similar >= -1:
            raise ValueError("the grades must be cosines, each at least as high as the next")

    def of(self, cosine: float) -> Grade:
        """The grade of a match, by its cosine as the answer shows it."""
        return next((grade for grade in GRADES if cosine >= self.least(grade)), "weak")

    def least(self, grade: Grade) -> float:
        """The lowest cosine that has this grade, or a better one; -1 for weak."""
        return {
            "identical": self.identical,
            "near-duplicate": self.near_duplicate,
            "similar": self.similar,
            "weak": -1.0,
        }[grade]


class Share(_Record, frozen=True):
    """Of some pairs of pictures: how many they are, and what part of them, 0 to 1, reaches each grade."""

    pairs: int
    identical: float
    near_duplicate: float
    similar: float


class Grading(_Record, frozen=True):
    """What the thresholds were chosen by, measured with the thresholds as they are."""

    same: Share
    """A picture and itself, saved again without loss or decoded a little differently."""
    altered: Share
    """A picture and an altered one of it."""
    others: Share
    """Two different pictures."""


def grade_named(name: str) -> Grade:
    """Raises BadParameter for a name that is no grade's."""
    for grade in GRADES:
        if grade == name:
            return grade
    raise BadParameter(f"minGrade: there is no grade {name[:40]!r}; there are {', '.join(GRADES)}.")
