"""python -m server doctor: what is wrong with a database, what it does to results, and what mends it. It only reads.

A database of the older system and one of Twinlens are both understood. Counts are of all rows; what compares vectors
with each other, or embeds pictures anew, looks at a random sample and says how large it was.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.rows import TupleRow

from server.artifact.artifact import Artifact
from server.catalogue.indexes import INDEX_THRESHOLD, Indexes
from server.catalogue.rows import SpaceRow
from server.database.connections import connect
from server.database.migrations import OLDEST_PGVECTOR, load_migrations
from server.database.queries import Queries
from server.doctor.comparison import AGREES, Comparison, Kept, Pictures, compare
from server.doctor.legacy import Tables, kind_of, read_tables
from server.errors import DatabaseUnusable
from server.settings import Settings

SAMPLE = 200

# From so many vectors on, a search without an index of any kind takes longer than a person waits for.
_NEEDS_INDEX = 10_000

# A vector's cosines to the rest of a sample have a root mean square of 1/sqrt(D) when it points anywhere: by chance up
# to 1.2 times that in a sample of 100. A model's vectors lie well above: the starter's, of 512 dimensions, 3.3 times.
_AS_IF_RANDOM = 1.3
_FEWEST_TO_JUDGE = 20
# In a sound catalogue a picture in a hundred may be like no other; a part of this size is no accident.
_TOO_MANY_RANDOM = 0.05

_ADOPT = "python -m server migrate --adopt"


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that is wrong: how many of how many, up to three examples (ids), and what to do about it."""

    name: str
    sentence: str
    count: int
    of: int
    unit: str
    examples: list[str]
    effect: str
    remedy: str


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What the doctor saw. `database`: `older` or `twinlens`; `notes`: worth knowing, and no reason to act."""

    database: str
    looked_at: str
    sample: int
    findings: list[Finding]
    notes: list[str]


def examine(settings: Settings, url: str, *, media: Path | None = None, sample: int = SAMPLE) -> Report:
    """Look at the database at `url`, with the artifact of the settings beside it.

    Raises DatabaseUnusable when it cannot be reached or is neither the older system's nor ours, ArtifactInvalid,
    BadSetting.
    """
    if media is not None and not media.is_dir():
        raise DatabaseUnusable(f"There is no folder {media} to read pictures from.")
    artifact = Artifact.read(settings.model)
    pictures = Pictures(settings, media)
    with connect(url) as connection:
        connection.execute("SET default_transaction_read_only = on")
        kind = kind_of(connection)
        if kind == "empty":
            raise DatabaseUnusable(
                "The database holds no catalogue: neither the older system's tables nor Twinlens' own, which "
                "python -m server migrate makes."
            )
        patient = _Patient(connection, settings, artifact, pictures, sample)
        return _older(patient, read_tables(connection)) if kind == "older" else _twinlens(patient)


def as_text(report: Report) -> str:
    """The report for a person, with a line at the end that sums it up."""
    lines = [report.looked_at, ""]
    for number, one in enumerate(report.findings, 1):
        lines += _wrapped(f"{number}. {one.sentence}", "   ")
        if one.examples:
            lines.append(f"   For example: {', '.join(one.examples)}")
        lines += _wrapped(f"   What it does: {one.effect}", "   ")
        # In one line, since there are commands in it.
        lines += [f"   What mends it: {one.remedy}", ""]
    if report.notes:
        lines.append("Worth knowing:")
        for note in report.notes:
            lines += _wrapped(f"- {note}", "  ")
        lines.append("")
    count = len(report.findings)
    lines.append(f"{count} finding{'s' if count > 1 else ''}." if count else "Nothing wrong was found.")
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


@dataclass
class _Patient:
    """A database that is looked at, and what was found so far."""

    connection: Connection[TupleRow]
    settings: Settings
    artifact: Artifact
    pictures: Pictures
    sample: int
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    space: SpaceRow | None = None

    @property
    def queries(self) -> Queries:
        """The statements, for the live space's table where there is one."""
        queries = Queries.read("doctor.sql")
        return queries if self.space is None else queries.of(self.space.table)

    @property
    def dimensions(self) -> int:
        """Of the artifact."""
        return self.artifact.manifest.space.dimensions

    @property
    def reembed(self) -> str:
        return f"python -m server reembed --artifact {self.settings.model}"

    @property
    def adopt_and_embed(self) -> str:
        return f"{_ADOPT}, then {self.reembed}"

    def ask(self, name: str, **parameters: Any) -> list[TupleRow]:
        print(f"looking: {name.replace('_', ' ')}", file=sys.stderr)
        return self.connection.execute(self.queries[name], parameters).fetchall()

    def look_for(
        self, name: str, of: int, unit: str, sentence: str, effect: str, remedy: str, **parameters: Any
    ) -> None:
        """Add a finding when the statement finds anything. `sentence` may hold {count}, {of} and {unit}."""
        query = self.queries.composed("count_found", found=self.queries.composed(name))
        print(f"looking: {name.replace('_', ' ')}", file=sys.stderr)
        ((count, examples),) = self.connection.execute(query, parameters).fetchall()
        if count:
            self.add(name, count, of, unit, examples, sentence, effect, remedy)

    def add(
        self,
        name: str,
        count: int,
        of: int,
        unit: str,
        examples: Sequence[str],
        sentence: str,
        effect: str,
        remedy: str,
    ) -> None:
        sentence = sentence.format(count=f"{count:,}", of=f"{of:,}", unit=unit)
        self.findings.append(
            Finding(name.replace("_", "-"), sentence, count, of, unit, [*examples][:3], effect, remedy)
        )

    def report(self, database: str, looked_at: str) -> Report:
        return Report(database, looked_at, self.sample, self.findings, self.notes)

    def check_pgvector(self) -> None:
        version = str(self.ask("pgvector")[0][0])
        if tuple(map(int, re.findall(r"\d+", version))) < OLDEST_PGVECTOR:
            needed = ".".join(map(str, OLDEST_PGVECTOR))
            self.add(
                "old_pgvector", 1, 1, "databases", [version],
                f"pgvector is {version}; at least {needed} is needed",
                "A vacuum can corrupt an HNSW index: searches then lose rows, and nothing says so.",
                "install a newer pgvector on the database server, then ALTER EXTENSION vector UPDATE",
            )  # fmt: skip

    def embed_anew(self, kept: list[Kept]) -> Comparison:
        print(f"embedding anew: up to {self.sample} pictures", file=sys.stderr)
        return compare(self.settings, self.artifact, self.pictures, kept, self.sample)


