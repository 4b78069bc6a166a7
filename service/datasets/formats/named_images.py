"""Images in one folder whose names begin with their class: cat.0.jpg, dog_17.jpg, rose (3).png."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from service.datasets.formats.listing import Listing, parent
from service.datasets.layout import Placement, placed, split_of

_NUMBERED = re.compile(r"(?P<label>.*?[^\W\d_])[\s._-]*\(?\d+\)?", re.DOTALL)
_CAMERAS = frozenset(
    {"img", "image", "dsc", "dscn", "dscf", "dcim", "p", "pxl", "photo", "picture", "frame"}
    | {"screenshot", "scan", "whatsapp", "video", "capture", "file", "sample", "gopr", "mvimg"}
    | {"signal", "unknown", "test", "train"}
)
"""What cameras and programs number by themselves."""
_LEAST_IMAGES = 5
_MOST_CLASSES = 200


def read(listing: Listing) -> Placement | None:
    """None where names are no classes with numbers, or are what cameras call any picture."""
    labels: dict[str, str] = {}
    for path in listing.images:
        match = _NUMBERED.fullmatch(PurePosixPath(path).stem)
        if match is None:
            return None
        labels[path] = match["label"]
    counts = Counter(labels.values())
    if not 2 <= len(counts) <= _MOST_CLASSES or min(counts.values()) < _LEAST_IMAGES:
        return None
    if any(name.casefold() in _CAMERAS for name in counts):
        return None
    files = tuple(
        placed(path, split_of(parent(path).rsplit("/", 1)[-1]) or "train", label)
        for path, label in labels.items()
    )
    shown = ", ".join(map(repr, sorted(counts)[:5]))
    note = (
        f"The images are in no class folders: the classes are how their names begin ({shown}). "
        f"Where that is not meant, put them into a folder for each class."
    )
    return Placement(files=files, notes=(note,))
