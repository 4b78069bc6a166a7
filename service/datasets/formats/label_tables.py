"""Labels in tables beside the images, as Kaggle, Label Studio, Roboflow, Hugging Face have them.

What the columns are called is the maker's choice: which one names the image shows in what is in
the archive, which one the label by its name, or as it is the only one that can be.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from service.datasets.formats.label_columns import SPLIT_NAMES, Labels, find_file_column, labels_of
from service.datasets.formats.listing import Listing, parent
from service.datasets.formats.tables import (
    PLAIN,
    Table,
    is_table,
    read_table,
    without_header,
)
from service.datasets.layout import Placement, Split, placed, split_of
from service.datasets.words import named
from service.errors import DatasetError

_NAME_LISTS = frozenset({"synsets.txt", "classes.txt"})


def read(listing: Listing, *, beside_folders: bool) -> tuple[Placement | None, Sequence[str]]:
    """None where no table names the images' labels, and what keeps tables that name images from
    it. beside_folders: the images are in folders that may be classes, so a column counts only
    that says of itself that it has labels.

    Raises DatasetError where there are no such folders, and it is not clear which column it is.
    """
    collected = _Collected()
    stems = {PurePosixPath(path).stem for path in listing.images}
    tables = [path for path in listing.texts if is_table(path) and not _is_of_image(path, stems)]
    for path in tables:
        _add(listing, path, collected, beside_folders=beside_folders)
    if not collected.labels:
        if collected.undecided and not beside_folders:
            raise DatasetError(collected.undecided[0])
        return None, collected.undecided
    return collected.placement(listing), ()


@dataclass
class _Collected:
    """What all tables say."""

    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    splits: dict[str, Split] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    """Images whose row has no label."""
    several: set[str] = field(default_factory=set)
    """Images of which one row has several."""
    absent: list[str] = field(default_factory=list)
    """What rows call images that are not there."""
    undecided: list[str] = field(default_factory=list)

    def placement(self, listing: Listing) -> Placement:
        files, doubtful, outvoted = [], [], []
        names, of_names = _class_names(listing, self.labels.values())
        for path, found in self.labels.items():
            if path in self.several:
                continue
            (label, count), *others = found.most_common(2)
            if others and others[0][1] == count:
                doubtful.append(f"{path}: {' or '.join(sorted(found))}")
                continue
            if others:
                outvoted.append(path)
            files.append(placed(path, self.splits[path], names.get(label, label)))
        without = sorted(
            (self.empty | (set(listing.images) - set(self.labels))) - set(self.labels)
        )
        notes = [f"The labels are those of {', '.join(map(repr, self.tables))}."]
        if of_names:
            notes.append(f"The classes' names are those of {of_names!r}.")
        if doubtful:
            notes.append(
                f"{named('image', doubtful)} with different labels in different rows: left out; "
                f"keep the row that is right."
            )
        if outvoted:
            notes.append(
                f"{named('image', outvoted)} with different labels in different rows: the most "
                f"frequent one counts."
            )
        if self.several:
            notes.append(
                f"{named('image', sorted(self.several))} with several labels at once: left out, "
                f"as each image is of one class here."
            )
        if without:
            notes.append(f"{named('image', without)} without a label: left out.")
        if self.absent:
            notes.append(f"{named('row', self.absent)} of images that are not there.")
        return Placement(files=tuple(files), notes=tuple(notes), lists=(*self.tables, of_names))


def _class_names(listing: Listing, labels: Iterable[Counter[str]]) -> tuple[dict[str, str], str]:
    """What numbers stand for by a list of names, the first of which is 0, and that list's path;
    nothing where labels are no numbers, or there is no list of so many names."""
    used = {label for found in labels for label in found}
    for path in listing.texts:
        if path.rsplit("/", 1)[-1].lower() in _NAME_LISTS:
            names = listing.text(path).splitlines()
            numbered = {str(number): name.strip() for number, name in enumerate(names)}
            if used <= numbered.keys():
                return numbered, path
    return {}, ""


def _is_of_image(path: str, stems: Set[str]) -> bool:
    """Whether a plain text is called like an image: then it is of that one, as boxes are."""
    name = PurePosixPath(path.lower())
    return name.suffix in PLAIN and PurePosixPath(path).stem in stems


def _add(listing: Listing, path: str, collected: _Collected, *, beside_folders: bool) -> None:
    if re.search(r"submission", path.rsplit("/", 1)[-1], re.IGNORECASE):
        return  # Kaggle's example of an answer: its labels are made up
    try:
        table = read_table(path, listing.text(path))
    except DatasetError:
        if beside_folders:
            return
        raise
    if table is None:
        return
    folder = parent(path)
    if any(listing.find(name, folder) for name in table.columns):
        table = without_header(table)
    file_column = find_file_column(listing, table, folder, _split_of_table(path))
    if file_column is None:
        return
    label = labels_of(table, file_column, beside_folders=beside_folders)
    if isinstance(label, str):
        collected.undecided.append(label)
        return
    if label is None:
        return
    _take_rows(listing, table, file_column, label, collected)


def _take_rows(
    listing: Listing, table: Table, file_column: str, labels: Labels, collected: _Collected
) -> None:
    folder = parent(table.path)
    collected.tables.append(table.path)
    splits = _split_column(table)
    of_table = _split_of_table(table.path)
    for row, (cell, found) in enumerate(zip(table.column(file_column), labels, strict=True)):
        if not cell:
            continue
        path = listing.find(cell, folder, of_table)
        if path is None:
            collected.absent.append(cell)
        elif not found:
            collected.empty.add(path)
        elif len(set(found)) > 1:
            collected.several.add(path)
            collected.labels[path].update(found)
        else:
            collected.labels[path][found[0]] += 1
            stated = splits[row] if splits else None
            in_folder = _split_in(parent(path).split("/"))
            collected.splits[path] = stated or of_table or in_folder or "train"


def _split_column(table: Table) -> list[Split | None] | None:
    for name in table.columns:
        if name.casefold() in SPLIT_NAMES:
            found = [split_of(cell) for cell in table.column(name)]
            if any(found):
                return found
    return None


def _split_of_table(path: str) -> Split | None:
    """train of train.csv and train_labels.csv"""
    return _split_in(re.split(r"[\W_]+", path.rsplit("/", 1)[-1]))


def _split_in(words: Sequence[str]) -> Split | None:
    return next((split for word in words if (split := split_of(word))), None)