# --- the older system ------------------------------------------------------------------------------------------------


def _older(patient: _Patient, tables: Tables) -> Report:
    ((products, clients, media, vectors),) = patient.ask("count_older")
    looked_at = (
        f"A database of the older system: {products:,} products of {_many(clients, 'client')}, {media:,} media, "
        f"{vectors:,} vectors. Only read, never written.\n"
        f"Compared with the artifact {patient.artifact.manifest.name} ({patient.dimensions} dimensions)."
    )
    patient.check_pgvector()
    _look_at_vectors(patient, vectors)
    sample = patient.ask("sample_older", count=patient.sample)
    _look_at_sample(patient, sample)
    _look_at_pictures(patient, sample, media)
    _look_at_rows(patient, products, media, vectors)
    _look_at_indexes(patient, vectors, clients)
    _look_at_percentage(patient)
    patient.notes.append(
        "No vector says which model and preprocessing made it. Twinlens keeps vectors by embedding space, and never "
        "compares two of different ones."
    )
    if clients > 1 and tables.has("products", "sku"):
        patient.notes.append(
            "Where the SKU is unique in the whole table, two clients cannot use the same one. Adopted, it is unique "
            "within each client."
        )
    return patient.report("older", looked_at)


def _look_at_vectors(patient: _Patient, vectors: int) -> None:
    patient.look_for(
        "null_vectors", vectors, "vectors",
        "Vectors that are NULL: {count} of {of}",
        "The older search sorts them last, without a score: their pictures are found by nobody.",
        patient.adopt_and_embed,
    )  # fmt: skip
    patient.look_for(
        "zero_vectors", vectors, "vectors",
        "Vectors of zeros: {count} of {of}",
        "Their score is 0 for every query, so they stand before all that is less alike than a right angle. A model "
        "never gives zeros: embedding failed, and a blank was stored.",
        patient.adopt_and_embed,
    )  # fmt: skip
    ((shortest, longest),) = patient.ask("lengths")
    patient.look_for(
        "other_lengths", vectors, "vectors",
        f"Vectors of another length than 1: {{count}} of {{of}} (from {shortest or 0:.3g} to {longest or 0:.3g})",
        "<#> is the negative inner product. It ranks by length as much as by likeness: a long vector stands in front "
        "of the right one, and no percentage made from the score means anything.",
        patient.adopt_and_embed,
    )  # fmt: skip
    found = patient.ask("dimensions")
    patient.look_for(
        "other_dimensions", vectors, "vectors",
        f"Vectors of other dimensions than the artifact's {patient.dimensions}: {{count}} of {{of}} (they have "
        f"{', '.join(str(one) for one, _ in found)})",
        "They were made by another model. A query of one cannot be compared with a vector of the other.",
        f"{patient.adopt_and_embed}; or export the model that made them, and look again with --model",
        dimensions=patient.dimensions,
    )  # fmt: skip
    patient.look_for(
        "unlike_twins", vectors, "vectors",
        f"One picture, different vectors: {{count}} of {{of}} vectors have a cosine below {AGREES} to another vector "
        "of the same file",
        "What a picture finds, and whether it finds itself, depends on which of its vectors was made last. Near 0 it "
        "is dice; 0.99 is another resizing or another precision.",
        patient.adopt_and_embed,
    )  # fmt: skip
    patient.look_for(
        "shared_vectors", vectors, "vectors",
        "Different pictures, one vector: {count} of {of} vectors equal that of another file to the last bit",
        "A search cannot tell these pictures apart. That is right where two files hold the same bytes, and only there: "
        "else the vector is a placeholder.",
        patient.adopt_and_embed,
    )  # fmt: skip


