"""The examination of a Twinlens database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.artifact.artifact import short_id
from server.catalogue.indexes import INDEX_THRESHOLD, Indexes
from server.catalogue.rows import SpaceRow
from server.database.isolation import find
from server.database.migrations import load_migrations
from server.doctor.comparison import StoredVector
from server.doctor.examination import Examination, Fault, VectorIndex
from server.doctor.report import Report
from server.preprocessing.readings import READING
from server.wording import counted

# The migrations that made the columns and tables for readings, row-level security, and the queue of pending pictures.
_READINGS, _ROWS, _PENDING = 5, 8, 16


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
    examination.check_server()
    applied = _check_migrations(examination)
    if _ROWS in applied:
        _check_isolation(examination)
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
        Fault(
            name="missing-media",
            of=counts.images,
            unit="images",
            sentence="Images without a vector in the live space: {count} of {of}",
            effect="No search finds them.",
            remedy="a server that runs embeds them by itself; python -m server reembed --artifact with the live "
            "space's artifact does it, too, and says which pictures cannot be read",
        )
    )
    if _PENDING in applied:
        _check_pending(examination)
    _check_indexes(examination, space)
    to_look_at = _check_readings(examination, space, vectors) if _READINGS in applied else vectors
    sample = examination.stored_vectors("sample_space")
    if given.id == live.id:
        _check_pictures(examination, sample, to_look_at)
    return examination.report("twinlens", f"{looked_at}, {vectors:,} vectors in the live space {short_id(live.id)}.")


def _check_migrations(examination: Examination) -> set[int]:
    """Whether any is left to apply; gives the numbers of those that were applied."""
    applied = {*examination.values("applied")}
    pending = [one.name for one in load_migrations() if one.number not in applied]
    examination.add(
        Fault(
            name="pending-migrations",
            of=len(pending) + len(applied),
            unit="migrations",
            sentence="Migrations that were not applied: {count} of {of}",
            effect="This version of Twinlens does not run on the database as it is.",
            remedy="python -m server migrate, which serve does by itself",
        ),
        pending,
    )
    return applied


def _check_isolation(examination: Examination) -> None:
    """Whether row-level security keeps clients apart beneath the predicates."""
    settings = examination.settings
    found = find(settings.serving_url or examination.url)
    if found.role is not None:
        examination.notes.append(found.sentence)
        return
    examination.add(
        Fault(
            name="predicates-alone",
            of=1,
            unit="databases",
            sentence=found.sentence.removesuffix("."),
            effect="None, as long as every statement names its client. Should one ever forget to, nothing in the "
            "database would keep it from the rows of others.",
            remedy=" ".join(
                ["let an administrator of the database run", *found.statements, "and then start the servers again"]
                if found.statements
                else ["python -m server migrate, which serve does by itself"]
            ),
        ),
        [found.login],
    )


def _check_pending(examination: Examination) -> None:
    """What another system has written: what waits for a worker, and what a worker could not embed."""
    waiting, examples = examination.count("pending_media")
    if waiting:
        examination.notes.append(
            f"Pictures that another system has written, and that are not embedded yet: {waiting:,} (for example "
            f"{', '.join(examples)}). A worker embeds them: python -m server worker"
        )
    failed, examples = examination.count("failed_media")
    examination.add(
        Fault(
            name="failed-media",
            of=failed + waiting,
            unit="images",
            sentence="Images of another system that a worker has set aside, since it could not embed them: {count}",
            effect="No search finds them.",
            remedy="python -m server worker --status says why; once they are mended, python -m server worker "
            "--retry-failed has them tried again",
        ),
        examples,
        failed,
    )


def _check_readings(examination: Examination, space: SpaceRow, vectors: int) -> int:
    """What earlier versions of the readers have read, and what is blank; how many media are still to be looked at."""
    of_space = {"number": space.number, "reading": READING}
    to_look_at, examples = examination.count("earlier_readings", **of_space)
    examination.add(
        Fault(
            name="earlier-readings",
            of=vectors,
            unit="images",
            sentence="Images that an earlier version has read, and nobody has looked at since: {count} of {of}",
            effect="Some kinds of files were misread before: such a picture has the vector of other pixels, and does "
            "not find itself.",
            remedy="let a server run: it looks at each once, and embeds again what was misread",
        ),
        examples,
        to_look_at,
    )
    examination.look_for(
        Fault(
            name="unread-media",
            of=vectors,
            unit="images",
            sentence="Images that an earlier version has read, and that cannot be read again: {count} of {of}",
            effect="They keep the vectors that they have, which may be of misread pixels.",
            remedy="the table twinlens_unread says why, for each: bring lost bytes back from a backup, and a server "
            "that runs tries again; or delete these media and add their pictures anew",
        ),
        **of_space,
    )
    blank, examples = examination.count("blank_media")
    if blank:
        examination.notes.append(
            f"Blank pictures, which show nothing but one colour: {blank:,} of {vectors:,} (for example "
            f"{', '.join(examples)}). They are never called identical, nor duplicates. Where a product should have a "
            "picture, add one and delete the blank one."
        )
    return to_look_at


def _find_live_space(examination: Examination) -> _Space | None:
    """The space that searches use; a note is made of each other one."""
    live = None
    for space in examination.rows(_Space, "spaces"):
        if space.live:
            live = space
        elif space.retired:
            examination.notes.append(
                f"Space {space.number} ({short_id(space.id)}) is no longer live. It is kept as the way back, and needs "
                "room: python -m server spaces lists it, and drops it."
            )
        else:
            examination.notes.append(
                f"Space {space.number} ({short_id(space.id)}) is being filled: python -m server reembed goes on with "
                "it."
            )
    return live


def _check_for_images_without_a_space(examination: Examination, counts: _Counts) -> None:
    fault = Fault(
        name="no-live-space",
        of=counts.images,
        unit="images",
        sentence="No embedding space is live, and there are {count} images",
        effect="Nothing can be found yet.",
        remedy=f"{examination.reembed}; or serve, which makes its artifact's space the live one and fills it",
    )
    if counts.images:
        examination.findings.append(fault.finding(counts.images, []))


def _check_artifact(examination: Examination, given: str, live: _Space) -> None:
    """Whether `given`, the id of the artifact's space, is that of the live space."""
    settings, artifact = examination.settings, examination.artifact
    if given == live.id and not Path(live.artifact_path).is_dir():
        examination.notes.append(
            f"The live space's artifact was last seen in {live.artifact_path}; on this machine it is not there."
        )
    examination.add(
        Fault(
            name="other-artifact",
            of=1,
            unit="artifacts",
            sentence=f"The artifact {artifact.manifest.name} ({settings.precision}) makes vectors of the space "
            f"{short_id(given)}; the live one is {short_id(live.id)}",
            effect="A server with this artifact does not start on this database.",
            remedy=f"set TWINLENS_MODEL to the live space's artifact ({live.artifact_path}), or change to this one: "
            f"{examination.reembed}",
        ),
        [str(settings.model)] if given != live.id else [],
    )


