"""Garbage collection of the artifact store; service/record/files/blobs.py says why it is safe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update

from service.record.db.database import Database, now
from service.record.db.models import Artifact, Blob, Dataset, Installation
from service.record.files.blobs import OWNER_KEY, Blobs, installation_id

_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What has been removed, or would be."""

    num_blobs: int
    num_bytes: int
    num_orphans: int
    """Objects without a row, as killed processes leave them."""
    orphan_bytes: int


def collect(blobs: Blobs, *, grace_seconds: float, dry_run: bool = False) -> Collected:
    """Remove the blobs that nothing refers to and nobody has kept for grace_seconds, and the
    objects that are no blob's; where the store does not answer, the next time removes the rest.
    """
    blobs.check_owner()
    found = _listed(blobs, grace_seconds) if dry_run else _collected(blobs, grace_seconds)
    num_orphans = orphan_bytes = 0
    for sizes in _batches(blobs.objects.sizes()):
        orphans = _without_rows(blobs.database, sizes)
        num_orphans += len(orphans)
        orphan_bytes += sum(orphans.values())
        if not dry_run:
            blobs.objects.delete(orphans)
    if not dry_run:
        blobs.objects.remove_unfinished()
    return Collected(
        num_blobs=len(found),
        num_bytes=sum(found.values()),
        num_orphans=num_orphans,
        orphan_bytes=orphan_bytes,
    )


def discard(blobs: Blobs, sha256: str) -> None:
    """Remove a blob at once, should nothing refer to it; it has been superseded."""
    blobs.objects.delete(_delete_rows(blobs.database, _is_unused(), Blob.sha256 == sha256))


def is_collection_due(database: Database, every_seconds: float) -> bool:
    """Whether nobody has collected for so long; then the caller is to, and nobody else is."""
    installation_id(database)
    begun = (
        update(Installation)
        .where(
            or_(
                Installation.collected_at.is_(None),
                Installation.collected_at < now() - every_seconds,
            )
        )
        .values(collected_at=now())
        .returning(Installation.number)
        .execution_options(synchronize_session=False)
    )
    with database.writing() as session:
        return session.execute(begun).first() is not None


def _collected(blobs: Blobs, grace_seconds: float) -> dict[str, int]:
    """Collect blobs; their keys and bytes."""
    found: dict[str, int] = {}
    while some := _delete_rows(blobs.database, _is_garbage(grace_seconds)):
        blobs.objects.delete(some)
        found |= some
    return found


def _delete_rows(database: Database, *which: ColumnElement[bool]) -> dict[str, int]:
    """Of some blobs of which this is true: keys and bytes.

    Rows are locked first. Only then can nobody touch or refer to them any more, so the second
    statement, which sees all that was committed by then, decides.
    """
    candidates = select(Blob.sha256).where(*which).limit(_AT_ONCE)
    with database.writing() as session:
        locked = session.scalars(candidates.with_for_update(skip_locked=True)).all()
        deleted = session.execute(
            delete(Blob)
            .where(Blob.sha256.in_(locked), *which)
            .returning(Blob.key, Blob.num_bytes)
            .execution_options(synchronize_session=False)
        )
        return {row.key: row.num_bytes for row in deleted}


def _listed(blobs: Blobs, grace_seconds: float) -> dict[str, int]:
    with blobs.database.reading() as session:
        rows = session.execute(select(Blob.key, Blob.num_bytes).where(_is_garbage(grace_seconds)))
        return {row.key: row.num_bytes for row in rows}


def _is_garbage(grace_seconds: float) -> ColumnElement[bool]:
    return and_(Blob.touched_at <= now() - grace_seconds, _is_unused())


def _is_unused() -> ColumnElement[bool]:
    """That no row refers to the blob."""
    is_referred = [
        exists().where(table.blob_sha256 == Blob.sha256) for table in (Artifact, Dataset)
    ]
    return ~or_(*is_referred)


def _batches(sizes: Iterator[tuple[str, int]]) -> Iterator[dict[str, int]]:
    while some := dict(islice(sizes, _AT_ONCE)):
        some.pop(OWNER_KEY, None)
        yield some


def _without_rows(database: Database, sizes: dict[str, int]) -> dict[str, int]:
    """Of objects that were listed before: those that are no blob's, now and for good."""
    with database.reading() as session:
        known = set(session.scalars(select(Blob.key).where(Blob.key.in_(sizes))))
    return {key: num_bytes for key, num_bytes in sizes.items() if key not in known}
