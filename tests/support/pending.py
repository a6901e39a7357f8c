"""A shop whose own system writes rows of media, and their bytes into the store, as in docs/operations.md."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.support.databases import run_sql
from tests.support.pictures import in_format

CLIENT = "demo"


def picture(number: int) -> bytes:
    """A picture that looks like none of another number."""
    image = Image.new("RGB", (96, 64), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    draw = ImageDraw.Draw(image)
    draw.ellipse([number % 7 * 5, number % 5 * 6, 40 + number % 11 * 5, 34 + number % 13 * 2], fill=(255, 255, 255))
    draw.text((4, 40), str(number), fill=(0, 0, 0))
    return in_format(image, "PNG")


class OtherSystem:
    """What writes into the tables beside Twinlens. `store`: the folder of pictures."""

    def __init__(self, url: str, store: Path) -> None:
        self.url = url
        self.store = store
        store.mkdir(parents=True, exist_ok=True)
        self.sql(
            """INSERT INTO products (id, "clientId", name) VALUES ('p', %s, 'A product') ON CONFLICT DO NOTHING""",
            CLIENT,
        )

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        return run_sql(self.url, statement, parameters)

    def put(self, key: str, data: bytes) -> None:
        """Store a picture's bytes."""
        path = self.store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def add(self, media: str, data: bytes | None = None, *, product: str = "p", **columns: Any) -> str:
        """A pending row, after its bytes where there are any; gives its key."""
        key = f"uploads/{media}"
        if data is not None:
            self.put(key, data)
        named = {"id": media, "productId": product, "clientId": CLIENT, "s3Key": key, "status": "pending", **columns}
        names = ", ".join(f'"{name}"' for name in named)
        self.sql(f"INSERT INTO media ({names}) VALUES ({', '.join(['%s'] * len(named))})", *named.values())
        return key

    def add_many(self, count: int, **more: bytes) -> dict[str, bytes]:
        """So many pending rows with their bytes, and these, in one transaction; the bytes by media."""
        pictures = {f"m{number:04}": picture(number) for number in range(count)} | more
        for media, data in pictures.items():
            self.put(f"uploads/{media}", data)
        self.sql(
            """
            INSERT INTO media (id, "productId", "clientId", "s3Key", status)
            SELECT id, 'p', %s, 'uploads/' || id, 'pending' FROM unnest(%s::text[]) AS id
            """,
            CLIENT,
            [*pictures],
        )
        return pictures

    def states(self) -> dict[str, str]:
        """The status of each media."""
        return dict(self.sql("SELECT id, status FROM media"))

    def ready(self) -> set[str]:
        return {media for media, status in self.states().items() if status == "ready"}

    def queue(self) -> dict[str, tuple[int, int, str | None]]:
        """What is in the queue: attempts, deaths and the code of the last error, by media."""
        rows = self.sql('SELECT "mediaId", attempts, deaths, code FROM twinlens_pending')
        return {media: (attempts, deaths, code) for media, attempts, deaths, code in rows}

    def make_due(self) -> None:
        """Have no picture wait any longer for its next try."""
        self.sql('UPDATE twinlens_pending SET "nextAt" = now() WHERE "nextAt" IS NOT NULL')

    def count_embeddings(self) -> None:
        """Count from now on how often each media becomes ready."""
        self.sql(
            """
            CREATE TABLE embedded (media text, at timestamptz DEFAULT clock_timestamp());
            CREATE FUNCTION note_embedded() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO embedded (media) VALUES (NEW.id); RETURN NULL; END';
            CREATE TRIGGER note AFTER UPDATE ON media FOR EACH ROW
                WHEN (OLD.status <> 'ready' AND NEW.status = 'ready') EXECUTE FUNCTION note_embedded()
            """
        )

    def embedded(self) -> list[str]:
        return sorted(media for (media,) in self.sql("SELECT media FROM embedded"))


def as_seen(thumbnail: bytes) -> Iterator[object]:
    """The format and the larger side of a thumbnail."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        yield image.format
        yield max(image.size)