def _look_at_sample(patient: _Patient, sample: list[TupleRow]) -> None:
    """Whether the vectors are a model's at all: how they lie to each other."""
    ids, directions = _directions(sample)
    if len(ids) < _FEWEST_TO_JUDGE:
        patient.notes.append(f"There are too few vectors to tell whether they look random: {len(ids)}.")
        return
    cosines = directions @ directions.T
    pairs = cosines[np.triu_indices(len(ids), 1)]
    np.fill_diagonal(cosines, 0)
    spread = np.sqrt((cosines**2).sum(axis=1) / (len(ids) - 1))
    by_chance = 1 / np.sqrt(directions.shape[1])
    random = [one for one, rms in zip(ids, spread, strict=True) if rms < _AS_IF_RANDOM * by_chance]
    told = (
        f"the cosines of {len(pairs):,} pairs, {len(ids)} vectors drawn at random, have mean {pairs.mean():.3f} and "
        f"deviation {pairs.std():.3f}; random directions have 0.000 and {by_chance:.3f}"
    )
    if len(random) >= _TOO_MANY_RANDOM * len(ids):
        patient.add(
            "random_vectors", len(random), len(ids), "sampled vectors", sorted(random),
            f"Vectors that look random: {{count}} of {{of}} sampled ({told})",
            "They know nothing of the pictures. Every query scores them near 0, which is shown as about 50 %, and "
            "their order is luck: they came from a mock or a fallback, not from a model.",
            patient.adopt_and_embed,
        )  # fmt: skip
    else:
        patient.notes.append(f"The vectors look like a model's: {told}.")


