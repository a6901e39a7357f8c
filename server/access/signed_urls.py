"""Addresses of pictures that work without a key for some hours, so that an `<img>` in a shop can show them.

Such an address ends in `?expires=<seconds since 1970>&clientId=<client>&signature=<43 characters>`. The signature is
HMAC-SHA256 with a secret of the database's own, over all that the address gives leave to: which of the two pictures it
is, whose, of which media, and until when. Whoever has the address may look at that one picture until then, and at
nothing else.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from typing import Literal
from urllib.parse import quote

from server.errors import KeysUnknown, SignatureInvalid

Picture = Literal["thumbnail", "file"]

PARAMETERS = ("expires", "clientId", "signature")
"""Of a signed address: each of them, and each once."""

# The database's secret may come to sign other things, too.
_USE = b"twinlens picture addresses 1"
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")


class Signer:
    """Signs the addresses of a client's pictures until one time, and verifies what was signed."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: the database's. Raises KeysUnknown where it is not known yet: everybody could sign with none."""
        if not secret:
            raise KeysUnknown
        self._secret = hmac.digest(secret, _USE, "sha256")

    def query(self, picture: Picture, client_id: str, media_id: str, expires: int) -> str:
        """What stands behind the `?` of a signed address. `expires`: seconds since 1970."""
        signature = self._sign(picture, client_id, media_id, str(expires))
        return f"expires={expires}&clientId={quote(client_id, safe='')}&signature={signature}"

    def verify(
        self, picture: Picture, client_id: str, media_id: str, *, expires: str, signature: str, now: float
    ) -> float:
        """The seconds for which a signed address is still good. Raises SignatureInvalid; compares in constant time."""
        if not _EXPIRES.fullmatch(expires):
            raise SignatureInvalid
        right = self._sign(picture, client_id, media_id, expires)
        if not hmac.compare_digest(right.encode(), signature.encode(errors="surrogatepass")):
            raise SignatureInvalid
        left = int(expires) - now
        if left <= 0:
            raise SignatureInvalid("This address of a picture has expired: ask for the picture's media again.")
        return left

    def _sign(self, picture: Picture, client_id: str, media_id: str, expires: str) -> str:
        # The length says where the client ends, so that no two things that can be signed are the same text.
        signed = f"{picture} {expires} {len(client_id)} {client_id}{media_id}"
        digest = hmac.digest(self._secret, signed.encode(errors="surrogatepass"), "sha256")
        return urlsafe_b64encode(digest)[:-1].decode()  # without the padding


def expiry(now: float, lifetime: float) -> int:
    """When an address that is made now expires, in seconds since 1970: after `lifetime` seconds, or up to half as many
    more. All that are made within half a lifetime expire together, so that a picture keeps its address for a while, and
    browsers find it in their caches."""
    step = max(1, int(lifetime / 2))
    return (int(now) // step + 1) * step + int(lifetime)
