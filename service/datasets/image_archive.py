"""How a dataset lies in the artifact store: one zip, uncompressed, of `dataset.json` and images
under numbers. The same images in the same folders give the same bytes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from service.datasets.layout import Split

MANIFEST = "dataset.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image of a stored dataset; label counts in the order of the classes."""

    path: Path
    label: int
    split: Split


class ImageArchive:
    """An archive as it is written; `close` completes it."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._classes = list(classes)
        self._images: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def add(self, data: bytes, *, split: Split, label: int, original: str) -> None:
        """original: the name that the user gave, which is only text."""
        file = f"images/{len(self._images):06d}"
        self._zip.writestr(zipfile.ZipInfo(file), data)
        image = {"file": file, "split": split, "label": label, "original": original}
        self._images.append(image)

    def close(self) -> None:
        manifest = {"format": _FORMAT, "classes": self._classes, "images": self._images}
        self._zip.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest))


def unpack(archive: Path, directory: Path) -> None:
    """Of an archive whose hash has been checked: what it holds, this module has written."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)


def read_manifest(directory: Path) -> list[StoredImage]:
    """The images in a folder, in the order in which they were hashed."""
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    return [
        StoredImage(path=directory / entry["file"], label=entry["label"], split=entry["split"])
        for entry in manifest["images"]
    ]
