"""A job's end, without any work."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.record.artifacts import BUNDLE
from service.record.blobs import open_blobs
from service.record.claims import Claim, publish_artifact, succeed_job
from service.record.database import Database, now
from service.record.models import Artifact
from service.settings import Settings


def deliver(
    settings: Settings, database: Database, claim: Claim, content: bytes, result: Mapping[str, Any]
) -> None:
    """End a claimed job well, with this bundle and result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tinyfit.zip"
        path.write_bytes(content)
        sha256 = open_blobs(settings, database).keep(path)
    bundle = Artifact(
        job_id=claim.job_id,
        kind=BUNDLE,
        path="model.tinyfit.zip",
        blob_sha256=sha256,
        num_bytes=len(content),
        sha256=sha256,
        detail={},
        attempt=claim.attempt,
        created_at=now(),
    )
    publish_artifact(database, claim, bundle)
    succeed_job(database, claim, dict(result))
