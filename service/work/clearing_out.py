"""What workers put in order for the whole installation: jobs past their time, datasets that an
earlier version has reported, and garbage in the artifact store."""

from __future__ import annotations

import logging

from service.datasets.reporting_anew import report_anew
from service.record.db.database import Database
from service.record.files.artifacts import remove_leftovers
from service.record.files.blobs import open_blobs
from service.record.files.collecting import collect, is_collection_due
from service.record.jobs import delete_expired_jobs
from service.settings import Settings
from tinytl.units import format_bytes

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 3600.0
_DAY_SECONDS = 24 * 3600.0


def clear_out(settings: Settings, database: Database) -> None:
    """Delete jobs past their retention and collect garbage, unless a worker has within the last
    hour."""
    if not is_collection_due(database, _EVERY_SECONDS):
        return
    if settings.retention_days is not None:
        expired = delete_expired_jobs(
            database, older_than_seconds=settings.retention_days * _DAY_SECONDS
        )
        for job_id in expired:
            logger.info("job %s is deleted: it ended long ago", job_id)
            remove_leftovers(settings, job_id)
    if num_reported := report_anew(settings, database):
        logger.info("%d datasets of an earlier version are reported anew", num_reported)
    blobs = open_blobs(settings, database)
    found = collect(blobs, grace_seconds=settings.artifact_grace_seconds)
    if found.num_blobs or found.num_orphans:
        logger.info(
            "%d blobs that nothing used were removed, %s, and %d objects of no blob, %s",
            *(found.num_blobs, format_bytes(found.num_bytes)),
            *(found.num_orphans, format_bytes(found.orphan_bytes)),
        )
