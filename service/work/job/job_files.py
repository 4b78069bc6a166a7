"""A job's files: what its attempts have published in the artifact store, and how one gets and
adds to it. What lies in an attempt's own folder is scratch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import BlobError, BlobGoneError
from service.record.claims import Claim, publish_artifact, publish_resumable
from service.record.db.database import Database, now
from service.record.db.models import Artifact
from service.record.files.artifacts import RESUMABLE, Workplace, artifact_path
from service.record.files.blobs import Blobs
from service.record.files.collecting import discard
from service.record.jobs import list_artifacts
from service.settings import Settings

logger = logging.getLogger(__name__)

REMOTE_SECONDS = 30.0
"""A store elsewhere gets an unfinished stage's file at most so often."""


@dataclass(kw_only=True)
class JobFiles:
    """The files of a job, for one attempt at it."""

    settings: Settings
    database: Database
    claim: Claim
    workplace: Workplace
    blobs: Blobs
    _damaged: set[str] = field(default_factory=set)
    """Blobs that could not be read: they are stored again."""
    _published: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Of each resumable file: its inode and time of change, and when that was published."""

    def found(self, kind: str, *, key: str | None = None) -> Path | None:
        """What a finished stage has left, where there is anything, of this key."""
        for artifact in self._listed():
            if artifact.kind == kind and artifact.key == key:
                return self.take(artifact)
        return None

    def found_folder(self, kind: str) -> Path | None:
        """As `found`, of a stage that leaves a folder."""
        parts = [a for a in self._listed() if a.kind == kind or a.kind.startswith(f"{kind}/")]
        taken = [self.take(artifact) for artifact in parts]
        if not taken or None in taken:
            return None
        is_old = parts[0].kind == kind
        return taken[0] if is_old else self.workplace.path(kind)

    def take(self, artifact: Artifact) -> Path | None:
        """A finished file, of this job or of another, in this attempt's folder, to be read only;
        None where it has gone or is damaged."""
        if artifact.blob_sha256 is None:
            return self._take_old(artifact)
        path = self.workplace.path(artifact.path)
        try:
            self.blobs.fetch(artifact.blob_sha256, path)
        except BlobError as error:
            logger.warning("%s of job %s: %s", artifact.kind, artifact.job_id, error)
            self._damaged.add(artifact.blob_sha256)
            return None
        return path

    def publish(self, kind: str, path: Path, *, detail: Any = None) -> Artifact:
        """Make a file of this attempt what a finished stage has left."""
        (artifact,) = self._publish({kind: path}, detail)
        return artifact

    def publish_folder(self, kind: str, directory: Path) -> None:
        """As `publish`, with every file in a folder, all or none."""
        self._publish({f"{kind}/{path.name}": path for path in directory.iterdir()}, None)

    def keep(
        self,
        kind: str,
        path: Path,
        publish: Callable[[Artifact], None],
        *,
        key: str | None = None,
    ) -> None:
        """Store a file and publish its row; once more where it was collected in between."""
        while True:
            artifact = self._stored(kind, path, key=key)
            with suppress(BlobGoneError):
                return publish(artifact)

    def publish_resumable(self, name: str, *, is_last: bool = False) -> None:
        """Let other attempts, on whatever machine, go on from the file as it is now, if that is
        new; to a store elsewhere not too often, but for the last time."""
        path = self.workplace.directory / name
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        inode, changed, published_at = self._published.get(name, (0, 0, float("-inf")))
        if (status.st_ino, status.st_mtime_ns) == (inode, changed):
            return
        is_local = self.blobs.objects.is_local
        if not (is_local or is_last) and time.monotonic() - published_at < REMOTE_SECONDS:
            return

        def publish(artifact: Artifact) -> None:
            superseded = publish_resumable(self.database, self.claim, artifact)
            if superseded is not None:  # long jobs must not fill the store until it is collected
                discard(self.blobs, superseded)

        self.keep(name, path, publish)
        self._published[name] = (status.st_ino, status.st_mtime_ns, time.monotonic())

    def restore(self) -> None:
        """Lay what other machines' attempts have left half done in this attempt's folder, for
        `Workplace.resumable`."""
        for artifact in self._listed():
            if artifact.kind not in RESUMABLE or artifact.blob_sha256 is None:
                continue
            if self.workplace.latest(artifact.kind) < artifact.attempt < self.claim.attempt:
                try:
                    self.blobs.fetch(artifact.blob_sha256, self.workplace.path(artifact.kind))
                except BlobError as error:  # the stage begins anew
                    logger.warning("%s of job %s: %s", artifact.kind, artifact.job_id, error)
                    self._damaged.add(artifact.blob_sha256)

    def _listed(self) -> list[Artifact]:
        return list_artifacts(self.database, self.claim.job_id)

    def _take_old(self, artifact: Artifact) -> Path | None:
        """Of an earlier version, which left files in jobs' folders."""
        source = artifact_path(self.settings, artifact)
        if source.is_dir():
            return source
        try:
            return self.workplace.adopt(source, source.name)
        except FileNotFoundError:
            return None

    def _publish(self, files: Mapping[str, Path], detail: Any) -> Iterable[Artifact]:
        while True:
            artifacts = [self._stored(kind, path, detail=detail) for kind, path in files.items()]
            with suppress(BlobGoneError):
                publish_artifact(self.database, self.claim, *artifacts)
                return artifacts

    def _stored(
        self, kind: str, path: Path, *, key: str | None = None, detail: Any = None
    ) -> Artifact:
        """The row of a file that is in the store now, not yet published."""
        num_bytes = path.stat().st_size
        sha256 = self.blobs.keep(path, damaged=self._damaged)
        return Artifact(
            job_id=self.claim.job_id,
            kind=kind,
            path=path.relative_to(self.workplace.directory).as_posix(),
            blob_sha256=sha256,
            key=key,
            num_bytes=num_bytes,
            sha256=sha256,
            detail=detail or {},
            attempt=self.claim.attempt,
            created_at=now(),
        )
