"""FiftyOne's own classification export: images in data/, and `labels.json`, which has the class
of each by its path without suffix. (Its export as folders is read as class folders.)
"""

from __future__ import annotations

from typing import Any

from service.datasets.formats.documents import read_json
from service.datasets.formats.listing import Listing, parent
from service.datasets.layout import Placement, Split, placed, split_of
from service.datasets.words import named
from service.errors import DatasetError

_NAME = "labels.json"


def read(listing: Listing) -> Placement | None:
    """None where there is no such `labels.json`, in the root or in a folder for each split."""
    files, notes, found = [], [], []
    unlabelled: list[str] = []
    for path in listing.texts:
        if path.rsplit("/", 1)[-1] != _NAME:
            continue
        document = read_json(path, listing.text(path))
        labels = document.get("labels") if isinstance(document, dict) else None
        if not isinstance(labels, dict):
            continue
        found.append(path)
        folder = parent(path)
        split: Split = split_of(folder.rsplit("/", 1)[-1]) or "train"
        below = f"{folder}/data" if folder else "data"
        for reference, value in labels.items():
            label = _label(path, value, document.get("classes"))
            image = listing.find(reference, below)
            if image is not None and label is not None:
                files.append(placed(image, split, label))
    if not found:
        return None
    labelled = {file.path for file in files}
    unlabelled = [image for image in listing.images if image not in labelled]
    notes.append(f"The labels are those of {', '.join(map(repr, found))}, as FiftyOne has them.")
    if unlabelled:
        notes.append(f"{named('image', unlabelled)} without a label: left out.")
    return Placement(files=tuple(files), notes=tuple(notes), lists=tuple(found))


def _label(path: str, value: Any, classes: Any) -> str | None:
    if isinstance(value, dict):  # with a confidence, or with attributes
        value = value.get("label")
    if isinstance(value, bool | float | list | dict):
        raise DatasetError(
            f"{path!r} has a label that is not one class: {str(value)[:100]!r}; export a "
            f"Classification field"
        )
    if isinstance(value, int):
        if not isinstance(classes, list) or not 0 <= value < len(classes):
            raise DatasetError(f"{path!r} has label {value}, which its list of classes has not")
        value = classes[value]
    return str(value).strip() or None if value is not None else None
