"""The train stage: the chosen network trained as the device would, and a plain one to compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.adapted import AdaptedSupernet
from search.space import Candidate
from service.work.job_run import JobRun
from service.work.pools.news import Done, Epoch, News, Resumed, Step
from service.work.pools.tasks import Shared, TrainTask, to_arrays
from service.work.progress import Stage
from tinytl.checkpoint import write_content
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
        config, weights = supernet.subnet_weights(candidate, store)
        self._run, self._store, self._name, self._share = run, store, name, share
        self._path = run.workplace.resumable(f"{name}.safetensors")
        self.share_done = 0.0
        self.task = TrainTask(
            config=config,
            method=supernet.method,
            weights=to_arrays(weights),
            candidate=candidate,
            settings=run.train_settings(),
            checkpoint=_content(self._path),
        )

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


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
