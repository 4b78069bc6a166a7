"""Files of tensors with a JSON header, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tinytl.errors import BundleError, TinyTLError

_HEADER_KEY = "header"
_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


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


def training_tensors(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Adam
) -> dict[str, Tensor]:
    """The parameters and their Adam state, by name, for write_tensors."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter.{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = value
    return tensors


@torch.no_grad()
def restore_training(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Adam,
) -> None:
    """Put back what training_tensors took. Raises BundleError where a tensor lacks or differs.

    A parameter that had taken no gradient yet has no Adam state.
    """
    try:
        for name, parameter in parameters.items():
            saved = tensors[f"parameter.{name}"]
            if saved.shape != parameter.shape:
                raise BundleError(
                    f"training state has the shape {tuple(saved.shape)} for {name!r}, "
                    f"not {tuple(parameter.shape)}"
                )
            parameter.copy_(saved)
            if f"step.{name}" in tensors:
                optimizer.state[parameter] = {key: tensors[f"{key}.{name}"] for key in _ADAM_STATE}
    except (KeyError, RuntimeError) as error:
        raise BundleError(f"training state is damaged: {error!r}") from error
