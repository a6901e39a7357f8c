"""What search keys may do: a part of the searches of their client, from some pages; and what operators alone ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from litestar.types import Scope

from server.access.scopes import Narrowing, Principal
from server.catalogue.cards import Shown
from server.catalogue.catalogue import Catalogue
from server.catalogue.facets import Asked
from server.catalogue.filters import Filter
from server.catalogue.rows import Query
from server.errors import BadParameter, KeyInvalid, MediaNotFound, OriginRefused, ScopeMissing, SearchesOnly
from server.http.rules import Rule


def admit_search_key(narrowing: Narrowing, rule: Rule, scope: Scope) -> None:
    """Raises SearchesOnly, OriginRefused, and KeyInvalid for a filter or fields that make no sense."""
    if not rule.derived:
        raise SearchesOnly
    if narrowing.origins is not None:
        # A request without the header is refused as well: browsers send it with all that a page of another origin asks.
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if len(sent) != 1 or sent[0] not in narrowing.origins:
            raise OriginRefused("The search key may not be used by the page that this request comes from.")
    if narrowing.filter is not None and _filter_of(narrowing).without_conditions:
        raise KeyInvalid("The search key's filter has no conditions, and so would restrict nothing.")
    _shown_by(narrowing)


def admit_filter(asked: Filter, principal: Principal) -> Filter:
    """The filter of a request. Raises ScopeMissing where it asks for what is not active, and the caller is no operator.

    Where no key is needed, everybody is one.
    """
    if asked.is_active is not None and "admin" not in principal.scopes:
        raise ScopeMissing("admin")
    return asked


def admit_fields(fields: Sequence[str], principal: Principal) -> Shown:
    """What the matches of a request show of their products.

    Whoever may read products may have it in matches, too; a search key shows what it was derived to show, since who
    holds it is a stranger, and attributes may hold what customers are not to see. Raises BadParameter, ScopeMissing,
    FieldHidden.
    """
    return _admit(Shown.read(fields), principal)


def admit_facets(asked: Asked | None, principal: Principal) -> Asked | None:
    """What a request has counted. The values of an attribute are for those whom matches may show it.

    Raises ScopeMissing, FieldHidden.
    """
    if asked is not None:
        _admit(Shown(attributes=tuple(facet.attribute for facet in asked.facets)), principal)
    return asked


def _admit(shown: Shown, principal: Principal) -> Shown:
    if shown.nothing:
        return shown
    if principal.narrowing is not None:
        return shown.within(_shown_by(principal.narrowing))
    if "read" not in principal.scopes:
        raise ScopeMissing("read")
    return shown


def narrowed(query: Query, principal: Principal) -> Query:
    """The query within what the caller's key allows: its filter besides, and no more matches than its limit."""
    narrowing = principal.narrowing
    if narrowing is None:
        return query
    return replace(query, within=_filter_of(narrowing), limit=min(query.limit, narrowing.limit or query.limit))


async def require_found(catalogue: Catalogue, client_id: str, media_id: str, principal: Principal) -> None:
    """Nothing where the caller's key is no search key; with one, only media may be named that a search could find.

    Raises MediaNotFound.
    """
    narrowing = principal.narrowing
    if narrowing is not None and not await catalogue.could_find(client_id, media_id, _filter_of(narrowing)):
        raise MediaNotFound


def _shown_by(narrowing: Narrowing) -> Shown:
    try:
        return Shown.read(narrowing.fields)
    except BadParameter as exc:
        raise KeyInvalid(f"The search key's fields make no sense. {exc.sentence}") from exc


def _filter_of(narrowing: Narrowing) -> Filter:
    try:
        found = Filter.of(narrowing.filter)
    except BadParameter as exc:
        raise KeyInvalid(f"The search key's filter makes no sense. {exc.sentence}") from exc
    if found.is_active is not None:
        raise KeyInvalid("The search key's filter names isActive: a search key never shows what is not active.")
    return found
