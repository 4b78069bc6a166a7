"""What the service's tests share: settings in a temporary folder, a database, small datasets.

`database` and `settings` are over SQLite. A test or module runs over PostgreSQL too where it says

    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

The PostgreSQL is the server at TINYFIT_TEST_POSTGRESQL_URL. Where none answers, these tests are
skipped.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest
from service.contract.status import Priority
from service.record.claims import Claim, claim_job
from service.record.db.database import Database, now
from service.record.db.engines import open_engine
from service.record.db.models import Base, Dataset, Job
from service.record.files.blobs import Blobs, open_blobs
from service.record.jobs import create_job
from service.settings import Settings
from tests.service.support.stores import artifact_url as artifact_url
from tests.service.support.stores import s3_server as s3_server

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]

POSTGRESQL_URL = os.environ.get(
    "TINYFIT_TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1/postgres"
)


@contextmanager
def new_postgresql_database() -> Iterator[str]:
    """The URL of an empty database of the test server, which is dropped at the end."""
    engine = open_engine(POSTGRESQL_URL, patience_seconds=0)
    name = f"tinyfit_test_{os.urandom(6).hex()}"
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    try:
        with autocommit.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    except OperationalError as error:
        engine.dispose()
        pytest.skip(f"no PostgreSQL to test with ({error.orig})")
    try:
        yield make_url(POSTGRESQL_URL).set(database=name).render_as_string(hide_password=False)
    finally:
        with autocommit.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database without rows, for tests to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "tinyfit.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgresql() -> Iterator[Database]:
    """A PostgreSQL database for all tests, which leave it without rows."""
    with new_postgresql_database() as url:
        database = Database(url)
        database.upgrade()
        yield database
        database.close()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """What the settings say; None is the usual SQLite file. Parametrized indirectly, see above."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    shared: Database = request.getfixturevalue("migrated_postgresql")
    yield shared.engine.url.render_as_string(hide_password=False)
    with shared.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the test's own, without tables. Parametrized indirectly."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with new_postgresql_database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, database_url: str | None, artifact_url: str | None) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        artifact_url=artifact_url,
        lease_seconds=3.0,
        poll_seconds=0.1,
    )


@pytest.fixture
def blobs(settings: Settings, database: Database) -> Blobs:
    return open_blobs(settings, database)


@pytest.fixture
def database(settings: Settings, migrated_sqlite: Path) -> Iterator[Database]:
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(migrated_sqlite, settings.data_dir / "tinyfit.db")
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


def draw(shape: str, generator: random.Random, size: int = 32) -> bytes:
    """A PNG of a coloured shape on a noisy ground."""
    image = Image.new("RGB", (size, size), tuple(generator.randrange(60) for _ in range(3)))
    canvas = ImageDraw.Draw(image)
    left, top = generator.randrange(size // 4), generator.randrange(size // 4)
    box = (left, top, left + size // 2, top + size // 2)
    colour = {"circle": (220, 40, 40), "square": (40, 220, 40), "line": (60, 60, 230)}[shape]
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif shape == "square":
        canvas.rectangle(box, fill=colour)
    else:
        canvas.line(box, fill=colour, width=3)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def shapes(*, prefix: str = "", per_class: int = 6, seed: int = 0) -> Files:
    generator = random.Random(seed)
    return {
        f"{prefix}{shape}/{number}.png": draw(shape, generator)
        for shape in ("circle", "square")
        for number in range(per_class)
    }


@pytest.fixture
def flat_files() -> Files:
    """Two classes of six images: {"circle/0.png": ..., ...}."""
    return shapes()


@pytest.fixture
def split_files() -> Files:
    """Train and test folders in one wrapping folder."""
    return shapes(prefix="shapes/train/", per_class=12) | shapes(
        prefix="shapes/test/", per_class=4, seed=1
    )


@pytest.fixture
def make_zip(tmp_path: Path) -> MakeZip:
    def make(files: Mapping[str, bytes]) -> Path:
        path = tmp_path / f"upload-{os.urandom(4).hex()}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    return make


@pytest.fixture
def make_job(database: Database) -> Callable[..., Job]:
    """Queues a job over a dataset that is only a row."""

    def make(
        name: str = "",
        dataset: str = "d1",
        priority: Priority = Priority.NORMAL,
        owner: str = "",
    ) -> Job:
        with database.writing() as session:
            if session.get(Dataset, dataset) is None:
                session.add(
                    Dataset(
                        id=dataset,
                        name="shapes",
                        classes=["circle", "square"],
                        counts={},
                        num_images=0,
                        num_bytes=0,
                        created_at=now(),
                    )
                )
        request = JobRequest(
            dataset=dataset,
            memory_limit=24_000_000,
            name=name,
            supernet=DEFAULT_SUPERNET,
            priority=priority,
        )
        return create_job(database, request, owner=owner)[0]

    return make


@pytest.fixture
def claim(database: Database) -> Callable[..., Claim]:
    """Claims the next job; fails where there is none."""

    def claim(lease_seconds: float = 30.0, worker: str = "here:1") -> Claim:
        found = claim_job(
            database, worker=worker, lease_seconds=lease_seconds, max_lost_attempts=2
        )
        assert found is not None
        return found

    return claim


@pytest.fixture
def lapse(database: Database) -> Callable[[str], None]:
    """Lets a running job's lease run out."""

    def lapse(job_id: str) -> None:
        with database.writing() as session:
            job = session.get(Job, job_id)
            assert job is not None
            assert job.lease_expires_at is not None
            job.lease_expires_at = 0.0

    return lapse
