"""The examination of a legacy database: one of the older system, with its vectors in image_embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from server.doctor.comparison import AGREES, Comparison, StoredVector
from server.doctor.examination import ADOPT, EXAMPLES, Examination, Fault, VectorIndex
from server.doctor.legacy import Tables
from server.doctor.randomness import FEWEST_TO_JUDGE, directions, measure_randomness
from server.doctor.report import Report
from server.wording import counted

# From so many vectors on, a search without an index of any kind takes longer than a person waits for.
_NEEDS_INDEX = 10_000


@dataclass(frozen=True)
class _Counts:
    """How much the tables hold."""

    products: int
    clients: int
    media: int
    vectors: int


@dataclass(frozen=True)
class _Lengths:
    """Of the shortest and the longest vector; None where there is no vector."""

    shortest: float | None
    longest: float | None


@dataclass(frozen=True)
class _Percentage:
    """What the older formula makes of a vector that is compared with itself."""

    media_id: str
    score: float
    percentage: float


def examine_legacy(examination: Examination, tables: Tables) -> Report:
    """Look at a legacy database with these tables. Raises ArtifactInvalid, EncoderFailed."""
    (counts,) = examination.rows(_Counts, "count_legacy")
    looked_at = (
        f"A database of the older system: {counts.products:,} products of {counted(counts.clients, 'client')}, "
        f"{counts.media:,} media, {counts.vectors:,} vectors. Only read, never written.\n"
        f"Compared with the artifact {examination.artifact.manifest.name} ({examination.dimensions} dimensions)."
    )
    examination.check_server()
    _check_vectors(examination, counts)
    sample = examination.stored_vectors("sample_legacy")
    _check_randomness(examination, sample)
    _check_pictures(examination, sample)
    _check_rows(examination, counts)
    _check_indexes(examination, counts)
    _note_percentage(examination)
    examination.notes.append(
        "No vector says which model and preprocessing made it. Twinlens keeps vectors by embedding space, and never "
        "compares two of different ones."
    )
    if counts.clients > 1 and tables.has("products", "sku"):
        examination.notes.append(
            "Where the SKU is unique in the entire table, two clients cannot use the same one. Adopted, it is unique "
            "within each client."
        )
    return examination.report("older", looked_at)


# --- vectors ---------------------------------------------------------------------------------------------------------


def _check_vectors(examination: Examination, counts: _Counts) -> None:
    """What can be said of vectors without their pictures."""
    examination.look_for(
        Fault(
            name="null-vectors",
            of=counts.vectors,
            unit="vectors",
            sentence="Vectors that are NULL: {count} of {of}",
            effect="The older search sorts them last, without a score: nobody finds their pictures.",
            remedy=examination.adopt_and_embed,
        )
    )
    examination.look_for(
        Fault(
            name="zero-vectors",
            of=counts.vectors,
            unit="vectors",
            sentence="Vectors of zeros: {count} of {of}",
            effect="Their score is 0 for every query, so they stand before each picture with a cosine below 0. A model "
            "never gives zeros: embedding failed, and a blank was stored.",
            remedy=examination.adopt_and_embed,
        )
    )
    (lengths,) = examination.rows(_Lengths, "lengths")
    examination.look_for(
        Fault(
            name="other-lengths",
            of=counts.vectors,
            unit="vectors",
            sentence="Vectors of another length than 1: {count} of {of} "
            f"(from {lengths.shortest or 0:.3g} to {lengths.longest or 0:.3g})",
            effect="<#> is the negative inner product. It ranks by length as much as by likeness: a long vector stands "
            "in front of the right one, and no percentage made from the score means anything.",
            remedy=examination.adopt_and_embed,
        )
    )
    dimensions = examination.values("dimensions")
    examination.look_for(
        Fault(
            name="other-dimensions",
            of=counts.vectors,
            unit="vectors",
            sentence=f"Vectors of other dimensions than the artifact's {examination.dimensions}: {{count}} of {{of}} "
            f"(they have {', '.join(map(str, dimensions))})",
            effect="Another model made them. A query by one model cannot be compared with a vector by the other.",
            remedy=f"{examination.adopt_and_embed}; or export the model that made them, and look again with --model",
        ),
        dimensions=examination.dimensions,
    )
    examination.look_for(
        Fault(
            name="unlike-twins",
            of=counts.vectors,
            unit="vectors",
            sentence=f"One picture, different vectors: {{count}} of {{of}} vectors have a cosine below {AGREES} to "
            "another vector of the same file",
            effect="What a picture finds, and whether it finds itself, depends on which of its vectors was made last. "
            "A cosine near 0 is chance; 0.99 is another resizing or another precision.",
            remedy=examination.adopt_and_embed,
        )
    )
    examination.look_for(
        Fault(
            name="shared-vectors",
            of=counts.vectors,
            unit="vectors",
            sentence="Different pictures, one vector: {count} of {of} vectors equal that of another file to the last "
            "bit",
            effect="A search cannot distinguish these pictures. That is right where two files hold the same bytes, and "
            "only there: elsewhere the vector is a placeholder.",
            remedy=examination.adopt_and_embed,
        )
    )


def _check_randomness(examination: Examination, sample: list[StoredVector]) -> None:
    """Whether the vectors can be a model's at all."""
    ids, vectors = directions(sample)
    if len(ids) < FEWEST_TO_JUDGE:
        examination.notes.append(f"There are too few vectors to judge whether they look random: {len(ids)}.")
        return
    found = measure_randomness(ids, vectors)
    if not found.too_many:
        examination.notes.append(f"The vectors look like a model's: {found.measured}.")
        return
    examination.add(
        Fault(
            name="random-vectors",
            of=found.of,
            unit="sampled vectors",
            sentence=f"Vectors that look random: {{count}} of {{of}} sampled ({found.measured})",
            effect="They hold nothing of the pictures. Every query scores them near 0, which is shown as about 50 %, "
            "and their order is chance: they came from a mock or a fallback, not from a model.",
            remedy=examination.adopt_and_embed,
        ),
        sorted(found.random),
    )


