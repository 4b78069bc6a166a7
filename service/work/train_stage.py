"""The train stage: the chosen network trained as the device would, and a plain one to compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from search.adapted import AdaptedSupernet
from search.pricing import network_of
from search.space import Candidate
from service.work.job_run import JobRun
from service.work.pools.news import Done, Epoch, News, Resumed, Step
from service.work.pools.tasks import Shared, TrainTask, to_arrays
from service.work.progress import Stage
from tinytl.checkpoint import read_tensors, write_content, write_tensors
from tinytl.data import ImageStore
from tinytl.network import Network
from tinytl.train import EpochReport
from tinytl.train import train as train_network
from tinytl.trainable import Method


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network to deliver, and the same subnet with only its head trained, to compare."""

    network: Network
    validation_accuracy: float
    history: tuple[EpochReport, ...]
    head_only: Network


def train(
    run: JobRun, store: ImageStore, adapted: AdaptedSupernet, candidate: Candidate
) -> Trained:
    """Train the chosen subnet as the device would, and the head-only one as long."""
    plain = AdaptedSupernet.fresh(
        run.supernet, store.num_classes, method=Method.HEAD, seed=run.options.seed
    )
    work = run.train_work
    trainings = [
        _Training(run, store, adapted, candidate, "tinytl", work.training / work.total),
        _Training(run, store, plain, candidate, "head_only", work.head_training / work.total),
    ]

    def on_news(number: int, news: News) -> None:
        trainings[number].hear(news)
        share = work.measured + sum(training.share_done for training in trainings)
        if isinstance(news, Resumed):
            run.progress.resume(Stage.TRAIN, share, 1.0)
        else:
            run.progress.report(Stage.TRAIN, share, 1.0)

    with run.pool(Shared(store=store)) as pool:
        pool.run([training.task for training in trainings], on_news)
    (network, history), (head_only, _) = (training.trained() for training in trainings)
    return Trained(
        network=network,
        validation_accuracy=history[-1].val_accuracy,
        history=history,
        head_only=head_only,
    )


class _Training:
    """One of the two trainings, as its news tell of it. share: of the stage's progress."""

    def __init__(
        self,
        run: JobRun,
        store: ImageStore,
        supernet: AdaptedSupernet,
        candidate: Candidate,
        name: str,
        share: float,
    ) -> None:
        self._run, self._store, self._name, self._share = run, store, name, share
        self._path = run.workplace.resumable(f"{name}.safetensors")
        self.share_done = 0.0
        self.task = TrainTask(
            config=network_of(supernet.spec, candidate, supernet.method, store.num_classes),
            method=supernet.method,
            weights=to_arrays(self._cut_weights(supernet, candidate)),
            candidate=candidate,
            settings=run.train_settings(),
            checkpoint=_content(self._path),
        )

    def _cut_weights(
        self, supernet: AdaptedSupernet, candidate: Candidate
    ) -> Mapping[str, Tensor]:
        """The subnet's weights before the training, cut once for all attempts: on another
        processor, or with other threads, statistics come out a little different."""
        kind, header = f"{self._name}_weights", {"candidate": _without_plan(candidate)}
        path = self._run.files.found(kind)
        if path is not None:
            weights, found = read_tensors(path)
            if found == header:
                return weights
        _, weights = supernet.subnet_weights(candidate, self._store)
        path = self._run.workplace.path(f"{kind}.safetensors")
        write_tensors(path, weights, header)
        self._run.files.publish(kind, path)
        return weights

    def hear(self, news: News) -> None:
        if isinstance(news, Step):
            self.share_done = self._share * news.done / news.total
        elif isinstance(news, Done):
            self.share_done = self._share
        elif isinstance(news, Epoch):
            write_content(self._path, news.checkpoint)
            self._run.tell_epoch(self._name, news.report)
        elif isinstance(news, Resumed):
            for report in news.history:  # saved by an attempt that died before it told of it
                self._run.tell_epoch(self._name, report)
            self.share_done = self._share * len(news.history) / self.task.settings.epochs

    def trained(self) -> tuple[Network, tuple[EpochReport, ...]]:
        """As its last epoch has left it: nothing is left to train."""
        network, task = self.task.network(), self.task
        history = train_network(
            network,
            self._store,
            resolution=task.candidate.resolution,
            plan=task.candidate.plan,
            settings=task.settings,
            checkpoint=self._path,
        )
        return network, history


def _without_plan(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.to_dict().items() if name != "plan"}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
