"""Edge Impulse's export: images in training/ and testing/, and their labels in `info.labels`."""

from __future__ import annotations

from typing import Any

from service.datasets.formats.documents import read_json
from service.datasets.formats.listing import Listing, parent
from service.datasets.layout import Placement, placed, split_of
from service.datasets.words import named
from service.errors import DatasetError

_NAME = "info.labels"


def read(listing: Listing) -> Placement | None:
    """None where there is no `info.labels`. Raises DatasetError for one that can't be read."""
    path = next((one for one in listing.texts if one.rsplit("/", 1)[-1] == _NAME), None)
    if path is None:
        return None
    document = read_json(path, listing.text(path))
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{path!r} has no list of files; export the dataset again")
    files, unlabelled, absent = [], [], []
    for entry in entries:
        reference, category, label = _entry(path, entry)
        image = listing.find(reference, parent(path))
        if image is None:
            absent.append(reference)
        elif label is None:
            unlabelled.append(image)
        else:
            files.append(placed(image, split_of(category) or "train", label))
    listed = {file.path for file in files} | set(unlabelled)
    unlabelled += [image for image in listing.images if image not in listed]
    notes = [f"The labels are those of {path!r}, as Edge Impulse exports them."]
    if unlabelled:
        notes.append(f"{named('image', unlabelled)} without a label: left out.")
    if absent:
        notes.append(f"{named('entry', absent)} of files that are not there.")
    return Placement(files=tuple(files), notes=tuple(notes), lists=(path,))


def _entry(path: str, entry: Any) -> tuple[str, str, str | None]:
    """The file, its category, and its label where it has one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise DatasetError(f"{path!r} has an entry without a path: {str(entry)[:100]!r}")
    if entry.get("boundingBoxes"):
        raise DatasetError(
            f"{path!r} has boxes, for {entry['path']!r} among others: they are of a project that "
            f"finds objects. Export one that classifies images, or put images into class folders"
        )
    label = entry.get("label")
    if isinstance(label, dict):
        is_label = label.get("type") == "label"
        label = label.get("label") if is_label else None
    if label is not None and not isinstance(label, str | int):
        raise DatasetError(f"{path!r} has a label that is no text: {str(label)[:100]!r}")
    text = str(label).strip() if label is not None else ""
    return entry["path"], str(entry.get("category", "")), text or None
