"""Which file is of which split and class, and what is wrong with that. Paths only."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.errors import DatasetError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_SPLIT_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset", "val_set"), "val"),
    **dict.fromkeys(("eval", "evaluation", "validation_set"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "test_set", "holdout"), "test"),
}
_MAX_CLASS_NAME = 200
_UNREADABLE = {"Cc", "Co", "Cs", "Zl", "Zp"}
_TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text around them."""
_COPY = re.compile(r"(\s*\(\d+\)|[\s_-]*copy(\s*\d+)?|\s+)+$", re.IGNORECASE)
_UNNAMED = re.compile(
    r"(new|untitled) folder.*|neuer ordner.*|nouveau dossier.*|nueva carpeta.*|"
    r"\u65b0\u5efa\u6587\u4ef6\u5939.*|\u65b0\u3057\u3044\u30d5\u30a9\u30eb\u30c0\u30fc.*",
    re.IGNORECASE,
)
SHAPE = "expected class/image.jpg or train/class/image.jpg"


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A file and where it belongs. path is as in the container, and names it in errors."""

    path: str
    split: Split
    class_name: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one container's files belong, as a format says."""

    files: tuple[Placed, ...]
    name: str | None = None
    """Of the folder around everything, if there is one."""
    astray: Mapping[str, str] = field(default_factory=dict)
    """Images that belong nowhere, each with why."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read."""
    lists: tuple[str, ...] = ()
    """Files that the labels were read from."""
    num_left_out: int = 0
    """Files that are no images, and no such lists."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of a dataset in a fixed order, and its classes, sorted."""

    name: str | None
    """Of the folder around everything, if there is one."""
    classes: tuple[str, ...]
    files: tuple[Placed, ...]
    notes: tuple[str, ...] = ()
    num_left_out: int = 0

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and class, for the splits that are there."""
        found = Counter((file.split, file.class_name) for file in self.files)
        splits = sorted({file.split for file in self.files}, key=SPLITS.index)
        return {split: {name: found[split, name] for name in self.classes} for split in splits}


def split_of(word: str) -> Split | None:
    """The split that a folder's or column's word means, in any case."""
    return _SPLIT_WORDS.get(word.strip().casefold())


def placed(path: str, split: Split, class_name: str) -> Placed:
    """Raises DatasetError for a class name that can't be shown."""
    name = unicodedata.normalize("NFC", class_name)
    if len(name) > _MAX_CLASS_NAME or not _is_readable(name):
        raise DatasetError(
            f"class name {name[:60]!r} is too long or has control characters; use at most "
            f"{_MAX_CLASS_NAME} printable characters"
        )
    return Placed(path=path, split=split, class_name=name)


def join(placements: Sequence[Placement], *, min_images_per_class: int) -> tuple[Layout, ...]:
    """The layouts of one dataset's containers: each has the classes of all of them."""
    files = tuple(file for placement in placements for file in placement.files)
    _check_case("class", (file.class_name for file in files))
    for placement in placements:
        _check_case("file", (file.path for file in placement.files))
    classes = tuple(sorted({file.class_name for file in files}))
    check_classes(Layout(name=None, classes=classes, files=files), min_images_per_class)
    return tuple(
        Layout(
            name=placement.name,
            classes=classes,
            files=tuple(sorted(placement.files, key=lambda file: file.path)),
            notes=(*placement.notes, *_notes_on_names(classes)),
            num_left_out=placement.num_left_out,
        )
        for placement in placements
    )


def check_classes(layout: Layout, min_images_per_class: int) -> None:
    """Raises DatasetError where there is too little to learn from."""
    if not layout.files:
        raise DatasetError(f"no images found; {SHAPE}")
    counts = layout.counts()
    if "train" not in counts:
        raise DatasetError(f"there is a {next(iter(counts))} folder but no train folder; {SHAPE}")
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
            f"its own folder, or named for each image in a CSV with the columns file_name and "
            f"label"
        )
    few = {name: count for name, count in train.items() if count < min_images_per_class}
    if few:
        shown = ", ".join(f"{name!r} has {count} training images" for name, count in few.items())
        raise DatasetError(
            f"class {shown}; at least {min_images_per_class} are needed: add images, or leave "
            f"{'it' if len(few) == 1 else 'them'} out"
        )


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


def _notes_on_names(classes: Sequence[str]) -> list[str]:
    """Classes that may be none of their own."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[_COPY.sub("", re.sub(r"[\s_-]+", " ", name.casefold())).removesuffix("s")].append(
            name
        )
    notes = [
        f"{' and '.join(map(repr, names))} are taken for different classes: where they are one, "
        f"put their images into one folder."
        for names in alike.values()
        if len(names) > 1
    ]
    notes += [
        f"A class is called {name!r}: where that is not meant, rename or remove its folder."
        for name in classes
        if _UNNAMED.fullmatch(name)
    ]
    return notes
