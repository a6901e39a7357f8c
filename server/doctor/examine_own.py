"""The examination of a Twinlens database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.catalogue.indexes import INDEX_THRESHOLD, Indexes
from server.catalogue.rows import SpaceRow
from server.database.migrations import load_migrations
from server.doctor.comparison import StoredVector
from server.doctor.examination import Check, Examination, VectorIndex, first
from server.doctor.report import Finding, Report
from server.wording import counted


@dataclass(frozen=True)
class _Counts:
    """How much the catalogue holds; `images` are ready."""

    products: int
    clients: int
    images: int


@dataclass(frozen=True)
class _Space:
    """An embedding space of the database. `retired`: it was live once, and is kept as the way back."""

    number: int
    id: str
    dimensions: int
    artifact_path: str
    live: bool
    retired: bool


def examine_own(examination: Examination) -> Report:
    """Look at a Twinlens database. Raises ArtifactInvalid, EncoderFailed."""
    (counts,) = examination.rows(_Counts, "count_twinlens")
    looked_at = (
        f"A Twinlens database: {counts.products:,} products of {counted(counts.clients, 'client')}, "
        f"{counts.images:,} images"
    )
    examination.check_pgvector()
    _check_migrations(examination)
    given = examination.artifact.space(examination.settings.precision)
    live = _find_live_space(examination)
    if live is None:
        _check_for_images_without_a_space(examination, counts)
        return examination.report("twinlens", f"{looked_at}.")
    space = SpaceRow(live.number, live.id, live.dimensions, "", live=True)
    examination.space = space
    _check_artifact(examination, given.id, live)
    (vectors,) = examination.values("count_vectors")
    examination.look_for(
        Check(
            name="missing_media",
            of=counts.images,
            unit="images",
            sentence="Images without a vector in the live space: {count} of {of}",
            effect="No search finds them.",
            remedy="a server that runs embeds them by itself; python -m server reembed --artifact with the live "
            "space's artifact does it, too, and says which pictures cannot be read",
        )
    )
    _check_indexes(examination, space)
    sample = examination.stored_vectors("sample_space")
    if given.id == live.id:
        _check_pictures(examination, sample)
    return examination.report("twinlens", f"{looked_at}, {vectors:,} vectors in the live space {live.id[:12]}.")


def _check_migrations(examination: Examination) -> None:
    applied = {*examination.values("applied")}
    if pending := [one.name for one in load_migrations() if one.number not in applied]:
        of = len(pending) + len(applied)
        examination.findings.append(
            Finding(
                name="pending-migrations",
                sentence=f"Migrations that were not applied: {len(pending):,} of {of:,}",
                count=len(pending),
                of=of,
                unit="migrations",
                examples=first(pending),
                effect="This version of Twinlens does not run on the database as it is.",
                remedy="python -m server migrate, which serve does by itself",
            )
        )


def _find_live_space(examination: Examination) -> _Space | None:
    """The space that searches use; a note is made of each other one."""
    live = None
    for space in examination.rows(_Space, "spaces"):
        if space.live:
            live = space
        elif space.retired:
            examination.notes.append(
                f"Space {space.number} ({space.id[:12]}) is no longer live. It is kept as the way back, and needs "
                "room: python -m server spaces lists it, and drops it."
            )
        else:
            examination.notes.append(
                f"Space {space.number} ({space.id[:12]}) is being filled: python -m server reembed goes on with it."
            )
    return live


def _check_for_images_without_a_space(examination: Examination, counts: _Counts) -> None:
    if counts.images:
        examination.findings.append(
            Finding(
                name="no-live-space",
                sentence=f"No embedding space is live, and there are {counts.images:,} images",
                count=counts.images,
                of=counts.images,
                unit="images",
                examples=[],
                effect="Nothing can be found yet.",
                remedy=f"{examination.reembed}; or serve, which makes its artifact's space the live one and fills it",
            )
        )


def _check_artifact(examination: Examination, given: str, live: _Space) -> None:
    """Whether `given`, the id of the artifact's space, is that of the live space."""
    settings, artifact = examination.settings, examination.artifact
    if given != live.id:
        examination.findings.append(
            Finding(
                name="other-artifact",
                sentence=f"The artifact {artifact.manifest.name} ({settings.precision}) makes vectors of the space "
                f"{given[:12]}; the live one is {live.id[:12]}",
                count=1,
                of=1,
                unit="artifacts",
                examples=[str(settings.model)],
                effect="A server with this artifact does not start on this database.",
                remedy=f"set TWINLENS_MODEL to the live space's artifact ({live.artifact_path}), or change to this "
                f"one: {examination.reembed}",
            )
        )
    elif not Path(live.artifact_path).is_dir():
        examination.notes.append(
            f"The live space's artifact was last seen in {live.artifact_path}; on this machine it is not there."
        )


def _check_indexes(examination: Examination, space: SpaceRow) -> None:
    indexes = examination.rows(VectorIndex, "indexes", table=space.table)
    if broken := [index.name for index in indexes if not index.valid]:
        examination.findings.append(
            Finding(
                name="broken-index",
                sentence=f"Vector indexes that are incomplete: {len(broken):,} of {len(indexes):,}",
                count=len(broken),
                of=len(indexes),
                unit="vector indexes",
                examples=first(broken),
                effect="Searches do without them: results are right, and slower. Every write still pays for them.",
                remedy="let a server run: within minutes it drops what an interrupted build has left, and builds the "
                "index again",
            )
        )
    clients = examination.values("large_clients", threshold=INDEX_THRESHOLD)
    names = {index.name for index in indexes if index.valid}
    own = Indexes(space)
    if without := [client for client in clients if own.name_of(client) not in names]:
        examination.findings.append(
            Finding(
                name="no-index",
                sentence=f"Clients with {INDEX_THRESHOLD:,} images and more without an index of their own: "
                f"{len(without):,} of {len(clients):,}",
                count=len(without),
                of=len(clients),
                unit="large clients",
                examples=first(without),
                effect="Their searches are exact, and take longer.",
                remedy="let a server run: it builds them within minutes, and its log says why if it cannot",
            )
        )


def _check_pictures(examination: Examination, sample: list[StoredVector]) -> None:
    comparison = examination.compare_with_pictures(sample)
    tried = len(comparison.cosines) + len(comparison.absent) + len(comparison.unreadable)
    if lost := sorted(comparison.absent + comparison.unreadable):
        examination.findings.append(
            Finding(
                name="lost-pictures",
                sentence=f"Media whose picture is not at hand, or cannot be read: {len(lost):,} of {tried:,} sampled",
                count=len(lost),
                of=tried,
                unit="sampled media",
                examples=first(lost),
                effect="Searches find them, but cannot show their picture; with the next model they will be lost.",
                remedy="set TWINLENS_MEDIA_URL to where the pictures lie, or bring them back from a backup",
            )
        )
    if not comparison.cosines:
        return
    of = len(comparison.cosines)
    if wrong := comparison.disagreeing:
        examination.findings.append(
            Finding(
                name="disagreeing-vectors",
                sentence="Vectors that are not what the artifact makes of the picture: "
                f"{len(wrong):,} of {of:,} compared ({comparison.agreement})",
                count=len(wrong),
                of=of,
                unit="sampled pictures",
                examples=first(wrong),
                effect="A picture that is searched for does not find itself.",
                remedy="delete these media and add their pictures again: the bytes in the store are not those that "
                "were embedded",
            )
        )
    else:
        examination.notes.append(
            f"Of {counted(of, 'picture')} embedded again, each agrees with its vector ({comparison.agreement})."
        )
