"""Which column of a table names the images, and which has their labels."""

from __future__ import annotations

from collections.abc import Sequence

from service.datasets.containers.leftovers import looks_like_image
from service.datasets.formats.listing import Listing
from service.datasets.formats.tables import Table, choices, distinct
from service.datasets.layout import Split

_LABEL_NAMES = (
    *("label_name", "class_name", "classname", "label_text", "category_name"),
    *("label", "labels", "class", "category", "target", "choice", "tag", "annotation", "y"),
)
"""What a column of labels is usually called, the likeliest first."""
SPLIT_NAMES = frozenset(
    {"split", "set", "subset", "partition", "data_split", "data set", "dataset"}
)
_NOT_LABELS = frozenset(
    {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "width"}
    | {"height", "index", "task_id", "confidence", "score", "license", "author", "date"}
    | {"rotation"}
)
"""Columns of Label Studio and others that tell of the row, not of the image."""
_EXAMINED_ROWS = 500
_LEAST_FOUND = 0.5
"""Share of a column's cells that have to name images."""


def find_file_column(
    listing: Listing, table: Table, folder: str, split: Split | None
) -> str | None:
    """The column whose cells name images most often; one that names files rather than one of
    numbers that images happen to be called by, too."""
    best, best_rank = None, (0, 0.0)
    for name in table.columns:
        cells = [cell for cell in table.column(name)[:_EXAMINED_ROWS] if cell]
        num_found = sum(listing.find(cell, folder, split) is not None for cell in cells)
        share = num_found / max(1, len(cells))
        are_files = sum(map(looks_like_image, cells)) * 2 > len(cells)
        if share >= _LEAST_FOUND and (are_files, share) > best_rank:
            best, best_rank = name, (are_files, share)
    return best


Labels = list[list[str]]
"""The labels of each row."""


def labels_of(table: Table, file_column: str, *, beside_folders: bool) -> Labels | str | None:
    """The labels, or why it can't be told which column has them, or None where none does."""
    names = {name.casefold(): name for name in reversed(table.columns)}
    for wanted in _LABEL_NAMES:
        name = names.get(wanted, file_column)
        if name != file_column and distinct(table.column(name)):
            return [choices(cell) for cell in table.column(name)]
    others = [
        name
        for name in table.columns
        if name != file_column and not _tells_of_row(name) and distinct(table.column(name))
    ]
    likely = [name for name in others if _is_category(table.column(name))]
    if beside_folders:
        if not likely:
            return None
        return f"{table.path!r} names images, too: if its labels are meant, call them 'label'"
    if len(others) > 1 and all(_is_mark(table.column(name)) for name in others):
        return [
            [name for name, cell in zip(others, cells, strict=True) if _as_number(cell) == 1]
            for cells in zip(*(table.column(name) for name in others), strict=True)
        ]
    if len(likely) == 1:
        return [choices(cell) for cell in table.column(likely[0])]
    if not likely:
        return (
            f"{table.path!r} names images, but none of its columns has labels that come again; "
            f"call the one that has them 'label'"
        )
    shown = ", ".join(map(repr, likely[:5]))
    return (
        f"{table.path!r} has several columns that could be the label ({shown}); call the "
        f"right one 'label'"
    )


def _tells_of_row(name: str) -> bool:
    lower = name.casefold()
    return lower in _NOT_LABELS or lower in SPLIT_NAMES or lower.startswith("unnamed:")


def _is_mark(cells: Sequence[str]) -> bool:
    """Whether a column says yes or no, as those of Roboflow's `_classes.csv` do."""
    return all(_as_number(cell) in (0, 1) for cell in cells if cell)


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _is_category(cells: Sequence[str]) -> bool:
    """Whether values come again and again."""
    labels = [one for cell in cells for one in choices(cell)]
    return 2 <= len(set(labels)) <= max(2, len(labels) // 2)
