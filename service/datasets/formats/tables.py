"""Lists with a row for each image: CSV, TSV, JSON lines, a JSON array of objects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from service.errors import DatasetError

DELIMITED = frozenset({".csv", ".tsv"})
PLAIN = frozenset({".txt", ".lst"})
"""Which may hold a list of images and labels with a space between, or anything else."""
JSON_LINES = frozenset({".jsonl", ".ndjson"})
_DELIMITERS = ",;\t|"
_MAX_COLUMNS = 5_000


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text by columns; what a row does not say is empty."""

    path: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


def is_table(path: str) -> bool:
    return PurePosixPath(path.lower()).suffix in DELIMITED | JSON_LINES | PLAIN | {".json"}


def read_table(path: str, text: str) -> Table | None:
    """None where the file is no table. Raises DatasetError where it is a damaged one."""
    suffix = PurePosixPath(path.lower()).suffix
    try:
        if suffix in DELIMITED:
            return _delimited(path, text)
        if suffix in PLAIN:
            return _plain(path, text)
        if suffix in JSON_LINES:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            records = json.loads(text)
    except (ValueError, csv.Error, RecursionError) as error:
        raise DatasetError(
            f"{path!r} can't be read as a table ({error}); mend or remove it"
        ) from error
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        return None
    return _of_records(path, records)


def _delimited(path: str, text: str) -> Table | None:
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    columns = tuple(cell.strip() for cell in next(rows, []))
    if not columns or len(columns) > _MAX_COLUMNS:
        return None
    width = len(columns)
    padding = ("",) * width
    return Table(
        path=path,
        columns=columns,
        rows=tuple(
            (tuple(cell.strip() for cell in row) + padding)[:width] for row in rows if any(row)
        ),
    )


def _plain(path: str, text: str) -> Table | None:
    """The label is a line's last word. None where every line is of one word."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [(*line.rsplit(None, 1), "")[:2] for line in lines]
    if not any(label for _, label in rows):
        return None
    first, *others = rows
    return Table(path=path, columns=first, rows=tuple(others))


def without_header(table: Table) -> Table:
    """The same where the first row is a row like others."""
    names = tuple(f"column {number + 1}" for number in range(len(table.columns)))
    return Table(path=table.path, columns=names, rows=(table.columns, *table.rows))


def _of_records(path: str, records: Sequence[Mapping[str, Any]]) -> Table | None:
    columns = tuple(dict.fromkeys(str(name) for record in records for name in record))
    if not columns or len(columns) > _MAX_COLUMNS:
        return None
    rows = tuple(tuple(_text(record.get(name)) for name in columns) for record in records)
    return Table(path=path, columns=columns, rows=rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value)


def choices(cell: str) -> list[str]:
    """The labels that a cell names: one, or those of a list as Label Studio writes it."""
    if cell.startswith(("[", "{")):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]
        if isinstance(value, dict):
            value = value.get("choices", value.get("label", value))
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return [one.strip() for one in value if one.strip()]
        if isinstance(value, str):
            return [value.strip()] if value.strip() else []
    return [cell] if cell else []


def distinct(cells: Iterable[str]) -> set[str]:
    return {cell for cell in cells if cell}