def _directions(sample: list[TupleRow]) -> tuple[list[str], NDArray[np.float64]]:
    """Ids and unit vectors, float64[N, D], of those that have a length and the most common D."""
    vectors = [(one, np.array(vector, np.float64)) for one, _, vector in sample]
    vectors = [(one, vector) for one, vector in vectors if vector.any()]
    if not vectors:
        return [], np.empty((0, 1))
    sizes = [vector.size for _, vector in vectors]
    common = max(set(sizes), key=sizes.count)
    ids = [one for one, vector in vectors if vector.size == common]
    matrix = np.stack([vector for _, vector in vectors if vector.size == common])
    return ids, matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _look_at_pictures(patient: _Patient, sample: list[TupleRow], media: int) -> None:
    kept = [Kept(one, key, np.array(vector, np.float32)) for one, key, vector in sample if key and any(vector)]
    comparison = patient.embed_anew(kept)
    _tell_absent(patient, comparison)
    if not comparison.cosines:
        return
    of, told = len(comparison.cosines), comparison.told
    if wrong := comparison.disagreeing:
        patient.add(
            "disagreeing_vectors", len(wrong), of, "sampled pictures", wrong,
            "Vectors that are not what the artifact makes of the picture: {count} of {of} embedded anew "
            f"({told}; {AGREES} is needed)",
            "A picture that is searched for does not meet its own vector: it is not found first, or not at all.",
            f"{patient.adopt_and_embed}; or export the model that made them, and look again with --model",
        )  # fmt: skip
    else:
        patient.notes.append(
            f"Of {_many(of, 'picture')} embedded anew, each agrees with its vector ({told}): adopting keeps "
            "the vectors."
        )


def _tell_absent(patient: _Patient, comparison: Comparison) -> None:
    if comparison.absent:
        hint = (
            "" if comparison.cosines else ": --media DIR compares vectors with what the artifact makes of the pictures"
        )
        patient.notes.append(f"The pictures of {len(comparison.absent):,} sampled media are not at hand{hint}.")
    if comparison.unreadable:
        patient.notes.append(
            f"The pictures of {len(comparison.unreadable):,} sampled media cannot be read: "
            f"{', '.join(comparison.unreadable[:3])}."
        )


def _look_at_rows(patient: _Patient, products: int, media: int, vectors: int) -> None:
    kept = f"{_ADOPT} moves these rows to twinlens_older_rows, with the reason"
    patient.look_for(
        "orphan_media", media, "media",
        "Media whose product is not there: {count} of {of}",
        "No search finds them, since it asks for the product, too.",
        kept,
    )  # fmt: skip
    patient.look_for(
        "orphan_vectors", vectors, "vectors",
        "Vectors whose media is not there: {count} of {of}",
        "No search finds them, yet each is compared with every query; in a vector index they crowd out what could be "
        "found.",
        f"{_ADOPT} leaves them in the archive, which is never searched",
    )  # fmt: skip
    patient.look_for(
        "crowded_media", media, "media",
        "Media with several vectors: {count} of {of}",
        "They come back several times in one list of results, and push others out of it.",
        f"{patient.adopt_and_embed}: a media has one vector in a space",
    )  # fmt: skip
    patient.look_for(
        "media_without_vectors", media, "media",
        "Media without a vector: {count} of {of}",
        "No search finds them.",
        patient.adopt_and_embed,
    )  # fmt: skip
    patient.look_for(
        "media_without_pictures", media, "media",
        "Media without an s3Key: {count} of {of}",
        "Nobody can show the picture, or embed it anew.",
        kept,
    )  # fmt: skip
    patient.look_for(
        "products_without_clients", products, "products",
        "Products without a client: {count} of {of}",
        "Every search asks for a client, so none finds them.",
        f"fill in the clientId where you know whose they are; {kept}",
    )  # fmt: skip
    patient.look_for(
        "repeated_skus", products, "products",
        "Products that share a SKU with another of their client: {count} of {of}",
        "Whoever looks a product up by its SKU gets any of them.",
        f"give each its own; {_ADOPT} leaves it to the first, and records what the others had",
    )  # fmt: skip