def _check_pictures(examination: Examination, sample: list[StoredVector]) -> None:
    """Whether the vectors are what the artifact makes of their pictures, as far as these are at hand."""
    comparison = examination.compare_with_pictures([one for one in sample if one.s3_key and one.vector.any()])
    _note_missing_pictures(examination, comparison)
    if not comparison.cosines:
        return
    compared, disagreeing = len(comparison.cosines), comparison.disagreeing
    if not disagreeing:
        examination.notes.append(
            f"Of {counted(compared, 'picture')} embedded again, each agrees with its vector ({comparison.agreement}): "
            "adopting keeps the vectors."
        )
    examination.add(
        Fault(
            name="disagreeing-vectors",
            of=compared,
            unit="sampled pictures",
            sentence="Vectors that are not what the artifact makes of the picture: {count} of {of} compared "
            f"({comparison.agreement}; {AGREES} is needed)",
            effect="A picture that is searched for does not find itself first, or does not find itself at all.",
            remedy=f"{examination.adopt_and_embed}; or export the model that made them, and look again with --model",
        ),
        disagreeing,
    )


def _note_missing_pictures(examination: Examination, comparison: Comparison) -> None:
    if comparison.absent:
        hint = (
            "" if comparison.cosines else ": --media DIR compares vectors with what the artifact makes of the pictures"
        )
        examination.notes.append(f"The pictures of {len(comparison.absent):,} sampled media are not at hand{hint}.")
    if comparison.unreadable:
        examination.notes.append(
            f"The pictures of {len(comparison.unreadable):,} sampled media cannot be read: "
            f"{', '.join(comparison.unreadable[:EXAMPLES])}."
        )


# --- rows ------------------------------------------------------------------------------------------------------------


def _check_rows(examination: Examination, counts: _Counts) -> None:
    """Whether products, media and vectors belong together."""
    archived = f"{ADOPT} moves these rows to twinlens_older_rows, with the reason"
    examination.look_for(
        Fault(
            name="orphan-media",
            of=counts.media,
            unit="media",
            sentence="Media whose product is not there: {count} of {of}",
            effect="No search finds them, since it asks for the product, too.",
            remedy=archived,
        )
    )
    examination.look_for(
        Fault(
            name="orphan-vectors",
            of=counts.vectors,
            unit="vectors",
            sentence="Vectors whose media is not there: {count} of {of}",
            effect="No search finds them, yet each is compared with every query. In a vector index they crowd out what "
            "could be found.",
            remedy=f"{ADOPT} leaves them in the archive, which is never searched",
        )
    )
    examination.look_for(
        Fault(
            name="crowded-media",
            of=counts.media,
            unit="media",
            sentence="Media with several vectors: {count} of {of}",
            effect="They come back several times in one list of results, and push others out of it.",
            remedy=f"{examination.adopt_and_embed}: a media has one vector in a space",
        )
    )
    examination.look_for(
        Fault(
            name="media-without-vectors",
            of=counts.media,
            unit="media",
            sentence="Media without a vector: {count} of {of}",
            effect="No search finds them.",
            remedy=examination.adopt_and_embed,
        )
    )
    examination.look_for(
        Fault(
            name="media-without-pictures",
            of=counts.media,
            unit="media",
            sentence="Media without an s3Key: {count} of {of}",
            effect="Nobody can show the picture, or embed it again.",
            remedy=archived,
        )
    )
    examination.look_for(
        Fault(
            name="products-without-clients",
            of=counts.products,
            unit="products",
            sentence="Products without a client: {count} of {of}",
            effect="Every search asks for a client, so none finds them.",
            remedy=f"fill in the clientId where you know whose they are; {archived}",
        )
    )
    examination.look_for(
        Fault(
            name="repeated-skus",
            of=counts.products,
            unit="products",
            sentence="Products that share a SKU with another of their client: {count} of {of}",
            effect="Whoever looks a product up by its SKU gets any of them.",
            remedy=f"give each its own; {ADOPT} leaves it to the first, and records what the others had",
        )
    )


