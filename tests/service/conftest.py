"""What the service's tests share: settings in a temporary folder, a database, small datasets."""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from service.database import Database, now
from service.jobs import create_job
from service.models import Dataset, Job
from service.schemas import JobRequest
from service.settings import Settings

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", lease_seconds=3.0, poll_seconds=0.1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    database.upgrade()
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

    def make(name: str = "") -> Job:
        with database.writing() as session:
            if session.get(Dataset, "d1") is None:
                session.add(
                    Dataset(
                        id="d1",
                        name="shapes",
                        classes=["circle", "square"],
                        counts={},
                        num_images=0,
                        num_bytes=0,
                        created_at=now(),
                    )
                )
        return create_job(database, JobRequest(dataset="d1", memory_limit=24_000_000, name=name))

    return make
