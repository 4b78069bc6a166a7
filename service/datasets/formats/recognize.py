"""Which format a container has, and where its images belong by that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from service.datasets.containers.container import Container
from service.datasets.formats import (
    class_folders,
    edge_impulse,
    fiftyone,
    label_tables,
    named_images,
)
from service.datasets.formats.listing import Listing
from service.datasets.layout import Placement
from service.datasets.words import counted, named
from service.errors import DatasetError

_BOXES = (
    ("_annotations.coco.json", "COCO"),
    ("instances_default.json", "COCO"),
    ("data.yaml", "YOLO"),
    ("annotations.xml", "CVAT XML"),
)
"""Files of exports that say where things are in images, not what images are of."""
_FOLDERS_INSTEAD = (
    "export it as a folder for each class: in Roboflow 'Folder Structure', in CVAT 'ImageNet', in "
    "FiftyOne 'ImageClassificationDirectoryTree'"
)


def place(container: Container) -> Placement:
    """Where the images of a container belong. Raises DatasetError, with what would do."""
    listing = Listing(container)
    found = edge_impulse.read(listing) or fiftyone.read(listing)
    if found is None:
        found = _folders_or_table(listing)
    left_out = [path for path in listing.texts if path not in found.lists]
    notes = list(found.notes)
    if left_out:
        notes.append(f"{named('file', left_out)} that are no images: left out.")
    if hidden := container.leftovers.hidden_images:
        notes.append(
            f"{named('image', hidden)} left out as hidden: a dot comes first in their name, or in "
            f"that of their folder."
        )
    return replace(found, notes=tuple(notes), num_left_out=len(left_out))


def _folders_or_table(listing: Listing) -> Placement:
    try:
        folders = class_folders.read(listing)
    except DatasetError as error:
        table, _ = label_tables.read(listing, beside_folders=False)
        found = table or named_images.read(listing)
        if found is not None:
            return found
        raise DatasetError(_boxes(listing) or str(error)) from error
    are_classes = len({file.class_name for file in folders.files}) > 1
    table, undecided = label_tables.read(listing, beside_folders=are_classes)
    if table is None and not are_classes:
        table = named_images.read(listing)
    if table is None:
        if not are_classes and (boxes := _boxes(listing)):
            raise DatasetError(boxes)
        return replace(folders, notes=(*folders.notes, *(f"{one}." for one in undecided)))
    if are_classes and len(table.files) * 2 < len(folders.files):
        shown = counted("image", len(table.files))
        note = f"A table names labels of {shown} only: the folders' names count instead."
        return replace(folders, notes=(*folders.notes, note))
    return table


def _boxes(listing: Listing) -> str | None:
    """What to do with an export that says where things are in images."""
    for name, kind in _BOXES:
        path = next((one for one in listing.texts if one.rsplit("/", 1)[-1] == name), None)
        if path is not None:
            return _told(path, kind)
    for suffix, kind in ((".xml", "Pascal VOC"), (".txt", "YOLO")):
        paths = [path for path in listing.texts if path.lower().endswith(suffix)]
        stems = {PurePosixPath(path).stem for path in listing.images}
        if paths and sum(PurePosixPath(path).stem in stems for path in paths) * 2 >= len(stems):
            return _told(paths[0], kind)
    return None


def _told(path: str, kind: str) -> str:
    return (
        f"{path!r} is of an export of boxes ({kind}), which say where things are and not what an "
        f"image is of; {_FOLDERS_INSTEAD}"
    )