# --- indexes and the percentage --------------------------------------------------------------------------------------


def _check_indexes(examination: Examination, counts: _Counts) -> None:
    indexes = examination.rows(VectorIndex, "indexes", table="image_embeddings")
    adopt = f"{ADOPT}: searches are exact where a client is small, and each large client gets an index of its own"
    broken = [index.name for index in indexes if not index.valid]
    examination.add(
        Fault(
            name="broken-index",
            of=len(indexes),
            unit="vector indexes",
            sentence="Vector indexes that are incomplete: {count} of {of}",
            effect="PostgreSQL never uses them and still pays for them at every write: building one was interrupted.",
            remedy=f"DROP INDEX {', '.join(broken[:1])}; or {adopt}",
        ),
        broken,
    )
    examination.add(
        Fault(
            name="other-operator",
            of=len(indexes),
            unit="vector indexes",
            sentence="Vector indexes of another operator than the SQL's <#>: {count} of {of}",
            effect="An index serves one operator: <#> needs vector_ip_ops. These are never used, so each search reads "
            "every vector.",
            remedy=adopt,
        ),
        [f"{index.name} ({index.operators})" for index in indexes if not _serves_inner_product(index)],
    )
    examination.add(
        Fault(
            name="ivfflat-index",
            of=len(indexes),
            unit="vector indexes",
            sentence="Vector indexes of the kind ivfflat: {count} of {of}",
            effect="By default a search looks into one of its lists, and the lists are those of the day it was built: "
            "what was added since, or lies at a border, is not found.",
            remedy=adopt,
        ),
        [index.name for index in indexes if index.kind == "ivfflat"],
    )
    if counts.clients > 1:
        examination.add(
            Fault(
                name="shared-index",
                of=len(indexes),
                unit="vector indexes",
                sentence=f"A vector index that {counts.clients:,} clients share: {{count}} of {{of}}",
                effect="Where PostgreSQL uses it, it reads the 40 nearest vectors of all clients, and only then drops "
                "those of other clients: a client with 1 % of the pictures gets short lists, or none, and its best "
                "match may be missing.",
                remedy=adopt,
            ),
            [index.name for index in indexes if index.valid and not index.partial and _serves_inner_product(index)],
        )
    if not indexes:
        _check_size(examination, counts, adopt)


def _check_size(examination: Examination, counts: _Counts, adopt: str) -> None:
    """Whether there are too many vectors to do without an index."""
    if counts.vectors < _NEEDS_INDEX:
        examination.notes.append("There is no vector index. So few vectors need none, and results lose nothing by it.")
        return
    fault = Fault(
        name="no-index",
        of=counts.vectors,
        unit="vectors",
        sentence="There is no vector index, and there are {count} vectors",
        effect="Results are right, but each search reads every vector: about a second for a million.",
        remedy=adopt,
    )
    examination.findings.append(fault.finding(counts.vectors, []))


def _serves_inner_product(index: VectorIndex) -> bool:
    """Whether the index is of the operator <#>."""
    return index.operators.endswith("_ip_ops")


def _note_percentage(examination: Examination) -> None:
    for one in examination.rows(_Percentage, "percentage"):
        examination.notes.append(
            f"The older percentage, (1 + score) / 2 * 100, is upside down: score is a negative cosine. Here the "
            f"media {one.media_id} is compared with its own vector, the best match there can be: its score is "
            f"{one.score:.4f}, shown as {round(one.percentage, 1) + 0.0:.1f} %, where 100 % is right. Show "
            "(1 - score) / 2 * 100, of vectors of unit length, or the `similarity` that Twinlens answers with."
        )
