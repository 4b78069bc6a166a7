"""What a running task tells of itself, through a pipe or a cluster if need be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search.adaptation.score import Score
from tinytl.training.train import EpochReport


@dataclass(frozen=True)
class Started:
    """The task has a place, and runs."""


@dataclass(frozen=True)
class Alive:
    """It gets on."""


@dataclass(frozen=True)
class Step:
    """So much of a training is done."""

    done: int
    total: int


@dataclass(frozen=True)
class Resumed:
    """A training goes on after these epochs."""

    history: tuple[EpochReport, ...]


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training is done. checkpoint: what it can go on from."""

    report: EpochReport
    checkpoint: bytes


@dataclass(frozen=True, eq=False)
class Done:
    """The task has ended well; a scoring with a score, a training with its last epoch."""

    score: Score | None = None


@dataclass(frozen=True, eq=False)
class Failed:
    """The task has ended with an error."""

    error: Exception


News = Started | Alive | Step | Resumed | Epoch | Done | Failed
Tell = Callable[[News], None]
