"""python -m server doctor: what is wrong with a database, what it does to results, and what mends it. It only reads.

A legacy database and one of Twinlens are both understood. Counts are of all rows; what compares vectors with each
other, or embeds pictures again, looks at a random sample and says how large it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.artifact.artifact import Artifact
from server.database.connections import connect
from server.database.preconditions import require_readable
from server.doctor.comparison import Pictures
from server.doctor.examination import Examination
from server.doctor.examine_legacy import examine_legacy
from server.doctor.examine_own import examine_own
from server.doctor.legacy import kind_of, read_tables
from server.doctor.report import Report
from server.errors import DatabaseUnusable
from server.settings import Settings

SAMPLE = 200


def examine(
    settings: Settings,
    url: str,
    *,
    media: Path | None = None,
    sample: int = SAMPLE,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Look at the database at `url`, with the artifact of the settings beside it.

    `media`: a folder with the pictures; `progress` is handed a line before each step. Raises DatabaseUnusable when the
    database cannot be reached or is neither a legacy one nor ours, ArtifactInvalid, BadSetting.
    """
    if media is not None and not media.is_dir():
        raise DatabaseUnusable(f"There is no folder {media} to read pictures from.")
    artifact = Artifact.read(settings.model)
    pictures = Pictures(settings, media)
    with connect(url) as connection:
        connection.only_read()
        require_readable(connection)
        kind = kind_of(connection)
        if kind == "empty":
            raise DatabaseUnusable(
                "The database holds no catalogue: neither the older system's tables nor Twinlens' own, which "
                "python -m server migrate makes."
            )
        examination = Examination(connection, url, settings, artifact, pictures, sample, progress)
        if kind == "legacy":
            return examine_legacy(examination, read_tables(connection))
        return examine_own(examination)
