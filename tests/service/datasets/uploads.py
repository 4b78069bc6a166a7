"""What tests of datasets share: images to send, and what a refusal says and leaves."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from service.datasets.store import import_dataset, list_datasets
from service.errors import DatasetError
from service.record.database import Database
from service.settings import Settings

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


def left_behind(settings: Settings) -> list[Path]:
    folders = (settings.datasets_dir, settings.incoming_dir)
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir()]


def refuse(path: Path, settings: Settings, database: Database) -> str:
    """The words in which the dataset is refused; nothing may be left behind."""
    with pytest.raises(DatasetError) as caught:
        import_dataset(path, settings=settings, database=database)
    assert left_behind(settings) == []
    assert list_datasets(database) == []
    return str(caught.value)


def image_bytes(size: tuple[int, int] = (32, 32), form: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(stream, form)
    return stream.getvalue()
