"""What an answer of a search must hold, given all states that the catalogue may have had meanwhile."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.crash.model import UNKNOWN_ID, Catalogue, Product, Window, passing
from bench.crash.operations import Operation, product_of

LOST = "acknowledged writes lost"
FOREIGN = "foreign rows"
INACTIVE = "inactive shown"
REMOVED = "removed shown"
SHORT = "short lists"
NOT_FIRST = "itself not first"
SERVER_ERROR = "5xx other than 503"
WRONG = "other wrong answers"
LATE = "late answers"
TRACEBACK = "tracebacks in the log"
AWAY = "did not answer again"

PROMISES = (LOST, FOREIGN, INACTIVE, REMOVED, SHORT, NOT_FIRST, SERVER_ERROR, WRONG, LATE, TRACEBACK, AWAY)
"""Kinds of fault, each of which must be counted 0 times."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A promise that was not kept."""

    kind: str
    text: str
    at: float = 0.0
    """Seconds since the beginning."""


def check_search(
    operation: Operation,
    results: Sequence[Mapping[str, Any]],
    window: Window,
    catalogue: Catalogue,
    others: Container[str],
    itself: str | None,
) -> Iterator[Fault]:
    """The faults of an answer. `others`: ids of other clients' pictures; `itself`: that of the picture searched with,
    where it is certain that a search must find it."""
    ids = [str(match["mediaId"]) for match in results]
    for match in results:
        yield from _check_match(operation, match, window, catalogue, others)
    if len(set(ids)) != len(ids):
        yield Fault(WRONG, f"a picture twice in one answer: {ids}")
    similar = [float(match["similarity"]) for match in results]
    if similar != sorted(similar, reverse=True):
        yield Fault(WRONG, f"not in the order of similarity: {similar}")
    if len(ids) > operation.limit:
        yield Fault(WRONG, f"{len(ids)} matches where {operation.limit} were asked for")
    certain = certain_matches(operation, window, catalogue)
    if len(ids) < min(operation.limit, len(certain)):
        missing = sorted(certain - set(ids))[:5]
        yield Fault(SHORT, f"{len(ids)} of {min(operation.limit, len(certain))} matches; missing are {missing}")
    elif len(ids) < operation.limit and not certain <= set(ids):
        yield Fault(SHORT, f"a list with room left lacks {sorted(certain - set(ids))[:5]}")
    if itself is not None and itself in certain and (ids[:1] != [itself] or similar[0] != 100.0):
        first = f"{ids[0]} with {similar[0]} %" if ids else "nothing"
        yield Fault(NOT_FIRST, f"{first} came first in place of {itself}")


def certain_matches(operation: Operation, window: Window, catalogue: Catalogue) -> set[str]:
    """The pictures that a search must be able to find, whatever was under way meanwhile."""
    certain: set[str] = set()
    for product, states in enumerate(window.seen):
        shown = passing(states, product, operation)
        if len(shown) == len(states):
            held = [set(state.media) for state in shown]
            certain |= {one for one in set.intersection(*held) if one not in (None, UNKNOWN_ID)}
    return certain - catalogue.late


def _check_match(
    operation: Operation, match: Mapping[str, Any], window: Window, catalogue: Catalogue, others: Container[str]
) -> Iterator[Fault]:
    media_id, client = str(match["mediaId"]), operation.client
    said = f"{media_id} of {match['productId']} ({match['productName']})"
    if (
        not str(match["s3Key"]).startswith(f"media/{client}/")
        or not str(match["productName"]).startswith(f"{client} ")
        or media_id in others
    ):
        yield Fault(FOREIGN, f"{client} was shown {said}")
        return
    product = product_of(str(match["productId"]))
    states = [state for state in (window.seen[product] if product is not None else ()) if state is not None]
    holding = [state for state in states if _may_hold(state, media_id, catalogue)]
    if not holding or product is None:
        yield Fault(REMOVED, f"{client} was shown {said}, which is not in its catalogue")
    elif not any(state.active for state in holding):
        yield Fault(INACTIVE, f"{client} was shown {said}")
    elif not (fitting := passing(holding, product, operation)):
        yield Fault(WRONG, f"{client} was shown {said}, which the filter {operation.filter} leaves out")
    elif match["productName"] not in {state.name for state in fitting}:
        names = sorted({state.name for state in fitting})
        yield Fault(LOST, f"{said} is called otherwise: {names}")


def _may_hold(state: Product, media_id: str, catalogue: Catalogue) -> bool:
    return media_id in state.media or (UNKNOWN_ID in state.media and media_id not in catalogue.media)
