"""Two ids of one thing: the API's, which is unique within a client, and the database's, which is unique in its table.

They are equal wherever the API's is free in the database. Where another client's row has it, the row gets another id in
the database, and the column "apiId" holds the API's. The older application's SQL goes on with the database's.
"""

from __future__ import annotations

import hashlib

_DIGITS = 32  # 128 bits: two clients that meet under one id are not to be expected


def id_elsewhere(client_id: str, api_id: str) -> str:
    """The id in the database of a client's product or media whose own id another client has there.

    No caller can choose such an id, since `check_item_id` refuses what ends so. At most 161 characters, of 255 that the
    column takes.
    """
    # A text that is no text is refused by the database, in its own words.
    digest = hashlib.sha256(f"{client_id}\0{api_id}".encode(errors="surrogatepass")).hexdigest()
    return f"{api_id}~{digest[:_DIGITS]}"
