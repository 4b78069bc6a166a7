"""Where attempts at a job work: each in a folder of its own. What they finish goes from there to
the artifact store, and rows publish it (service/work/job/job_files.py)."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.record.db.models import Artifact
from service.settings import Settings

BUNDLE = "bundle"
ADAPTED = "adapted"
"""Of a supernet adapted to a dataset: other jobs over it can use it, too."""
ONNX = "onnx"
"""The bundle's network for other programs, as a zip."""
EVALUATION = "evaluation"
"""How well the bundle's network tells each class, as JSON."""
DEVICE_PROGRAM = "device_program"
"""What the device trainer runs, of the bundle's network."""
KEPT = (BUNDLE, ADAPTED, ONNX, EVALUATION, DEVICE_PROGRAM)
"""What a job keeps once it has succeeded."""

ADAPTING = "adapting.3.safetensors"
"""With the version of its content: what an earlier one left can't be gone on from."""
TRAINING = ("tinytl.safetensors",)
RESUMABLE = (ADAPTING, *TRAINING)
"""Files of an unfinished stage, from which another attempt can go on."""


def artifact_path(settings: Settings, artifact: Artifact) -> Path:
    """Where the file of an artifact without a blob lies, as an earlier version left it."""
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
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # the job's folder, just made, was tidied away as empty
            self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / name

    def resumable(self, name: str) -> Path:
        """A file of this attempt that begins as the latest earlier attempt left it.

        Earlier copies are removed: an attempt that still writes to one is not the job's any more.
        """
        assert name in RESUMABLE
        path = self.path(name)
        if not path.exists():
            for attempt in self._earlier_attempts():
                earlier = self.job_dir / str(attempt) / name
                if earlier.is_file():
                    _copy_whole(earlier, path)
                    break
        if path.exists():
            self._forget(name, self._earlier_attempts())
        return path

    def adopt(self, source: Path, name: str) -> Path:
        """A finished file of another job as a file of this attempt: the same one on the disk,
        where that can be. Raises FileNotFoundError where it has gone.
        """
        path = self.path(name)
        path.unlink(missing_ok=True)
        try:
            os.link(source, path)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links, or another one
            _copy_whole(source, path)
        return path

    def forget(self, name: str) -> None:
        """Remove a resumable file, now that what it was for is finished."""
        self._forget(name, [*self._earlier_attempts(), self.attempt])

    def latest(self, name: str) -> int:
        """The latest attempt that has left such a file here; 0 where none has."""
        numbers = attempts_in(self.job_dir)
        return next((n for n in numbers if (self.job_dir / str(n) / name).is_file()), 0)

    def _forget(self, name: str, attempts: list[int]) -> None:
        for attempt in attempts:
            (self.job_dir / str(attempt) / name).unlink(missing_ok=True)

    def _earlier_attempts(self) -> list[int]:
        """Latest first."""
        return [number for number in attempts_in(self.job_dir) if number < self.attempt]


def attempts_in(job_dir: Path) -> list[int]:
    """The attempts that have a folder, latest first."""
    try:
        names = [path.name for path in job_dir.iterdir() if path.name.isdigit()]
    except FileNotFoundError:
        return []
    return sorted(map(int, names), reverse=True)


def remove_leftovers(settings: Settings, job_id: str) -> None:
    """Remove all files of a job."""
    remove(settings.jobs_dir / job_id)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; another may be at it as well."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _copy_whole(source: Path, target: Path) -> None:
    """target appears complete and on disk, or not at all."""
    partial = target.with_name(f"{target.name}.copy")
    shutil.copyfile(source, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
