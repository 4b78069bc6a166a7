"""The tasks of a job that can run apart from it: to score a candidate, to train a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from search.adapted import AdaptedSupernet
from search.certainty import Correct
from search.score import score
from search.space import Candidate
from service.work.pools.news import Done, Epoch, News, Resumed, Step, Tell
from tinytl.checkpoint import MemoryCheckpoint
from tinytl.config import NetworkConfig
from tinytl.data import ImageSplit, ImageStore, Split
from tinytl.errors import BundleError
from tinytl.network import Network, build_network
from tinytl.train import EpochReport, TrainSettings, train
from tinytl.trainable import Method

logger = logging.getLogger(__name__)

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all tasks of a stage work with, and on which device; trainings have no use for the
    supernet, which is there."""

    store: ImageStore
    adapted: AdaptedSupernet | None = None
    device: torch.device = _CPU


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The same on its way to another process: images as a folder, where that process is on this
    machine, so that they stay memory-mapped; else as arrays, without those for the test.
    """

    images: Path | ImageStore
    adapted: tuple[dict[str, np.ndarray], dict[str, Any]] | None

    @classmethod
    def for_this_machine(cls, shared: Shared) -> Parcel:
        assert shared.store.directory is not None
        return cls(images=shared.store.directory, adapted=_packed(shared.adapted))

    @classmethod
    def for_any_machine(cls, shared: Shared) -> Parcel:
        store = shared.store
        splits: dict[Split, ImageSplit] = {name: store.split(name) for name in ("train", "val")}
        images = ImageStore(splits, store.classes, store.image_size)
        return cls(images=images, adapted=_packed(shared.adapted))

    def open(self, device: torch.device = _CPU) -> Shared:
        store, adapted = self.images, None
        if isinstance(store, Path):
            store = ImageStore.open(store)
        if self.adapted is not None:
            arrays, header = self.adapted
            tensors = to_tensors(arrays)
            adapted = AdaptedSupernet.from_tensors(tensors, header, source="the shared supernet")
            adapted.to(device)
        return Shared(store=store, adapted=adapted, device=device)


def _packed(
    adapted: AdaptedSupernet | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    if adapted is None:
        return None
    tensors, header = adapted.to_tensors()
    return to_arrays(tensors), header


class Task(Protocol):
    """Something to run. It can be pickled, and depends on itself and what is shared alone."""

    def run(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        """Run it to its end; the last news is Done. Asks should_stop at every step."""
        ...

    def after(self, news: News) -> Self:
        """What is left of the task, should it be lost after this news."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTask:
    """Scores a candidate, as search.score.score says."""

    candidate: Candidate
    seed: int
    horizontal_flip: bool
    rivals: tuple[Correct, ...]

    def run(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        assert shared.adapted is not None
        found = score(
            shared.adapted,
            self.candidate,
            shared.store,
            seed=self.seed,
            horizontal_flip=self.horizontal_flip,
            rivals=self.rivals,
            should_stop=should_stop,
        )
        tell(Done(found))

    def after(self, news: News) -> Self:
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainTask:
    """Trains a network as a device would. checkpoint: what an earlier run of it has left."""

    config: NetworkConfig
    method: Method
    weights: Mapping[str, np.ndarray]
    candidate: Candidate
    settings: TrainSettings
    checkpoint: bytes | None = None

    def network(self) -> Network:
        """As it is before the training."""
        return build_network(self.config, self.method, to_tensors(self.weights))

    def run(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        try:
            self._train(shared, tell, should_stop)
        except BundleError as error:  # before anything is told
            if self.checkpoint is None:
                raise
            logger.warning("the training begins anew: %s", error)
            replace(self, checkpoint=None)._train(shared, tell, should_stop)

    def _train(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        checkpoint = MemoryCheckpoint(self.checkpoint)

        def on_epoch(report: EpochReport) -> None:
            assert checkpoint.content is not None
            tell(Epoch(report, checkpoint.content))

        train(
            self.network().to(shared.device),
            shared.store,
            resolution=self.candidate.resolution,
            plan=self.candidate.plan,
            settings=self.settings,
            checkpoint=checkpoint,
            on_resume=lambda history: tell(Resumed(tuple(history))),
            on_epoch=on_epoch,
            on_step=lambda done, total: tell(Step(done, total)),
            should_stop=should_stop,
        )
        tell(Done())

    def after(self, news: News) -> Self:
        return replace(self, checkpoint=news.checkpoint) if isinstance(news, Epoch) else self


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """As arrays, which pickle without a copy, and never by way of shared memory."""
    return {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Copies: arrays that came through an object store can't be written to."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
