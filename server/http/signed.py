"""Signed addresses of pictures, from both sides: made for answers, and let in where they are asked for.

An address with a signature is judged by that alone, whether callers need a key or not: a key beside it is not looked
at. So a page that sends its key with everything loses nothing by it, and an address means the same to everybody.
"""

from __future__ import annotations

import time
from typing import Literal, cast
from urllib.parse import quote

from litestar.types import Scope

from server.access.scopes import Principal
from server.access.signed_urls import PARAMETERS, Picture, Signer, expiry
from server.errors import SignatureInvalid
from server.http.prefix import prefix_of
from server.http.request import Call, Request
from server.http.rules import RULES, Rule
from server.http.wire import Addresses
from server.lifespan import Services

_LEFT = "signed_for_seconds"


class Addressing:
    """Gives the signed addresses of one client's pictures for one answer."""

    def __init__(self, signer: Signer, client_id: str, *, prefix: str, expires: int, files: bool) -> None:
        """`expires`: seconds since 1970; `files`: whether the caller may have the pictures as they came."""
        self._media = f"{prefix}/v1/media/"
        self._files = files
        self._signatures = signer.signatures(client_id, expires)
        self._query = self._signatures.query

    def of(self, media_id: str) -> Addresses:
        # Nearly all ids are plain, and asking that is quicker than quoting.
        media = self._media + (media_id if media_id.isascii() and media_id.isalnum() else quote(media_id, safe=""))
        thumbnail, file = self._signatures.of(media_id)
        return Addresses(
            f"{media}/thumbnail?{self._query}{thumbnail}", f"{media}/file?{self._query}{file}" if self._files else None
        )


def addressing(request: Request, services: Services, call: Call) -> Addressing:
    """What gives the addresses in the answer to this call. Raises KeysUnknown."""
    needed = RULES["GET", "/v1/media/{media_id}/file"].scopes
    return Addressing(
        Signer(services.keyring.url_secret),
        call.client_id,
        prefix=prefix_of(request),
        expires=expiry(time.time(), services.settings.url_lifetime),
        files=bool(call.principal.scopes & set(needed)),
    )


def signed_for(scope: Scope, rule: Rule, secret: bytes) -> Principal | None:
    """Who calls with the signed address of a picture; None where the address has no signature.

    Raises SignatureInvalid, also where one of its parameters is missing or comes twice.
    """
    query = Request(scope).query_params
    if "signature" not in query:
        return None
    given = [query.getall(name, []) for name in PARAMETERS]
    if any(len(values) != 1 for values in given):
        raise SignatureInvalid("A signed address has each of expires, clientId and signature, and each once.")
    expires, client_id, signature = (str(values[0]) for values in given)
    left = Signer(secret).verify(
        _picture_of(scope),
        client_id,
        str(scope["path_params"]["media_id"]),
        expires=expires,
        signature=signature,
        now=time.time(),
    )
    scope["state"][_LEFT] = left
    return Principal(frozenset(rule.scopes[:1]), client_id)


def signed_seconds(request: Request) -> float | None:
    """For how many seconds the signed address of a request is still good; None where it was not signed."""
    left: float | None = request.scope["state"].get(_LEFT)
    return left


def _picture_of(scope: Scope) -> Picture:
    """Which picture the address is for: the last word of its path."""
    return cast(Literal["thumbnail", "file"], scope["path_template"].rpartition("/")[2])
