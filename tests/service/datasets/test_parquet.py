"""Parquet: read in a process of its own, and refused there where it is hostile."""

import json
import random
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from service.datasets.containers import parquet
from service.datasets.store import import_dataset
from service.errors import DatasetError
from service.record.db.database import Database
from service.settings import Settings
from tests.service.datasets.uploads import image_bytes, left_behind, refuse

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NOTED = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def write(path: Path, rows: list[dict[str, Any]], schema: Any = None, **options: Any) -> Path:
    table = pa.Table.from_pylist(rows, schema=schema)
    metadata = {"huggingface": json.dumps(NOTED)}
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    return path


def rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": image_bytes(), "path": f"{number}.png"}, "label": number % 2}
        for number in range(count)
    ]


def test_what_hugging_face_writes(settings: Settings, database: Database, tmp_path: Path) -> None:
    train, test = rows(), rows(4)
    single = write(tmp_path / "photos.parquet", train)
    dataset, _ = import_dataset(single, settings=settings, database=database)
    assert dataset.counts == {"train": {"cat": 6, "dog": 6}}
    folder = tmp_path / "photos" / "data"
    folder.mkdir(parents=True)
    write(folder / "train-00000-of-00001.parquet", train)
    write(folder / "test-00000-of-00001.parquet", test)
    (folder.parent / "README.md").write_text("a card")
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"data/{path.name}")
    for source in (folder.parent, archive):
        dataset, _ = import_dataset(source, settings=settings, database=database)
        assert dataset.counts == {
            "train": {"cat": 6, "dog": 6},
            "test": {"cat": 2, "dog": 2},
        }
    assert left_behind(settings) == []


def test_bytes_and_names_as_others_write_them(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    plain = [{"img": image_bytes(), "class": "cat" if n % 2 else "dog"} for n in range(10)]
    path = write(tmp_path / "plain.parquet", plain)
    dataset, _ = import_dataset(path, settings=settings, database=database)
    assert dataset.classes == ["cat", "dog"]


def test_images_that_are_only_paths_say_how_to_embed_them(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    structure = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": structure, "label": pa.int64()})
    empty = [{"image": {"bytes": None, "path": "/home/me/cat/0.jpg"}, "label": 0}]
    message = refuse(write(tmp_path / "x.parquet", empty, schema), settings, database)
    assert "their paths on the machine that made it, such as '/home/me/cat/0.jpg'" in message
    assert "embed_table_storage" in message


def test_without_pyarrow(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.parquet", rows())
    monkeypatch.setattr(
        parquet, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name)
    )
    assert "pip install 'tinyfit[parquet]'" in refuse(path, settings, database)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"max_dataset_images": 11}, "more than 11 images"),
        ({"max_image_bytes": 90}, "at most 90 are accepted"),
        ({"max_dataset_bytes": 5_000}, "more than 5000 bytes of images"),
    ],
)
def test_counts_and_sizes(
    settings: Settings,
    database: Database,
    tmp_path: Path,
    update: dict[str, int],
    words: str,
) -> None:
    path = write(tmp_path / "x.parquet", rows())
    assert words in refuse(path, settings.model_copy(update=update), database)


def test_bombs(settings: Settings, database: Database, tmp_path: Path) -> None:
    """The same image a thousand times is in the file once; zeros are next to nothing."""
    same = [{"image": random.Random(0).randbytes(100_000), "label": n % 2} for n in range(1_000)]
    path = write(tmp_path / "same.parquet", same)
    assert path.stat().st_size < 400_000
    assert "as a bomb does" in refuse(path, settings, database)
    zeros = [{"image": bytes(30_000_000), "label": 0}]
    path = write(tmp_path / "zeros.parquet", zeros, compression="gzip", use_dictionary=False)
    assert "as a bomb does" in refuse(path, settings, database)


def test_no_images(settings: Settings, database: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"text": "a", "label": 0}])
    assert "no column of images but 'text', 'label'" in refuse(path, settings, database)


def test_damage(settings: Settings, database: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", rows())
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(4):
        data = bytearray(whole)
        for _ in range(20):
            data[generator.randrange(4, len(data) - 4)] = generator.randrange(256)
        path.write_bytes(data)
        try:
            import_dataset(path, settings=settings, database=database)
        except DatasetError:
            assert list(settings.incoming_dir.glob("*")) == []
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="damaged"):
        import_dataset(cut, settings=settings, database=database)
