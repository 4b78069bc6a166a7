"""What a pretraining leaves while it goes on: a checkpoint, and a log of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from search.errors import PretrainError
from tinytl.errors import BundleError
from tinytl.training.checkpoint import atomic_write, open_tensors, read_tensors, write_tensors

CHECKPOINT = ".checkpoint.safetensors"
"""Hidden: of all the folder's *.safetensors the supernet is the only one."""

LOG = "log.jsonl"


@dataclass(frozen=True)
class Done:
    """How far a training is: its steps, the seconds that they took, and the device of the last."""

    steps: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    is_finished: bool = False
    """The supernet is written, and the checkpoint holds no tensors any more."""


class TrainingState:
    """The checkpoint and the log of the training that identity tells of, in directory.

    identity is JSON, of values by name in groups by name: what must be the same for a training
    to go on.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Mapping[str, Any]]) -> None:
        self._path, self._log = directory / CHECKPOINT, directory / LOG
        self._identity = json.loads(json.dumps(identity))

    def done(self) -> Done:
        """How far it is. Raises PretrainError for a checkpoint of another training."""
        if not self._path.exists():
            return Done()
        try:
            with open_tensors(self._path) as (_, header):
                pass
        except BundleError as error:
            raise self._damaged(error) from error
        return self._checked(header)

    def load(self) -> tuple[dict[str, Tensor], Done]:
        """The tensors that training goes on from, none at its start."""
        if not self._path.exists():
            return {}, Done()
        try:
            tensors, header = read_tensors(self._path)
        except BundleError as error:
            raise self._damaged(error) from error
        return tensors, self._checked(header)

    def save(self, tensors: Mapping[str, Tensor], done: Done) -> None:
        write_tensors(self._path, tensors, {"training": self._identity, "done": vars(done)})

    def log(self, entry: Mapping[str, Any]) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def cut_log(self, num_steps: int) -> None:
        """Leave out what was logged after these steps."""
        if self._log.exists():
            lines = self._log.read_text().splitlines()
            kept = [line for line in lines if _is_entry(line, num_steps)]
            with atomic_write(self._log) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept))

    def _checked(self, header: Mapping[str, Any]) -> Done:
        try:
            there, done = header["training"], Done(**header["done"])
            found = differences(there, self._identity)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error
        if found:
            raise PretrainError(
                f"{str(self._path.parent)!r} holds another training ({'; '.join(found)}); name "
                f"another folder, or remove that one"
            )
        return done

    def _damaged(self, error: Exception) -> PretrainError:
        return PretrainError(
            f"checkpoint {str(self._path)!r} is damaged ({error}); remove it to start over"
        )


def differences(
    there: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What differs between two trainings, in words."""
    return [
        f"{name.replace('_', ' ')} {there[group].get(name)!r} there, {now[group].get(name)!r} now"
        for group in now
        for name in {**now[group], **there[group]}
        if there[group].get(name) != now[group].get(name)
    ]


def _is_entry(line: str, num_steps: int) -> bool:
    """A line that was written whole, about one of these steps."""
    try:
        return bool(json.loads(line)["step"] <= num_steps)
    except ValueError:
        return False