def _look_at_indexes(patient: _Patient, vectors: int, clients: int) -> None:
    indexes = patient.ask("indexes", table="image_embeddings")
    add = patient.add

    def names(rows: list[TupleRow]) -> list[str]:
        return [name for name, *_ in rows]

    mended = f"{_ADOPT}: searches are exact where a client is small, and each large client gets an index of its own"
    broken = [row for row in indexes if not row[3]]
    others = [row for row in indexes if not row[2].endswith("_ip_ops")]
    lists = [row for row in indexes if row[1] == "ivfflat"]
    shared = [row for row in indexes if row[3] and row[2].endswith("_ip_ops") and not row[4]] if clients > 1 else []
    if broken:
        add(
            "broken_index", len(broken), len(indexes), "vector indexes", names(broken),
            "Vector indexes that are not whole: {count} of {of}",
            "PostgreSQL never uses them and still pays for them at every write: building one was interrupted.",
            f"DROP INDEX {names(broken)[0]}; or {mended}",
        )  # fmt: skip
    if others:
        add(
            "other_operator", len(others), len(indexes), "vector indexes", [f"{row[0]} ({row[2]})" for row in others],
            "Vector indexes of another operator than the SQL's <#>: {count} of {of}",
            "An index serves one operator: <#> needs vector_ip_ops. These are never used, so each search reads every "
            "vector.",
            mended,
        )  # fmt: skip
    if lists:
        add(
            "ivfflat_index", len(lists), len(indexes), "vector indexes", names(lists),
            "Vector indexes of the kind ivfflat: {count} of {of}",
            "It looks into one list unless told otherwise, and its lists are those of the day it was built: what was "
            "added since, or lies at a border, is not found.",
            mended,
        )  # fmt: skip
    if shared:
        add(
            "shared_index", len(shared), len(indexes), "vector indexes", names(shared),
            f"A vector index that {clients:,} clients share: {{count}} of {{of}}",
            "Where PostgreSQL uses it, it takes the 40 nearest of everybody's and drops those of other clients after "
            "that: a client with 1 % of the pictures gets short lists, or none, and its best match may be missing.",
            mended,
        )  # fmt: skip
    if indexes:
        return
    if vectors >= _NEEDS_INDEX:
        add(
            "no_index", vectors, vectors, "vectors", [],
            "There is no vector index, and there are {count} vectors",
            "Results are right, but each search reads every vector: about a second for a million.",
            mended,
        )  # fmt: skip
    else:
        patient.notes.append("There is no vector index. Results lose nothing by that, and so few need none.")


def _look_at_percentage(patient: _Patient) -> None:
    for media, score, shown in patient.ask("percentage"):
        patient.notes.append(
            f"The older percentage, (1 + score) / 2 * 100, is upside down: score is a negative cosine. Here the "
            f"media {media} meets its own vector, the best match there can be: its score is {score:.4f}, shown as "
            f"{round(shown, 1) + 0.0:.1f} %, where 100 % is right. Show (1 - score) / 2 * 100, of vectors of unit "
            "length, or the `similarity` that Twinlens answers with."
        )


# --- Twinlens --------------------------------------------------------------------------------------------------------


def _twinlens(patient: _Patient) -> Report:
    ((products, clients, images),) = patient.ask("count_twinlens")
    looked_at = f"A Twinlens database: {products:,} products of {_many(clients, 'client')}, {images:,} images."
    patient.check_pgvector()
    applied = {number for (number,) in patient.ask("applied")}
    if pending := [one.name for one in load_migrations() if one.number not in applied]:
        patient.add(
            "pending_migrations", len(pending), len(pending) + len(applied), "migrations", pending,
            "Migrations that were not applied: {count} of {of}",
            "This version of Twinlens does not run on the database as it is.",
            "python -m server migrate, which serve does by itself",
        )  # fmt: skip
    spaces = patient.ask("spaces")
    wanted = patient.artifact.space(patient.settings.precision)
    for number, space_id, dimensions, _, live, retired in spaces:
        if live:
            patient.space = SpaceRow(number, space_id, dimensions, "", live=True)
        elif retired:
            patient.notes.append(
                f"Space {number} ({space_id[:12]}) is no longer live. It is kept as the way back, and takes room: "
                f"python -m server spaces lists it, and drops it."
            )
        else:
            patient.notes.append(
                f"Space {number} ({space_id[:12]}) is being filled: python -m server reembed goes on with it."
            )
    if patient.space is None:
        if images:
            patient.add(
                "no_live_space", images, images, "images", [],
                "No embedding space is live, and there are {count} images",
                "Nothing can be found yet.",
                f"{patient.reembed}; or serve, which takes its artifact's space as the live one and fills it",
            )  # fmt: skip
        return patient.report("twinlens", looked_at)
    ours = patient.space.id == wanted.id
    if not ours:
        patient.add(
            "other_artifact", 1, 1, "artifacts", [str(patient.settings.model)],
            f"The artifact {patient.artifact.manifest.name} ({patient.settings.precision}) makes vectors of the space "
            f"{wanted.id[:12]}; the live one is {patient.space.id[:12]}",
            "A server with this artifact does not start on this database.",
            f"set TWINLENS_MODEL to the live space's artifact ({_path(spaces)}), or change to this one: "
            f"{patient.reembed}",
        )  # fmt: skip
    elif not Path(_path(spaces)).is_dir():
        patient.notes.append(
            f"The live space's artifact was last seen in {_path(spaces)}; on this machine it is not there."
        )
    ((vectors,),) = patient.ask("count_vectors")
    patient.look_for(
        "missing_media", images, "images",
        "Images without a vector in the live space: {count} of {of}",
        "No search finds them.",
        "a server that runs embeds them by itself; python -m server reembed --artifact with the live space's artifact "
        "does it, too, and says which pictures cannot be read",
    )  # fmt: skip
    _look_at_own_indexes(patient, patient.space)
    sample = patient.ask("sample_space", count=patient.sample)
    if ours:
        _look_at_own_pictures(patient, sample)
    return patient.report(
        "twinlens", f"{looked_at[:-1]}, {vectors:,} vectors in the live space {patient.space.id[:12]}."
    )


