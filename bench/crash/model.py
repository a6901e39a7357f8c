"""What the catalogue must hold: a model in memory, which holds several states where it cannot know.

A write that is under way, or whose outcome nobody knows, leaves the model with the state before it and the one after
it. A read that is certain to come after everything that may still be carried out then settles which it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bench.crash.operations import PRODUCTS, SLOTS, Operation

UNKNOWN_ID = "?"
"""A picture is there, and its id was never told."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product and its pictures. `media`: the id of the picture in each place, None where there is none."""

    name: str
    active: bool
    category: str
    price: int
    media: tuple[str | None, ...] = (None,) * SLOTS

    def holding(self, slot: int, media_id: str | None) -> Product:
        """The same with another picture in that place, or none."""
        return replace(self, media=(*self.media[:slot], media_id, *self.media[slot + 1 :]))


State = Product | None
"""None: there is no such product."""


def effect(operation: Operation, state: State, media_id: str | None = None) -> tuple[str, State]:
    """What a write is answered where this is the state, and the state after it. `media_id`: what it deletes."""
    slot = operation.slot
    if operation.kind == "put product":
        pictures = state.media if state is not None else (None,) * SLOTS
        put = Product(operation.name, operation.active, operation.category, operation.price, pictures)
        return "200" if state is not None else "201", put
    if operation.kind == "delete product":
        return ("200", None) if state is not None else ("404 product_not_found", None)
    if operation.kind == "switch by SQL":
        return ("1 row", replace(state, active=operation.active)) if state is not None else ("0 rows", None)
    if operation.kind == "add picture":
        if state is None:
            return "404 product_not_found", None
        return ("201", state.holding(slot, UNKNOWN_ID)) if state.media[slot] is None else ("200", state)
    if operation.kind == "delete picture":
        if state is None or media_id is None or media_id not in state.media:
            return "404 media_not_found", state
        return "200", state.holding(state.media.index(media_id), None)
    raise ValueError(f"{operation.kind} writes nothing")


@dataclass(slots=True)
class Entry:
    """What is known of one product."""

    possible: frozenset[State] = frozenset([None])
    unsure_since: float | None = None
    """When a write was sent of which nobody knows whether it was, or will still be, carried out."""
    pending: tuple[Operation, str | None] | None = None
    """That write, and the id of the picture that it deletes: it may be sent again meanwhile, and nothing else."""
    doubted: bool = False
    """Whether an answer has contradicted the model already: what is there then settles it, and is no second fault."""
    deleted: dict[int, str] = field(default_factory=dict)
    """The last picture that was deleted from each place."""
    gone: int = 0
    """How often it has become certain that there is no such product: what was there before is not what is there now."""

    @property
    def state(self) -> State:
        """The state, where it is certain. Raises ValueError where it is not."""
        (only,) = self.possible
        return only


@dataclass(slots=True, eq=False)
class Window:
    """All states that each product had, or may have had, while something was read."""

    seen: list[set[State]]


class Catalogue:
    """One client's catalogue."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.entries = [Entry() for _ in range(PRODUCTS)]
        self.media: set[str] = set()
        """Every id that a picture of this client ever had."""
        self.late: set[str] = set()
        """Pictures whose vector in the space that is searched may still be under way."""
        self._windows: list[Window] = []

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Record the states of the products while something is read."""
        window = Window([set(entry.possible) for entry in self.entries])
        self._windows.append(window)
        try:
            yield window
        finally:
            self._windows.remove(window)

    def set(self, product: int, possible: Iterable[State]) -> None:
        """The states that a product may have from now on. Raises ValueError where there is none."""
        states = frozenset(possible)
        if not states:
            raise ValueError(f"product {product} of {self.client} is in no possible state")
        self.entries[product].possible = states
        self.entries[product].gone += states == {None}
        for window in self._windows:
            window.seen[product] |= states
        for state in states:
            self.media |= {one for one in (state.media if state else ()) if one not in (None, UNKNOWN_ID)}

    def begin(self, operation: Operation, media_id: str | None) -> frozenset[State]:
        """A write begins: from now on the product is as before it or as after it. Gives the states before it."""
        before = self.entries[operation.product].possible
        self.set(operation.product, before | {effect(operation, state, media_id)[1] for state in before})
        return before

    def end(
        self, operation: Operation, before: frozenset[State], label: str, *, deletes: str | None, told: str | None
    ) -> bool:
        """A write was answered; whether the model allows that answer. `told`: the picture's id in the answer."""
        after: set[State] = set()
        for state in before:
            expected, then = effect(operation, state, deletes)
            if expected != label:
                continue
            if told is not None and then is not None and operation.kind == "add picture":
                if then.media[operation.slot] not in (UNKNOWN_ID, told):
                    continue
                then = then.holding(operation.slot, told)
            after.add(then)
        if not after:
            return False
        self.set(operation.product, after)
        if operation.kind == "delete picture" and deletes is not None:
            self.entries[operation.product].deleted[operation.slot] = deletes
        return True


def passing(states: Iterable[State], product: int, operation: Operation) -> list[Product]:
    """Those of the states in which a search of this kind shows the product's pictures."""
    return [
        state
        for state in states
        if state is not None and state.active and operation.filter.passes(product, state.category, state.price)
    ]
