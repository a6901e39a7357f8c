"""The examination of one database: the statements of doctor.sql that it runs, and what it has found so far."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from psycopg import Connection
from psycopg.rows import TupleRow, kwargs_row

from server.artifact.artifact import Artifact
from server.catalogue.rows import SpaceRow
from server.database.preconditions import OLDEST_PGVECTOR, SAFE_IVFFLAT, dotted, is_unicode, look, version_of
from server.database.queries import Queries
from server.doctor.comparison import Comparison, Pictures, StoredVector, compare
from server.doctor.report import Finding, Report
from server.settings import Settings

ADOPT = "python -m server migrate --adopt"

EXAMPLES = 3
"""As many are shown of whatever is found."""

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that may be wrong with a database: a finding, but for how often it is found.

    `of` is the number of things that could be wrong. `sentence` may hold {count} and {of}.
    """

    name: str
    of: int
    unit: str
    sentence: str
    effect: str
    remedy: str

    def finding(self, count: int, examples: Sequence[str]) -> Finding:
        """The finding that `count` things are wrong; of the examples the first three are kept."""
        return Finding(
            name=self.name,
            sentence=self.sentence.replace("{count}", f"{count:,}").replace("{of}", f"{self.of:,}"),
            count=count,
            of=self.of,
            unit=self.unit,
            examples=[*examples[:EXAMPLES]],
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
    url: str
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
        return f"python -m server reembed --artifact {shlex.quote(str(self.settings.model))}"

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

    def add(self, fault: Fault, ids: Sequence[str], count: int | None = None) -> None:
        """Add the finding that these things are wrong, unless there are none. `count`: where `ids` are examples."""
        if ids:
            self.findings.append(fault.finding(len(ids) if count is None else count, ids))

    def look_for(self, fault: Fault, **parameters: Any) -> None:
        """Add the finding of what the fault's statement finds, if anything: the one of its name, with underscores."""
        count, examples = self.count(fault.name.replace("-", "_"), **parameters)
        if count:
            self.findings.append(fault.finding(count, examples))

    def count(self, statement: str, **parameters: Any) -> tuple[int, list[str]]:
        """How many ids the statement gives, and the first three."""
        self._report_progress(statement)
        query = self._queries.composed("count_found", found=self._queries.composed(statement))
        ((count, examples),) = self.connection.execute(query, parameters).fetchall()
        return count, examples

    def check_server(self) -> None:
        """Add what is wrong with the database, whatever it holds: its encoding, its pgvector."""
        self._check_encoding()
        self._check_pgvector()

    def _check_encoding(self) -> None:
        seen = look(self.connection)
        self.add(
            Fault(
                name="encoding",
                of=1,
                unit="databases",
                sentence=f"The database is encoded in {seen.encoding}; UTF8 is needed",
                effect="Names that this encoding lacks cannot be stored; SQL_ASCII keeps bytes that may be no text at "
                "all. Twinlens does not start on it.",
                remedy="make a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 LOCALE 'C', and "
                "restore a dump of this one into it (pg_dump --encoding=UTF8)",
            ),
            [] if is_unicode(seen.encoding) else [seen.database],
        )

    def _check_pgvector(self) -> None:
        (version,) = self.values("pgvector")
        too_old = version_of(version) < OLDEST_PGVECTOR
        self.add(
            Fault(
                name="old-pgvector",
                of=1,
                unit="databases",
                sentence=f"pgvector is {version}; at least {dotted(OLDEST_PGVECTOR)} is needed",
                effect="A vacuum can corrupt an HNSW index: searches then lose rows, and nothing says so.",
                remedy="install a newer pgvector on the database server, then ALTER EXTENSION vector UPDATE",
            ),
            [version] if too_old else [],
        )
        if version_of(version) >= SAFE_IVFFLAT:
            return
        self.look_for(
            Fault(
                name="unsafe-ivfflat",
                of=len(self.values("unsafe_ivfflat")),
                unit="IVFFlat indexes",
                sentence=f"IVFFlat indexes under pgvector {version}: {{count}} of {{of}}",
                effect=f"Before pgvector {dotted(SAFE_IVFFLAT)}, building or rebuilding one can write beyond a buffer "
                "of the database server. Twinlens makes and uses none.",
                remedy=f"DROP INDEX, if nothing else needs it; or install pgvector {dotted(SAFE_IVFFLAT)} or newer on "
                "the database server, then ALTER EXTENSION vector UPDATE, before any of them is built again",
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
