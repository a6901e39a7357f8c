"""What a run of a feed must leave of a product, given what was there and what earlier runs have brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product as combinations

from bench.crash.model import UNKNOWN_ID, Entry, Product, State
from bench.crash.operations import SLOTS, FeedRow, named


@dataclass(frozen=True, slots=True)
class Brought:
    """What a feed has brought of a product so far: what it made it may take out again, and nothing else.

    `gone` and `ids`: how often the product was gone by then, and the picture of each place, by which is seen what
    somebody has deleted since. `pictures`: by the how-manyth picture of the product in the feed, its place among ours,
    and whether the feed made it.
    """

    made: bool
    gone: int = 0
    ids: tuple[str | None, ...] = (None,) * SLOTS
    pictures: Mapping[int, tuple[int, bool]] = field(default_factory=dict)

    def as_of(self, entry: Entry, state: State) -> Brought | None:
        """The same without what was deleted since."""
        if state is None or entry.gone != self.gone:
            return None
        left = {at: one for at, one in self.pictures.items() if state.media[one[0]] == self.ids[one[0]]}
        return replace(self, pictures=left)


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as far as one product goes: the state `before` it, the one `within` it, with all rows in or all pictures
    gone, and the one `after` it; and what the feed has brought of the product then."""

    before: State
    within: State
    after: State
    brought: Brought | None

    @property
    def meanwhile(self) -> set[State]:
        """Every state that the product may have while the run goes on, and after it was killed."""
        both = [state for state in (self.before, self.within) if state is not None]
        ends = [state for state in (self.before, self.within, self.after) if state is not None]
        media = combinations(*({state.media[slot] for state in ends} for slot in range(SLOTS)))
        some: set[State] = {replace(one, media=held) for held in media for one in both}
        return some | {self.before, self.after}


def run(client: str, before: State, brought: Brought | None, row: FeedRow | None, *, prune: bool) -> Run:
    """What becomes of a product that is, or is not, in the feed."""
    if row is not None:
        return _bring(client, before, brought, row, prune=prune)
    if before is None or brought is None or not prune:
        return Run(before, before, before, brought)
    left = _without(before, {slot for slot, made in brought.pictures.values() if made})
    return Run(before, left, None if brought.made and not any(left.media) else left, None)


def _bring(client: str, before: State, brought: Brought | None, row: FeedRow, *, prune: bool) -> Run:
    held = before.media if before is not None else (None,) * SLOTS
    within = Product(
        named(client, row.product, row.number),
        row.active,
        row.category,
        row.price,
        tuple(held[slot] or (UNKNOWN_ID if slot in row.slots else None) for slot in range(SLOTS)),
    )
    earlier = brought.pictures if brought is not None else {}
    made = {slot for slot, made in earlier.values() if made} | {slot for slot in row.slots if held[slot] is None}
    now = {at: (slot, slot in made) for at, slot in enumerate(row.slots)}
    if not prune:  # further pictures that it had once stay
        now = {**earlier, **now}
    gone = made - {slot for slot, _ in now.values()}
    made_product = before is None or (brought is not None and brought.made)
    return Run(before, within, _without(within, gone), Brought(made_product, pictures=now))


def _without(state: Product, slots: set[int]) -> Product:
    for slot in slots:
        state = state.holding(slot, None)
    return state