def _path(spaces: list[TupleRow]) -> str:
    return str(next(path for _, _, _, path, live, _ in spaces if live))


def _look_at_own_indexes(patient: _Patient, space: SpaceRow) -> None:
    indexes = patient.ask("indexes", table=space.table)
    if broken := [name for name, _, _, valid, _ in indexes if not valid]:
        patient.add(
            "broken_index", len(broken), len(indexes), "vector indexes", broken,
            "Vector indexes that are not whole: {count} of {of}",
            "Searches go without them, slower and right; every write still pays for them.",
            "let a server run: within minutes it drops what an interrupted build has left, and builds it anew",
        )  # fmt: skip
    clients = [client for (client,) in patient.ask("large_clients", threshold=INDEX_THRESHOLD)]
    names = {name for name, _, _, valid, _ in indexes if valid}
    own = Indexes(space)
    if without := [client for client in clients if own.name_of(client) not in names]:
        patient.add(
            "no_index", len(without), len(clients), "large clients", without,
            f"Clients with {INDEX_THRESHOLD:,} images and more without an index of their own: {{count}} of {{of}}",
            "Their searches are exact, and take longer.",
            "let a server run: it builds them within minutes, and its log says why if it cannot",
        )  # fmt: skip


def _look_at_own_pictures(patient: _Patient, sample: list[TupleRow]) -> None:
    comparison = patient.embed_anew([Kept(one, key, np.array(vector, np.float32)) for one, key, vector in sample])
    tried = len(comparison.cosines) + len(comparison.absent) + len(comparison.unreadable)
    if lost := sorted(comparison.absent + comparison.unreadable):
        patient.add(
            "lost_pictures", len(lost), tried, "sampled media", lost,
            "Media whose picture is not at hand, or cannot be read: {count} of {of} sampled",
            "They are found, and their picture cannot be shown; with the next model they will be lost.",
            "set TWINLENS_MEDIA_URL to where the pictures lie, or bring them back from a backup",
        )  # fmt: skip
    if not comparison.cosines:
        return
    of, told = len(comparison.cosines), comparison.told
    if wrong := comparison.disagreeing:
        patient.add(
            "disagreeing_vectors", len(wrong), of, "sampled pictures", wrong,
            f"Vectors that are not what the artifact makes of the picture: {{count}} of {{of}} embedded anew ({told})",
            "A picture that is searched for does not meet its own vector.",
            "delete these media and add their pictures again: the bytes in the store are not those that were embedded",
        )  # fmt: skip
    else:
        patient.notes.append(f"Of {_many(of, 'picture')} embedded anew, each agrees with its vector ({told}).")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
