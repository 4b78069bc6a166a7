"""What tests of datasets share: images to send, and what a refusal says and leaves."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from service.datasets.containers.leftovers import Leftovers
from service.datasets.formats.recognize import place
from service.datasets.layout import Layout, Placement, join
from service.datasets.store import import_dataset, list_datasets
from service.errors import DatasetError
from service.record.db.database import Database
from service.settings import Settings

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


class InMemory:
    """A container of these files; folders are those that it names."""

    def __init__(self, files: Mapping[str, bytes], folders: Iterable[str] = ()) -> None:
        self.leftovers = Leftovers()
        self._files = {path: data for path, data in files.items() if not self.leftovers.take(path)}
        self.folders = list(folders)

    @property
    def paths(self) -> list[str]:
        return sorted(self._files)

    def num_bytes(self, path: str) -> int:
        return len(self._files[path])

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._files[path])


def placement_of(paths: Iterable[str], folders: Iterable[str] = ()) -> Placement:
    """Where empty files of these paths are placed."""
    return place(InMemory(dict.fromkeys(paths, b""), folders))


def layout_of(placement: Placement) -> Layout:
    (layout,) = join([placement], min_images_per_class=5)
    return layout


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
