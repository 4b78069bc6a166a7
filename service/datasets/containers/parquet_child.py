"""The process that reads Parquet: a request on standard input, a refusal on standard output.

What it writes is an image a row, and a table of the other columns beside the images of each split.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

_MEMORY_BYTES = 2 << 30
"""Of addresses, of which much is never used."""
_ROWS_AT_ONCE = 16
_BUFFER_BYTES = 1 << 20
_RATIO_FLOOR_BYTES = 1_000_000
"""What is smaller than this may be compressed as it likes."""
_MAX_TEXT = 1_000
"""Of a cell that may be a label."""
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif", b"BM": ".bmp"}
_SPLIT = re.compile(r"[-_.]")


class _RefusedError(Exception):
    """A sentence for the user."""


def main() -> int:
    request = json.load(sys.stdin)
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow

    pyarrow.set_cpu_count(1)
    try:
        with zipfile.ZipFile(request["target"], "w", zipfile.ZIP_STORED) as target:
            _Conversion(request, target).run()
    except _RefusedError as error:
        sys.stdout.write(str(error))
    except (pyarrow.ArrowException, MemoryError, OSError, ValueError) as error:
        sys.stderr.write(repr(error))
        return 1
    return 0


class _Conversion:
    def __init__(self, request: dict[str, Any], target: zipfile.ZipFile) -> None:
        self._request = request
        self._target = target
        self._tables: dict[str, list[str]] = defaultdict(list)
        self._num_bytes = 0
        files = [os.stat(path).st_size for path, _ in request["files"]]
        self._most_by_ratio = max(_RATIO_FLOOR_BYTES, request["max_ratio"] * sum(files))

    def run(self) -> None:
        for path, name in self._request["files"]:
            self._convert(path, name)
        for folder, lines in self._tables.items():
            self._target.writestr(f"{folder}/metadata.jsonl", "\n".join(lines))

    def _convert(self, path: str, name: str) -> None:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES)
        schema = file.schema_arrow
        image = _image_column(schema, name)
        others = [field.name for field in schema if _is_scalar(field.type)]
        names = _class_names(schema)
        folder = _SPLIT.split(name.rsplit("/", 1)[-1])[0] or "train"
        batches = file.iter_batches(_ROWS_AT_ONCE, columns=[image, *others], use_threads=False)
        for row in _rows(batches):
            data = self._bytes(row[image], name)
            count = len(self._tables[folder])
            entry = f"{count:07d}{_SUFFIXES.get(data[:2], '.img')}"
            self._target.writestr(zipfile.ZipInfo(f"{folder}/{entry}"), data)
            cells = {one: _cell(row[one], names.get(one)) for one in others}
            self._tables[folder].append(json.dumps({**cells, "file_name": entry}))
            if sum(map(len, self._tables.values())) > self._request["max_images"]:
                raise _RefusedError(
                    f"{name!r} has more than {self._request['max_images']} images, the most that "
                    f"are accepted; split the dataset"
                )

    def _bytes(self, value: Any, name: str) -> bytes:
        """Of an image: bytes, or a structure of bytes and path, as Hugging Face has it."""
        path = ""
        if isinstance(value, dict):
            path, value = value.get("path") or "", value.get("bytes")
        if value is None:
            raise _RefusedError(
                f"{name!r} has no images in it but their paths on the machine that made it, such "
                f"as {str(path)[:200]!r}: embed them before to_parquet(), by "
                f"dataset.with_format('arrow').map(datasets.table.embed_table_storage, "
                f"batched=True).with_format(None), or send the folder of images itself"
            )
        data = bytes(value)
        self._num_bytes += len(data)
        if len(data) > self._request["max_image_bytes"]:
            raise _RefusedError(
                f"{name!r} has an image of {len(data)} bytes; at most "
                f"{self._request['max_image_bytes']} are accepted"
            )
        if self._num_bytes > self._request["max_bytes"]:
            raise _RefusedError(
                f"{name!r} unpacks to more than {self._request['max_bytes']} bytes of images; "
                f"split the dataset"
            )
        if self._num_bytes > self._most_by_ratio:
            raise _RefusedError(
                f"{name!r} unpacks to more than {self._request['max_ratio']:g} times its size, as "
                f"a bomb does; send images that differ"
            )
        return data


def _rows(batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()


def _image_column(schema: Any, name: str) -> str:
    from pyarrow import types

    for field in schema:
        kind = field.type
        if types.is_binary(kind) or types.is_large_binary(kind):
            return str(field.name)
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(field.name)
    raise _RefusedError(
        f"{name!r} has no column of images but {', '.join(map(repr, schema.names[:9]))}; send the "
        f"images themselves in class folders"
    )


def _is_scalar(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean)
    return any(test(kind) for test in tests)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Names of the classes that numbers stand for, by column, as Hugging Face notes them."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {
            column: feature["names"]
            for column, feature in noted.items()
            if feature.get("_type") == "ClassLabel"
        }
        return {column: [str(name) for name in names] for column, names in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _cell(value: Any, names: list[str] | None) -> Any:
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value[:_MAX_TEXT] if isinstance(value, str) else value


if __name__ == "__main__":
    raise SystemExit(main())
