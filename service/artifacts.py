"""Where a job's files lie: each attempt writes to a folder of its own, rows publish them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.models import Artifact
from service.settings import Settings

BUNDLE = "bundle"


def artifact_path(settings: Settings, artifact: Artifact) -> Path:
    return settings.jobs_dir / artifact.job_id / artifact.path


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The folder of one attempt. What earlier attempts left half done is copied, not shared."""

    job_dir: Path
    attempt: int

    @property
    def directory(self) -> Path:
        return self.job_dir / str(self.attempt)

    def path(self, name: str) -> Path:
        """A file of this attempt."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / name

    def resumable(self, name: str) -> Path:
        """A file of this attempt that begins as the latest earlier attempt left it."""
        path = self.path(name)
        if path.exists():
            return path
        for attempt in sorted(self._other_attempts(), reverse=True):
            earlier = self.job_dir / str(attempt) / name
            if earlier.is_file():
                partial = path.with_name(f"{name}.copy")
                shutil.copyfile(earlier, partial)
                os.replace(partial, path)
                break
        return path

    def relative(self, path: Path) -> str:
        return path.relative_to(self.job_dir).as_posix()

    def _other_attempts(self) -> list[int]:
        if not self.job_dir.is_dir():
            return []
        names = [path.name for path in self.job_dir.iterdir() if path.name.isdigit()]
        return [int(name) for name in names if int(name) < self.attempt]


def remove_leftovers(settings: Settings, job_id: str, *, keep: Artifact | None = None) -> None:
    """Remove the files of a job that has ended, all but the artifact to keep."""
    job_dir = settings.jobs_dir / job_id
    kept = artifact_path(settings, keep) if keep is not None else None
    for path in sorted(job_dir.rglob("*"), reverse=True):
        if path == kept:
            continue
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            with suppress(OSError):  # it holds what is kept
                path.rmdir()
    with suppress(OSError):
        job_dir.rmdir()


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    return path.stat().st_size
