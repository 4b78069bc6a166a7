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

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.score import score
from search.space.candidates import Candidate
from search.statistics.certainty import Correct
from service.work.pools.news import Done, Epoch, News, Resumed, Step, Tell
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.engine.network import Network, build_network
from tinytl.errors import BundleError
from tinytl.native.build import BuildError, build_trainer
from tinytl.native.training import is_device_checkpoint, train_by
from tinytl.training.checkpoint import MemoryCheckpoint
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import EpochReport, TrainSettings, train

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
    """Scores a candidate, as search.adaptation.score.score says."""

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
    """Trains a network as a device would. checkpoint: what an earlier run of it has left.

    by_device_trainer: whether that of the device does it, where it can be built and there is no
    GPU; else the torch engine does. scratch: where files may be left meanwhile, on this machine.
    """

    config: NetworkConfig
    method: Method
    weights: Mapping[str, np.ndarray]
    candidate: Candidate
    settings: TrainSettings
    checkpoint: bytes | None = None
    by_device_trainer: bool = False
    scratch: Path | None = None

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
        trainer = self._device_trainer(shared, checkpoint)

        def on_epoch(report: EpochReport) -> None:
            assert checkpoint.content is not None
            tell(Epoch(report, checkpoint.content))

        if trainer is not None:
            self._train_by(trainer, shared, checkpoint, tell, on_epoch, should_stop)
            tell(Done())
            return
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

    def _device_trainer(self, shared: Shared, checkpoint: MemoryCheckpoint) -> Path | None:
        """The executable; None where the torch engine is to train, or has begun to."""
        if not self.by_device_trainer or shared.device != _CPU:
            return None
        if checkpoint.exists() and not is_device_checkpoint(checkpoint):
            return None
        try:
            return build_trainer()
        except BuildError as error:
            logger.info("the torch engine trains: %s", error)
            return None

    def _train_by(
        self,
        trainer: Path,
        shared: Shared,
        checkpoint: MemoryCheckpoint,
        tell: Tell,
        on_epoch: Callable[[EpochReport], None],
        should_stop: Callable[[], bool],
    ) -> None:
        steps = -(-len(shared.store.split("train")) // self.candidate.plan.batch_size)

        def end_epoch(report: EpochReport) -> None:
            tell(Step((report.epoch + 1) * steps, report.num_epochs * steps))
            on_epoch(report)

        train_by(
            trainer,
            self.network(),
            shared.store,
            resolution=self.candidate.resolution,
            plan=self.candidate.plan,
            settings=self.settings,
            checkpoint=checkpoint,
            scratch=self.scratch if self.scratch and self.scratch.is_dir() else None,
            on_resume=lambda history: tell(Resumed(tuple(history))),
            on_epoch=end_epoch,
            should_stop=should_stop,
        )

    def after(self, news: News) -> Self:
        return replace(self, checkpoint=news.checkpoint) if isinstance(news, Epoch) else self


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """As arrays, which pickle without a copy, and never by way of shared memory."""
    return {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Copies: arrays that came through an object store can't be written to."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
