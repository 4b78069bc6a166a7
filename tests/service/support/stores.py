"""Artifact stores to run a test over: `artifact_url`, parametrized indirectly by STORES."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.record.db.database import Database
from service.record.db.models import Artifact, Blob, Dataset
from service.record.files.blobs import OWNER_KEY, open_blobs
from service.record.jobs import get_artifact
from service.settings import Settings
from tests.service.support.own_s3 import S3Server, own_s3

STORES = ("folder", "memory", "s3")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with own_s3() as server:
        yield server


@pytest.fixture
def artifact_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """A store of the test's own; None, the default, is the data folder's."""
    kind = getattr(request, "param", None)
    if kind == "folder":
        return f"file://{tmp_path / 'store'}"
    if kind == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return f"{server.url}/{uuid.uuid4().hex}"
    return None


def stored_path(settings: Settings, database: Database, job_id: str, kind: str) -> Path:
    """The object of a job's artifact, in a folder."""
    artifact = get_artifact(database, job_id, kind)
    assert artifact is not None
    assert artifact.blob_sha256 is not None
    blobs = open_blobs(settings, database)
    path = blobs.path(blobs.find(artifact.blob_sha256))
    assert path is not None
    return path


JOB_KINDS = ["adapted", "bundle", "dataset", "device_program", "evaluation", "onnx"]
"""What stored_kinds gives once a job has succeeded."""


def stored_kinds(settings: Settings, database: Database) -> list[str]:
    """Of what each object is, in order: the artifact's kind, or "dataset"; "garbage" of what
    nothing refers to."""
    blobs = open_blobs(settings, database)
    with database.reading() as session:
        keys = {blob.key: blob.sha256 for blob in session.scalars(select(Blob))}
        names = {a.blob_sha256: a.kind for a in session.scalars(select(Artifact))}
        names |= {d.blob_sha256: "dataset" for d in session.scalars(select(Dataset))}
    found = [key for key, _ in blobs.objects.sizes() if key != OWNER_KEY]
    return sorted(names.get(keys.get(key, ""), "garbage") for key in found)
