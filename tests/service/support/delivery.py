"""A job's end, without any work."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.record.claims import Claim, publish_artifact, succeed_job
from service.record.db.database import Database, now
from service.record.db.models import Artifact
from service.record.files.artifacts import BUNDLE
from service.record.files.blobs import open_blobs
from service.settings import Settings


def deliver(
    settings: Settings,
    database: Database,
    claim: Claim,
    content: bytes,
    result: Mapping[str, Any],
    **more: bytes,
) -> None:
    """End a claimed job well, with this bundle and result; more: its other artifacts, by kind."""
    for kind, held in {BUNDLE: content, **more}.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / kind
            path.write_bytes(held)
            sha256 = open_blobs(settings, database).keep(path)
        artifact = Artifact(
            job_id=claim.job_id,
            kind=kind,
            path=kind,
            blob_sha256=sha256,
            num_bytes=len(held),
            sha256=sha256,
            detail={},
            attempt=claim.attempt,
            created_at=now(),
        )
        publish_artifact(database, claim, artifact)
    succeed_job(database, claim, dict(result))
