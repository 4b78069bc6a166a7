"""Subnets trained alone, each from its weights in an adapted supernet, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from search.adaptation.adapted import AdaptedSupernet
from search.pretraining.processes import end_with_parent
from search.space.candidates import Candidate
from tinytl.engine.network import build_network
from tinytl.training.data import ImageStore
from tinytl.training.train import TrainSettings, evaluate, train

_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A subnet after training: accuracies between 0 and 1, seconds of the processor."""

    validation_accuracy: float
    test_accuracy: float
    seconds: float

    def describe(self) -> str:
        accuracies = (100 * self.validation_accuracy, 100 * self.test_accuracy)
        return "{:.1f} and {:.1f} % right, {:.0f} s".format(*accuracies, self.seconds)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One subnet to train, from the adapted supernet saved at a path."""

    adapted: Path
    images: Path
    candidate: Candidate
    settings: TrainSettings

    def run(self) -> Trained:
        adapted, store = _opened(self.adapted, self.images)
        started = time.process_time()
        config, weights = adapted.subnet_weights(self.candidate, store)
        network = build_network(config, adapted.method_of(self.candidate), weights)
        train(
            network,
            store,
            resolution=self.candidate.resolution,
            plan=self.candidate.plan,
            settings=self.settings,
        )
        seconds = time.process_time() - started
        validation_accuracy, test_accuracy = (
            evaluate(
                network,
                store.split(split),
                resolution=self.candidate.resolution,
                batch_size=_EVALUATION_BATCH,
            )
            for split in ("val", "test")
        )
        return Trained(
            validation_accuracy=validation_accuracy, test_accuracy=test_accuracy, seconds=seconds
        )


@cache
def _opened(adapted: Path, images: Path) -> tuple[AdaptedSupernet, ImageStore]:
    return AdaptedSupernet.load(adapted), ImageStore.open(images)


def side_by_side(trainings: Sequence[Training], num_processes: int) -> Iterator[Trained]:
    """Their outcomes in order, as they come, from num_processes processes."""
    with ProcessPoolExecutor(
        num_processes, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        yield from pool.map(Training.run, trainings)
