"""How class folders are read: which path is which split and class, and what is wrong with them.

Accepted are `class/image` and `split/class/image` (split: train, val, test), each with or without
one folder around everything. Paths only; nothing is opened here.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import DatasetError

Split = Literal["train", "val", "test"]

_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_MAX_CLASS_NAME = 200
_UNREADABLE = {"Cc", "Co", "Cs", "Zl", "Zp"}
_TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text around them."""
_SHAPE = "expected class/image.jpg or train/class/image.jpg"

Parts = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A file and where it belongs. path is as in the archive, and names it in errors."""

    path: str
    split: Split
    class_name: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of a dataset in a fixed order, and its classes, sorted."""

    name: str | None
    """Of the folder around everything, if there is one."""
    classes: tuple[str, ...]
    files: tuple[Placed, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and class, for the splits that are there."""
        found = Counter((file.split, file.class_name) for file in self.files)
        splits = sorted({file.split for file in self.files}, key=["train", "val", "test"].index)
        return {split: {name: found[split, name] for name in self.classes} for split in splits}


def is_junk(parts: Parts) -> bool:
    """Files that operating systems leave behind: dot-files, __MACOSX and the like."""
    return any(part in _JUNK or part.startswith(".") for part in parts)


def read_layout(paths: Iterable[str], *, min_images_per_class: int) -> Layout:
    """Place every path (checked, with forward slashes, junk left out) in a split and class."""
    (layout,) = read_layouts([paths], min_images_per_class=min_images_per_class)
    return layout


def read_layouts(
    sources: Sequence[Iterable[str]],
    *,
    min_images_per_class: int,
    splits: Collection[Split] = ("train", "val", "test"),
) -> tuple[Layout, ...]:
    """The layouts of one dataset's sources: each has the classes of all of them. Of other splits
    than these nothing is looked at."""
    placed = [_place_all(sorted(paths), splits) for paths in sources]
    files = tuple(file for _, of_source in placed for file in of_source)
    _check_case("class", (file.class_name for file in files))
    for _, of_source in placed:
        _check_case("file", (file.path for file in of_source))
    classes = tuple(sorted({file.class_name for file in files}))
    _check_classes(Layout(name=None, classes=classes, files=files), min_images_per_class)
    return tuple(
        Layout(name=wrapper, classes=classes, files=of_source) for wrapper, of_source in placed
    )


def _place_all(
    paths: Sequence[str], splits: Collection[Split]
) -> tuple[str | None, tuple[Placed, ...]]:
    """The name of the folder around everything, if there is one, and the files."""
    all_parts = [tuple(path.split("/")) for path in paths]
    if not all_parts:
        raise DatasetError(f"no images found; {_SHAPE}")
    wrapper = _wrapper(all_parts)
    inner = [parts[1:] for parts in all_parts] if wrapper is not None else all_parts
    has_splits = all(parts[0].casefold() in _SPLITS for parts in inner)
    if not has_splits:
        _check_none_is_astray(inner, paths)
    files = tuple(
        _place(parts, shown, has_splits)
        for parts, shown in zip(inner, paths, strict=True)
        if not has_splits or _SPLITS[parts[0].casefold()] in splits
    )
    return wrapper, files


def _wrapper(all_parts: Sequence[Parts]) -> str | None:
    """The one folder around everything, or None. A lone split folder is not a wrapper."""
    first = all_parts[0][0]
    if any(parts[0] != first or len(parts) < 3 for parts in all_parts):
        return None
    if first.casefold() not in _SPLITS:
        return first
    nested = all(len(parts) > 3 and parts[1].casefold() in _SPLITS for parts in all_parts)
    return first if nested else None


def _check_none_is_astray(inner: Sequence[Parts], paths: Sequence[str]) -> None:
    """Raises DatasetError for a file that lies beside the split folders, or the one folder, that
    nearly all others are in: without it, these would be where they should be."""
    if all(len(parts) < 3 for parts in inner):
        return
    in_splits = [parts[0].casefold() in _SPLITS for parts in inner]
    in_folder = [parts[0] == inner[0][0] for parts in inner]
    if sum(in_splits) > len(inner) / 2:
        astray, where = in_splits.index(False), "in train, val or test"
    elif all(in_folder) and any(len(parts) < 3 for parts in inner):
        astray = next(number for number, parts in enumerate(inner) if len(parts) < 3)
        where = "in a class folder"
    else:
        return
    raise DatasetError(f"{paths[astray]!r} is not {where}, as others are; {_SHAPE}")


def _place(parts: Parts, shown: str, has_splits: bool) -> Placed:
    depth = 3 if has_splits else 2
    if len(parts) < depth:
        raise DatasetError(f"{shown!r} is not in a class folder; {_SHAPE}")
    if len(parts) > depth:
        raise DatasetError(f"{shown!r} is too deep; {_SHAPE}")
    class_name = unicodedata.normalize("NFC", parts[-2])
    if len(class_name) > _MAX_CLASS_NAME or not _is_readable(class_name):
        raise DatasetError(
            f"class name {class_name[:60]!r} is too long or has control characters; use at most "
            f"{_MAX_CLASS_NAME} printable characters"
        )
    split = _SPLITS[parts[0].casefold()] if has_splits else "train"
    return Placed(path=shown, split=split, class_name=class_name)


def _is_readable(name: str) -> bool:
    """Text of any script, joiners included; no control characters, nothing that turns text."""
    kinds = {unicodedata.category(character) for character in name}
    return not (kinds & _UNREADABLE or _TURNING & set(name))


def _check_case(kind: str, names: Iterable[str]) -> None:
    """Names that differ only by case are one and the same on many file systems: no guessing."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DatasetError(
                f"{kind} names {other!r} and {name!r} differ only by case or by how accents "
                f"are encoded; rename one"
            )


def _check_classes(layout: Layout, min_images_per_class: int) -> None:
    counts = layout.counts()
    if "train" not in counts:
        raise DatasetError(f"there is a {next(iter(counts))} folder but no train folder; {_SHAPE}")
    train = counts["train"]
    for split in ("val", "test"):
        for name, count in counts.get(split, {}).items():
            if count and not train[name]:
                raise DatasetError(
                    f"class {name!r} is in {split} but not in train; add training images of it, "
                    f"or remove it from {split}"
                )
    if len(layout.classes) < 2:
        raise DatasetError(
            f"only one class was found, {layout.classes[0]!r}; at least two are needed, each in "
            f"its own folder"
        )
    for name, count in train.items():
        if count < min_images_per_class:
            raise DatasetError(
                f"class {name!r} has {count} training images; at least "
                f"{min_images_per_class} are needed"
            )
