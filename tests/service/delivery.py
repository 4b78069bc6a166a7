"""A job's end, without any work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.record.artifacts import BUNDLE
from service.record.claims import Claim, publish_artifact, succeed_job
from service.record.database import Database, now
from service.record.models import Artifact


def deliver(
    jobs_dir: Path, database: Database, claim: Claim, content: bytes, result: Mapping[str, Any]
) -> None:
    """End a claimed job well, with this bundle and result."""
    relative = Path(str(claim.attempt)) / "model.tinyfit.zip"
    path = jobs_dir / claim.job_id / relative
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    bundle = Artifact(
        job_id=claim.job_id,
        kind=BUNDLE,
        path=str(relative),
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        detail={},
        attempt=claim.attempt,
        created_at=now(),
    )
    publish_artifact(database, claim, bundle)
    succeed_job(database, claim, dict(result))
