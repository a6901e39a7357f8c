"""What a cosine means in a space: identical, near-duplicate, similar or weak, by thresholds that the export measured.

The same cosine means different things in different models: two pictures of different things may have 0.2 in one model,
and 0.8 in another. So the thresholds belong to the space, and stand in the artifact's manifest (see
export/proof/grading.py).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from server.errors import BadParameter

Grade = Literal["identical", "near-duplicate", "similar", "weak"]

GRADES: Final[tuple[Grade, ...]] = get_args(Grade)
"""The best first."""


SAME_PICTURE: Final[tuple[Grade, ...]] = ("identical", "near-duplicate")
"""The grades that say that two pictures are one, as it is or altered. A blank picture never has them."""


class _Record(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A part of the manifest, as those of artifact.py are."""


class Grades(_Record, frozen=True):
    """The least cosine of each grade; a match with less than `similar` is weak."""

    identical: float
    """The same picture: the same pixels, losslessly saved again, or decoded by another decoder."""
    near_duplicate: float
    """The same picture, altered: compressed, resized, cropped, framed, brighter, turned a little."""
    similar: float
    """More alike than two pictures are by chance."""

    def __post_init__(self) -> None:
        # This also refuses NaN, since every comparison with it is false.
        if not 1 >= self.identical >= self.near_duplicate >= self.similar >= -1:
            raise ValueError("the grades must be cosines, each at least as high as the next")

    def of(self, cosine: float, *, blank: bool = False) -> Grade:
        """The grade of a match, by its cosine as the answer shows it.

        `blank`: one of the two pictures shows nothing but one colour. Models tell such pictures apart badly, so that
        their cosine proves nothing: the match is at best similar.
        """
        named: Grade = next((grade for grade in GRADES if cosine >= self.least(grade)), "weak")
        return "similar" if blank and named in SAME_PICTURE else named

    def least(self, grade: Grade) -> float:
        """The lowest cosine that has this grade, or a better one; -1 for weak."""
        return {
            "identical": self.identical,
            "near-duplicate": self.near_duplicate,
            "similar": self.similar,
            "weak": -1.0,
        }[grade]


class TextGrades(_Record, frozen=True):
    """The least cosine at which words and a picture are similar; with less they are weak.

    They are never identical, nor near-duplicate: words are no picture.
    """

    similar: float
    """More alike than words and a picture of something else are by chance."""

    def __post_init__(self) -> None:
        if not 1 >= self.similar >= -1:
            raise ValueError("the grade must be a cosine")

    def of(self, cosine: float, *, blank: bool = False) -> Grade:
        """The grade of a match, by its cosine as the answer shows it; `blank` changes nothing, as with pictures it does
        not where they are at best similar."""
        return "similar" if cosine >= self.similar else "weak"

    def least(self, grade: Grade) -> float:
        """The lowest cosine that has this grade; -1 for weak. Raises BadParameter for one that words never have."""
        if grade in SAME_PICTURE:
            raise BadParameter(f"minGrade: {grade} is a grade of pictures; words have similar and weak.")
        return self.similar if grade == "similar" else -1.0


class Share(_Record, frozen=True):
    """Some pairs of pictures: their number, and the share of them, 0 to 1, that reaches each grade."""

    pairs: int
    identical: float
    near_duplicate: float
    similar: float


class Grading(_Record, frozen=True):
    """The pairs by which the thresholds were chosen, and the shares that reach the thresholds as chosen."""

    same: Share
    """A picture and itself, saved again without loss or decoded a little differently."""
    altered: Share
    """A picture and an altered one of it."""
    others: Share
    """Two different pictures."""


class TextShare(_Record, frozen=True):
    """Some pairs of words and a picture: their number, and the share of them, 0 to 1, that is similar."""

    pairs: int
    similar: float


class TextGrading(_Record, frozen=True):
    """The pairs by which the threshold of words was chosen, and the shares that reach it as chosen."""

    own: TextShare
    """A picture and a caption of it."""
    others: TextShare
    """A picture and a caption of others alone."""


def grade_named(name: str) -> Grade:
    """The grade with this name. Raises BadParameter when there is none."""
    for grade in GRADES:
        if grade == name:
            return grade
    raise BadParameter(f"minGrade: there is no grade {name[:40]!r}; there are {', '.join(GRADES)}.")
