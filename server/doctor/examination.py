"""The examination of one database: the statements of doctor.sql that it runs, and what it has found so far."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from psycopg import Connection
from psycopg.rows import TupleRow, kwargs_row

from server.artifact.artifact import Artifact
from server.catalogue.rows import SpaceRow
from server.database.migrations import OLDEST_PGVECTOR
from server.database.queries import Queries
from server.doctor.comparison import Comparison, Pictures, StoredVector, compare
from server.doctor.report import Finding, Report
from server.settings import Settings

ADOPT = "python -m server migrate --adopt"

_EXAMPLES = 3

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A statement of doctor.sql that gives an id for each thing that is wrong, and the finding that these make.

    `name` is that of the statement, `of` the number of things that could be wrong. `sentence` holds {count} and {of}.
    """

    name: str
    of: int
    unit: str
    sentence: str
    effect: str
    remedy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def finding(self, count: int, examples: list[str]) -> Finding:
        """The finding of `count` things that are wrong."""
        return Finding(
            name=self.name.replace("_", "-"),
            sentence=self.sentence.format(count=f"{count:,}", of=f"{self.of:,}"),
            count=count,
            of=self.of,
            unit=self.unit,
            examples=examples,
            effect=self.effect,
            remedy=self.remedy,
        )


@dataclass(frozen=True)
class VectorIndex:
    """An index over vectors. `valid`: its build was completed; `partial`: it holds a part of the rows alone."""

    name: str
    kind: str
    operators: str
    valid: bool
    partial: bool


@dataclass
class Examination:
    """A database that is looked at, with the artifact and the pictures that its vectors are compared with.

    `sample`: the number of vectors and pictures that are drawn. `progress` is handed a line before each step.
    """

    connection: Connection[TupleRow]
    settings: Settings
    artifact: Artifact
    pictures: Pictures
    sample: int
    progress: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    space: SpaceRow | None = None

    @property
    def dimensions(self) -> int:
        """The number of dimensions of the artifact's vectors."""
        return self.artifact.manifest.space.dimensions

    @property
    def reembed(self) -> str:
        """The command that embeds the pictures with the artifact."""
        return f"python -m server reembed --artifact {self.settings.model}"

    @property
    def adopt_and_embed(self) -> str:
        """The two commands that make new vectors for a legacy database."""
        return f"{ADOPT}, then {self.reembed}"

    # --- the statements ----------------------------------------------------------------------------------------------

    @property
    def _queries(self) -> Queries:
        """The statements, for the live space's table where there is one."""
        queries = Queries.read("doctor.sql")
        return queries if self.space is None else queries.of(self.space.table)

    def rows(self, record: Callable[..., Row], name: str, **parameters: Any) -> list[Row]:
        """What the statement gives: of each row the record that `record` makes of its columns, by name."""
        self._report_progress(name)
        with self.connection.cursor(row_factory=kwargs_row(record)) as cursor:
            return cursor.execute(self._queries[name], parameters).fetchall()

    def values(self, name: str, **parameters: Any) -> list[Any]:
        """What a statement of one column gives."""
        self._report_progress(name)
        return [value for (value,) in self.connection.execute(self._queries[name], parameters)]

    def stored_vectors(self, name: str) -> list[StoredVector]:
        """The sample that the statement draws."""
        return self.rows(StoredVector.of_row, name, count=self.sample)

    def _report_progress(self, name: str) -> None:
        self.progress(f"looking: {name.replace('_', ' ')}")

    # --- what is found -----------------------------------------------------------------------------------------------

    def look_for(self, check: Check) -> None:
        """Add the check's finding when its statement finds anything."""
        self._report_progress(check.name)
        query = self._queries.composed("count_found", found=self._queries.composed(check.name))
        ((count, examples),) = self.connection.execute(query, check.parameters).fetchall()
        if count:
            self.findings.append(check.finding(count, first(examples)))

    def check_pgvector(self) -> None:
        """Add a finding when pgvector is older than what Twinlens needs."""
        (version,) = self.values("pgvector")
        if tuple(map(int, re.findall(r"\d+", version))) >= OLDEST_PGVECTOR:
            return
        self.findings.append(
            Finding(
                name="old-pgvector",
                sentence=f"pgvector is {version}; at least {'.'.join(map(str, OLDEST_PGVECTOR))} is needed",
                count=1,
                of=1,
                unit="databases",
                examples=[version],
                effect="A vacuum can corrupt an HNSW index: searches then lose rows, and nothing says so.",
                remedy="install a newer pgvector on the database server, then ALTER EXTENSION vector UPDATE",
            )
        )

    def compare_with_pictures(self, stored: list[StoredVector]) -> Comparison:
        """Embed the pictures of stored vectors again. Raises ArtifactInvalid, EncoderFailed."""
        self.progress(f"embedding again: up to {self.sample} pictures")
        return compare(self.settings, self.artifact, self.pictures, stored, self.sample)

    def report(self, database: str, looked_at: str) -> Report:
        """All that was found."""
        return Report(
            database=database,
            looked_at=looked_at,
            sample=self.sample,
            findings=self.findings,
            notes=self.notes,
        )


def first(examples: Sequence[str]) -> list[str]:
    """As many examples as a finding shows."""
    return [*examples[:_EXAMPLES]]
