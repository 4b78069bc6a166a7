"""Files of tensors with a JSON header, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tinytl.errors import BundleError, TinyTLError

_HEADER_KEY = "header"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to path atomically: readers see the old file or the new."""
    with written_whole(path) as partial:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, partial, metadata={_HEADER_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, say
            raise TinyTLError(f"can't write {path.name}: {error}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; once that has gone well, it takes path's place, on disk for certain."""
    partial = path.with_name(f"{path.name}.partial.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and header of a file of write_tensors. Raises BundleError for another file."""
    with open_tensors(path) as (tensors, header):
        return dict(tensors), header


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Mapping[str, Tensor], dict[str, Any]]]:
    """read_tensors, but each tensor is read anew whenever it is asked for: none stays."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER_KEY])
            if not isinstance(header, dict):
                raise BundleError(f"{path.name} has a header that is no JSON object")
            yield _StoredTensors(file), header
    except BundleError:
        raise
    except (OSError, KeyError, ValueError, RecursionError, SafetensorError) as error:
        raise BundleError(f"{path.name} is no tensor file of tinyfit: {error}") from error


class _StoredTensors(Mapping[str, Tensor]):
    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = set(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