def _check_indexes(examination: Examination, space: SpaceRow) -> None:
    indexes = examination.rows(VectorIndex, "indexes", table=space.table)
    examination.add(
        Fault(
            name="broken-index",
            of=len(indexes),
            unit="vector indexes",
            sentence="Vector indexes that are incomplete: {count} of {of}",
            effect="Searches do without them: results are right, and slower. Every write still pays for them.",
            remedy="let a server run: within minutes it drops what an interrupted build has left, and builds the index "
            "again",
        ),
        [index.name for index in indexes if not index.valid],
    )
    clients = examination.values("large_clients", threshold=INDEX_THRESHOLD)
    names = {index.name for index in indexes if index.valid}
    own = Indexes(space)
    examination.add(
        Fault(
            name="no-index",
            of=len(clients),
            unit="large clients",
            sentence=f"Clients with {INDEX_THRESHOLD:,} images and more without an index of their own: "
            "{count} of {of}",
            effect="Their searches are exact, and take longer.",
            remedy="let a server run: it builds them within minutes, and its log says why if it cannot",
        ),
        [client for client in clients if own.name_of(client) not in names],
    )


def _check_pictures(examination: Examination, sample: list[StoredVector], to_look_at: int) -> None:
    """Whether the pictures can be read, and the vectors are what the artifact makes of them.

    `to_look_at`: how many pictures an earlier version has read, and nobody has looked at since.
    """
    comparison = examination.compare_with_pictures(sample)
    lost = sorted(comparison.absent + comparison.unreadable)
    examination.add(
        Fault(
            name="lost-pictures",
            of=len(comparison.cosines) + len(lost),
            unit="sampled media",
            sentence="Media whose picture is not at hand, or cannot be read: {count} of {of} sampled",
            effect="Searches find them, but cannot show their picture; with the next model they will be lost.",
            remedy="set TWINLENS_MEDIA_URL to where the pictures lie, or bring them back from a backup",
        ),
        lost,
    )
    if not comparison.cosines:
        return
    compared, disagreeing = len(comparison.cosines), comparison.disagreeing
    if not disagreeing:
        examination.notes.append(
            f"Of {counted(compared, 'picture')} embedded again, each agrees with its vector ({comparison.agreement})."
        )
    examination.add(
        Fault(
            name="disagreeing-vectors",
            of=compared,
            unit="sampled pictures",
            sentence="Vectors that are not what the artifact makes of the picture: {count} of {of} compared "
            f"({comparison.agreement})",
            effect="A picture that is searched for does not find itself.",
            remedy="let a server run until nothing that an earlier version has read is left, and ask again; what then "
            "still disagrees was made of other bytes: delete these media and add their pictures again"
            if to_look_at
            else "delete these media and add their pictures again: the bytes in the store are not those that were "
            "embedded",
        ),
        disagreeing,
    )
