"""Artifact stores to run a test over: `artifact_url`, parametrized indirectly by STORES."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.own_s3 import S3Server, own_s3

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
