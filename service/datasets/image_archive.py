"""How a dataset lies in the artifact store: one zip, uncompressed, of `dataset.json` and images
under numbers. The same images in the same folders give the same bytes.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from service.datasets.layout import Placed, Split

MANIFEST = "dataset.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image of a stored dataset; label counts in the order of the classes."""

    path: Path
    label: int
    split: Split
    original: str
    """The name that the user gave."""


class ImageArchive:
    """An archive as it is written; `close` completes it. Its classes are those of its images."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._placed: list[Placed] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def add(self, data: bytes, placed: Placed) -> None:
        """Its path is the name that the user gave, which is only text."""
        self._zip.writestr(zipfile.ZipInfo(_file(len(self._placed))), data)
        self._placed.append(placed)

    def close(self) -> None:
        classes = sorted({placed.class_name for placed in self._placed})
        labels = {name: label for label, name in enumerate(classes)}
        images = [
            {
                "file": _file(number),
                "split": placed.split,
                "label": labels[placed.class_name],
                "original": placed.path,
            }
            for number, placed in enumerate(self._placed)
        ]
        manifest = {"format": _FORMAT, "classes": classes, "images": images}
        self._zip.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest))


def _file(number: int) -> str:
    return f"images/{number:06d}"


def unpack(archive: Path, directory: Path) -> None:
    """Of an archive whose hash has been checked: what it holds, this module has written."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)


def read_manifest(directory: Path) -> list[StoredImage]:
    """The images in a folder, in the order in which they were hashed."""
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    return [
        StoredImage(
            path=directory / entry["file"],
            label=entry["label"],
            split=entry["split"],
            original=entry.get("original", entry["file"]),
        )
        for entry in manifest["images"]
    ]
