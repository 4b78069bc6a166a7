"""A folder per class, in split folders or not, with or without folders around everything.

Roboflow's, CVAT's (ImageNet) and FiftyOne's folders are such, too, with a folder for images that
have no label.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from service.datasets.formats.listing import Listing
from service.datasets.layout import SHAPE, Placed, Placement, placed, split_of
from service.datasets.words import named
from service.errors import DatasetError

_NO_LABEL = frozenset(
    {"no_label", "no-label", "_unlabeled", "unlabeled", "unlabelled", "_unlabelled"}
)
_ANY_IMAGES = frozenset(
    {"images", "image", "imgs", "img", "pictures", "photos", "data", "all", "files", "unknown"}
    | {"test", "test1", "testing"}
)

_Parts = tuple[str, ...]


def read(listing: Listing) -> Placement:
    """Raises DatasetError where hardly any image is in a class folder."""
    paths = listing.images
    if not paths:
        raise DatasetError(f"no images found; {SHAPE}")
    parts = {path: tuple(path.split("/")) for path in paths}
    around = _around(list(parts.values()))
    inner = _with_plain_splits({path: _inside(whole, around) for path, whole in parts.items()})
    reading = _Reading(inner)
    empty = reading.empty_folders([tuple(one.split("/")) for one in listing.folders], around)
    if len(reading.astray) * 2 >= len(paths):
        path, why = next(iter(reading.astray.items()))
        raise DatasetError(f"{path!r} {why}; {SHAPE}, or a CSV of file_name and label")
    notes = [*reading.notes(), *empty]
    return Placement(
        files=tuple(reading.files),
        name=around[0] if around else None,
        astray=reading.astray,
        notes=tuple(notes),
    )


def _around(all_parts: Sequence[_Parts]) -> _Parts:
    """The folders around everything but a few files beside them. A lone split folder is none."""
    around: _Parts = ()
    while True:
        rest = [_inside(parts, around) for parts in all_parts]
        folders = {parts[0] for parts in rest if len(parts) > 1}
        deep = [parts for parts in rest if len(parts) > 2]
        if len(folders) != 1 or len(deep) * 2 <= len(rest):
            return around
        (first,) = folders
        is_nested = all(len(parts) > 3 and split_of(parts[1]) for parts in deep)
        if split_of(first) and not is_nested:
            return around
        around = (*around, first)


def _inside(parts: _Parts, around: _Parts) -> _Parts:
    """The path from within folders; of a file beside them its name."""
    return parts[len(around) :] if parts[: len(around)] == around else parts[-1:]


class _Reading:
    """How the files of one container are placed."""

    def __init__(self, inner: dict[str, _Parts]) -> None:
        self.files: list[Placed] = []
        self.astray: dict[str, str] = {}
        self._unlabelled: list[str] = []
        self._unlabelled_folders: set[str] = set()
        self._within: dict[str, set[str]] = defaultdict(set)
        self._tops_like_splits: list[str] = []
        self._is_turned = _has_splits_in_classes(inner)
        if self._is_turned:
            inner = {path: (parts[1], parts[0], *parts[2:]) for path, parts in inner.items()}
        self.has_splits = _has_splits(inner)
        if self.has_splits:
            inner = _without_folders_in_splits(inner)
        else:
            tops = {parts[0] for parts in inner.values() if len(parts) > 1}
            self._tops_like_splits = sorted(top for top in tops if split_of(top))
        self._in_train = {
            parts[1]
            for parts in inner.values()
            if self.has_splits and len(parts) > 2 and split_of(parts[0]) == "train"
        }
        for path, parts in inner.items():
            self._place(path, parts)
        if self.has_splits:
            self._drop_splits_without_labels()

    def _place(self, path: str, parts: _Parts) -> None:
        split = split_of(parts[0]) if self.has_splits else "train"
        if split is None and not self._in_train.intersection(parts[1:-1]):
            self._unlabelled.append(path)
            self._unlabelled_folders.add(parts[0])
            return
        if split is None:
            self.astray[path] = "is not in train, val or test, as others are"
            return
        rest = parts[1:] if self.has_splits else parts
        if len(rest) < 2:
            if self.has_splits and split != "train":
                self._unlabelled.append(path)
            else:
                self.astray[path] = "is not in a class folder"
            return
        if rest[0].casefold() in _NO_LABEL:
            self._unlabelled.append(path)
            self._unlabelled_folders.add(rest[0])
            return
        if len(rest) > 2:
            self._within[rest[0]].add(rest[1])
        self.files.append(placed(path, split, rest[0]))

    def _drop_splits_without_labels(self) -> None:
        """Of a split whose one folder is called like no class, but like a folder of images."""
        classes = {file.class_name for file in self.files if file.split == "train"}
        for split in ("val", "test"):
            own = {file.class_name for file in self.files if file.split == split}
            if len(own) == 1 and not own & classes and min(own).casefold() in _ANY_IMAGES:
                self._unlabelled += [file.path for file in self.files if file.split == split]
                self.files = [file for file in self.files if file.split != split]

    def empty_folders(self, folders: Sequence[_Parts], around: _Parts) -> list[str]:
        """Notes on folders where a class would be that hold no image."""
        depth = len(around) + (2 if self.has_splits and not self._is_turned else 1)
        images = {parts[:depth] for parts in _folders_of(self.files, self._unlabelled)}
        empty = sorted(
            {
                "/".join(parts)
                for parts in folders
                if len(parts) == depth and parts[: len(around)] == around and parts not in images
            }
        )
        if not empty:
            return []
        return [f"{named('folder', empty)} without images: no class comes of that."]

    def notes(self) -> list[str]:
        notes = []
        if self._unlabelled:
            inside = (
                f" in {', '.join(map(repr, sorted(self._unlabelled_folders)))}"
                if self._unlabelled_folders
                else ""
            )
            notes.append(
                f"{named('image', sorted(self._unlabelled))} without a label{inside}: left out."
            )
        for name, inner in sorted(self._within.items()):
            shown = named("folder", sorted(inner))
            notes.append(
                f"Class {name!r} has {shown} in it: all of its images are of class {name!r}. "
                f"Where each is a class of its own, put them beside each other."
            )
        if self._is_turned:
            notes.append("The splits are folders in the class folders, and were taken as splits.")
        for top in self._tops_like_splits:
            notes.append(
                f"Folder {top!r} is taken for a class, not for a split, as others beside it are "
                f"none."
            )
        return notes


def _folders_of(files: Sequence[Placed], others: Sequence[str]) -> set[_Parts]:
    return {tuple(path.split("/")[:-1]) for path in [*(f.path for f in files), *others]}


def _has_splits(inner: dict[str, _Parts]) -> bool:
    """Whether the first folders are splits: all of them, or most where classes are in them."""
    if all(split_of(parts[0]) for parts in inner.values()):
        return True
    deep = [parts for parts in inner.values() if len(parts) > 2 and split_of(parts[0])]
    return len(deep) * 2 >= len(inner)


def _with_plain_splits(inner: dict[str, _Parts]) -> dict[str, _Parts]:
    """The same, where the first folders have a split's name in theirs, as seg_train and seg_test,
    and the same folders in them: then these are classes, and those are splits."""
    within: dict[str, set[str]] = defaultdict(set)
    for parts in inner.values():
        if len(parts) > 2:
            within[parts[0]].update(parts[1:-1])
    meant = {top: split for top in within if (split := _split_within(top))}
    of_train = {name for top, split in meant.items() if split == "train" for name in within[top]}
    others = [top for top, split in meant.items() if split != "train"]
    if not others or not all(within[top] & of_train for top in others):
        return inner
    return {path: (meant.get(parts[0], parts[0]), *parts[1:]) for path, parts in inner.items()}


def _split_within(name: str) -> str | None:
    found = [word for word in re.split(r"[\W_]+", name) if split_of(word)]
    return split_of(found[0]) if len(found) == 1 else None


def _without_folders_in_splits(inner: dict[str, _Parts]) -> dict[str, _Parts]:
    """The same without a folder around all that is in a split, as in train/train/cat."""
    by_split: dict[str, dict[str, _Parts]] = defaultdict(dict)
    for path, parts in inner.items():
        by_split[parts[0]][path] = parts
    found: dict[str, _Parts] = {}
    in_train: set[str] = set()
    for top in sorted(by_split, key=lambda name: split_of(name) != "train"):
        members = by_split[top]
        around = {parts[1] for parts in members.values()}
        is_around = (
            split_of(top) is not None
            and len(around) == 1
            and all(len(parts) > 3 for parts in members.values())
            and not around & in_train
        )
        for path, parts in members.items():
            found[path] = (parts[0], *parts[2:]) if is_around else parts
        if split_of(top) == "train":
            in_train |= {found[path][1] for path in members}
    return found


def _has_splits_in_classes(inner: dict[str, _Parts]) -> bool:
    """class/split/image"""
    return all(
        len(parts) > 2 and split_of(parts[1]) and not split_of(parts[0])
        for parts in inner.values()
    )
