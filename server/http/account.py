"""What one request takes of the allowances of its caller, and what its answer says of them.

The header fields are those of draft-ietf-httpapi-ratelimit-headers (11): `RateLimit-Policy` says what may be asked for,
`RateLimit` what is left. Of several limits of one kind, they name the one of which the least is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from litestar.types import Scope

from server.access.limits import Left, Wanted
from server.access.terms import CLIENT, KEY, SEARCH_KEY, Terms
from server.errors import RateLimited
from server.limits import Kind, Limits

_ACCOUNT = "account"

_RETRY_INSIDE_SECONDS = 1.0

_WORDS: Mapping[str, str] = {
    "requests": "requests",
    "pictures": "pictures",
    "bytes": "bytes of request bodies",
    "concurrent": "requests at once",
}
# Units of quotas. Without one it is requests.
_UNITS: Mapping[str, str] = {"pictures": "pictures", "bytes": "content-bytes", "concurrent": "concurrent-requests"}


@dataclass(slots=True)
class Account:
    """Of one request."""

    terms: Terms
    left: dict[Kind, Left] = field(default_factory=dict)
    """Of each kind, what the subject with the least has left."""
    least_inside: tuple[int, int] | None = None
    """How many more requests may be answered at once, of how many."""
    awaits_client: bool = False
    """Whether it counts for the client that it names, and has not named it yet."""
    used_up: bool = False
    """Whether no request at all is left, so that all that follow can be refused alike."""
    _whose: list[tuple[str, Limits]] = field(default_factory=list)
    _inside: list[str] = field(default_factory=list)
    _bytes: int = 0
    _pictures: int = 0

    async def enter(self, subjects: Iterable[tuple[str, Limits]], *, form: bool) -> None:
        """Count a request for these subjects; `form`: it may bring pictures. Raises RateLimited."""
        whose = self._enter(subjects)
        # Of bytes and pictures, which come later, one must be left.
        if wanted := _wanted(whose, {"requests": 1, "bytes": 0, **({"pictures": 0} if form else {})}):
            self._note(await self.terms.limiter.take(wanted))

    def enter_client(self, client_id: str) -> None:
        """Count the request, and what came with it, for the client that it names in its body. Raises RateLimited."""
        self.awaits_client = False
        whose = self._enter(self.terms.of_client(client_id))
        self._owe(whose, self._bytes)
        counts: dict[Kind, int] = {"requests": 1, **({"pictures": self._pictures} if self._pictures else {})}
        if wanted := _wanted(whose, counts):
            self._note(self.terms.limiter.take_now(wanted))

    async def take_pictures(self, count: int) -> None:
        """Count the pictures of a form. Raises RateLimited."""
        self._pictures += count
        if wanted := _wanted(self._whose, {"pictures": count}):
            self._note(await self.terms.limiter.take(wanted))

    def owe_requests(self, count: int) -> None:
        """Count so many requests besides, for one that asks for the work of several: the next ones pay for them."""
        owed = _wanted(self._whose, {"requests": count})
        if owed and count:
            self.terms.limiter.owe(owed)
            if (known := self.left.get("requests")) is not None:
                self.left["requests"] = replace(known, left=known.left - count)

    def receive(self, size: int) -> None:
        """Count bytes of the body."""
        self._bytes += size
        self._owe(self._whose, size)

    def leave(self) -> None:
        """The request is answered, or nobody waits for the answer any more."""
        self.terms.limiter.inside.leave(self._inside)
        self._inside.clear()

    def _enter(self, subjects: Iterable[tuple[str, Limits]]) -> list[tuple[str, Limits]]:
        """The subjects as a list, once the request counts as one that is being answered."""
        whose, inside = list(subjects), self.terms.limiter.inside
        counted = [(subject, limits.concurrent) for subject, limits in whose if limits.concurrent is not None]
        for subject, most in counted:
            free = most - inside[subject] - 1
            if self.least_inside is None or free < self.least_inside[0]:
                self.least_inside = max(0, free), most
            if free < 0:
                raise _refusal(subject, "concurrent", _RETRY_INSIDE_SECONDS)
        entered = [subject for subject, _ in counted]
        inside.enter(entered)
        self._inside += entered
        self._whose += whose
        return whose

    def _owe(self, whose: Iterable[tuple[str, Limits]], size: int) -> None:
        owed = [Wanted(subject, "bytes", limits.bytes, size) for subject, limits in whose if limits.bytes is not None]
        if owed and size:
            self.terms.limiter.owe(owed)

    def _note(self, answers: Sequence[Left]) -> None:
        for one in answers:
            known = self.left.get(one.wanted.kind)
            if known is None or one.left <= known.left or known.wanted.subject == one.wanted.subject:
                self.left[one.wanted.kind] = one
        longest = max(answers, key=lambda one: one.wait)
        if longest.wait:
            self.left[longest.wanted.kind] = longest
            self.used_up = longest.wanted.kind == "requests" and not self.awaits_client
            raise _refusal(longest.wanted.subject, longest.wanted.kind, longest.wait)

    def headers(self) -> Mapping[str, str]:
        """What the answer says of the limits; nothing where there are none."""
        policies, left = [], []
        for kind, one in self.left.items():
            allowance, whole = one.wanted.allowance, max(0, math.floor(one.left + 1e-6))
            # Until it is full again; where nothing is left, until something is, as `Retry-After` has it.
            until = max(0.0, (allowance.burst if whole else 1.0) - one.left) / allowance.rate
            policies.append(_item(kind, q=math.floor(allowance.burst), w=math.ceil(allowance.window)) + _unit(kind))
            left.append(_item(kind, r=whole, t=math.ceil(until)))
        if self.least_inside is not None:
            free, most = self.least_inside
            policies.append(_item("concurrent", q=most) + _unit("concurrent"))
            left.append(_item("concurrent", r=free))
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)} if policies else {}


def _wanted(whose: Iterable[tuple[str, Limits]], counts: Mapping[Kind, int]) -> list[Wanted]:
    return [
        Wanted(subject, kind, allowance, count)
        for subject, limits in whose
        for kind, count in counts.items()
        if (allowance := getattr(limits, kind)) is not None
    ]


def _refusal(subject: str, kind: str, wait: float) -> RateLimited:
    whose = next(word for word in (KEY, SEARCH_KEY, CLIENT) if subject.startswith(f"{word} "))
    return RateLimited(f"This {whose} has used up its limit of {_WORDS[kind]} for now.", retry_after=wait)


def _item(name: str, **numbers: int) -> str:
    return "".join([f'"{name}"', *(f";{one}={number}" for one, number in numbers.items())])


def _unit(kind: str) -> str:
    return f';qu="{_UNITS[kind]}"' if kind in _UNITS else ""


def open_account(scope: Scope, terms: Terms) -> Account:
    """An account for a request that has just come."""
    account = scope["state"][_ACCOUNT] = Account(terms)
    return account


def account_of(scope: Scope) -> Account | None:
    """The account of a request; None where nothing is counted."""
    account: Account | None = scope.get("state", {}).get(_ACCOUNT)
    return account
