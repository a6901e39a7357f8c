"""Addresses of pictures that work without a key for some hours, so that an `<img>` in a shop can show them.

Such an address ends in `?expires=<seconds since 1970>&clientId=<client>&signature=<32 digits>`. The signature is of
HMAC-SHA256 with a secret of the database's own, and covers all that the address gives leave to: which of the two
pictures it is, whose, of which media, and until when. Whoever has the address may look at that one picture until then,
and at nothing else.
"""

from __future__ import annotations

import hmac
import re
from typing import Literal
from urllib.parse import quote

from server.errors import KeysUnknown, SignatureInvalid

Picture = Literal["thumbnail", "file"]

PARAMETERS = ("expires", "clientId", "signature")
"""Of a signed address: each of them, and each once."""

# The database's secret may come to sign other things, too.
_USE = b"twinlens picture addresses 1"
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")


class Signatures:
    """Signs the pictures of one client's media, until one time.

    A search signs 24 media or more, and they differ in nothing but their ids. So HMAC-SHA256 is begun once for all of
    them, and each continues a copy; and each half of its 256 bits signs one of the two pictures. Who knows one half
    knows nothing of the other, and 128 bits cannot be guessed.
    """

    def __init__(self, key: bytes, client_id: str, expires: str) -> None:
        """`expires`: seconds since 1970, as they stand in the address."""
        # The length says where the client ends, so that no two things that can be signed are the same text.
        self._begun = hmac.new(key, _bytes(f"{expires} {len(client_id)} {client_id}"), "sha256")
        self.query = f"expires={expires}&clientId={quote(client_id, safe='')}&signature="
        """What stands behind the `?` of a signed address, but for the signature at its end."""

    def of(self, media_id: str) -> tuple[str, str]:
        """The signatures of the thumbnail and of the file: 32 hexadecimal digits each."""
        one = self._begun.copy()
        one.update(_bytes(media_id))
        digits = one.hexdigest()
        return digits[:32], digits[32:]


class Signer:
    """Signs and verifies with the secret of a database."""

    def __init__(self, secret: bytes) -> None:
        """Raises KeysUnknown where the secret is not known yet: everybody could sign with none."""
        if not secret:
            raise KeysUnknown
        self._key = hmac.digest(secret, _USE, "sha256")

    def signatures(self, client_id: str, expires: int) -> Signatures:
        """Signs until `expires`, in seconds since 1970."""
        return Signatures(self._key, client_id, str(expires))

    def verify(
        self, picture: Picture, client_id: str, media_id: str, *, expires: str, signature: str, now: float
    ) -> float:
        """The seconds for which a signed address is still good. Raises SignatureInvalid; compares in constant time."""
        if not _EXPIRES.fullmatch(expires):
            raise SignatureInvalid
        thumbnail, file = Signatures(self._key, client_id, expires).of(media_id)
        right = thumbnail if picture == "thumbnail" else file
        if not hmac.compare_digest(right.encode(), _bytes(signature)):
            raise SignatureInvalid
        left = int(expires) - now
        if left <= 0:
            raise SignatureInvalid("This address of a picture has expired: ask for the picture's media again.")
        return left


def _bytes(text: str) -> bytes:
    """Whatever stands in an address has bytes, also what is no text."""
    return text.encode(errors="surrogatepass")


def expiry(now: float, lifetime: float) -> int:
    """When an address that is made now expires, in seconds since 1970: after `lifetime` seconds, or up to half as many
    more. All that are made within half a lifetime expire together, so that a picture keeps its address for a while, and
    browsers find it in their caches."""
    step = max(1, int(lifetime / 2))
    return (int(now) // step + 1) * step + int(lifetime)
