"""Tensors with a JSON header: files written whole or not at all, and the same as bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file
from torch import Tensor

from tinytl.errors import BundleError, TinyTLError

_HEADER_KEY = "header"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to path atomically: readers see the old file or the new."""
    with atomic_write(path) as partial:
        try:
            save_file(_contiguous(tensors), partial, metadata=_metadata(header))
        except SafetensorError as error:  # a full disk, say
            raise TinyTLError(f"can't write {path.name}: {error}") from error


def write_content(path: Path, content: bytes) -> None:
    """Write to path, atomically, what a file of write_tensors holds."""
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise TinyTLError(f"can't write {path.name}: {error}") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to; once that has gone well, it takes path's place, on disk for certain."""
    partial = path.with_name(f"{path.name}.partial.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Names tensors with their names."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode() + tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


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


class Checkpoint(Protocol):
    """Where a training saves its state, and finds it again."""

    name: str

    def exists(self) -> bool: ...

    def open(self) -> AbstractContextManager[tuple[Mapping[str, Tensor], dict[str, Any]]]:
        """Tensors and header as they were saved. Raises BundleError where that is damaged."""
        ...

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None: ...


class FileCheckpoint:
    """On disk."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path

    def exists(self) -> bool:
        return self._path.exists()

    def open(self) -> AbstractContextManager[tuple[Mapping[str, Tensor], dict[str, Any]]]:
        return open_tensors(self._path)

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        write_tensors(self._path, tensors, header)


class MemoryCheckpoint:
    """In memory, as the bytes that a file of write_tensors holds."""

    name = "in memory"

    def __init__(self, content: bytes | None = None) -> None:
        self.content = content

    def exists(self) -> bool:
        return self.content is not None

    @contextmanager
    def open(self) -> Iterator[tuple[Mapping[str, Tensor], dict[str, Any]]]:
        assert self.content is not None
        yield _parse(self.content)

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        self.content = save_bytes(_contiguous(tensors), metadata=_metadata(header))


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    return {_HEADER_KEY: json.dumps(header)}


def _parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load_bytes(content)
        # safetensors: the length of its JSON, eight bytes, and then that JSON.
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8:end])["__metadata__"][_HEADER_KEY])
        if not isinstance(header, dict):
            raise BundleError("these bytes have a header that is no JSON object")
    except BundleError:
        raise
    except (KeyError, ValueError, RecursionError, SafetensorError) as error:
        raise BundleError(f"these bytes are no tensor file of tinyfit: {error}") from error
    return tensors, header


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
