"""The train stage: the chosen network trained as the device would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.head_only import pretrained_subnet
from search.space.candidates import Candidate
from search.space.pricing import network_of
from service.views.results import Trainer
from service.work.job.job_run import JobRun
from service.work.job.progress import Stage
from service.work.pools.news import Done, Epoch, News, Resumed, Step
from service.work.pools.tasks import Shared, TrainTask, to_arrays
from tinytl.description.method import PeakMeaning
from tinytl.engine.network import Network
from tinytl.native.training import is_device_checkpoint, read_training, trains_alike
from tinytl.training.checkpoint import FileCheckpoint, read_tensors, write_content, write_tensors
from tinytl.training.data import ImageStore
from tinytl.training.train import EpochReport
from tinytl.training.train import train as train_network

_NAME = "tinytl"
_FILE = f"{_NAME}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network to deliver, and the weights that it had before.

    validation_accuracy: None where these images were trained on. process_peak_bytes: of the device
    trainer's whole process while it trained; None where torch did.
    """

    network: Network
    start: Mapping[str, Tensor]
    trained_by: Trainer
    process_peak_bytes: int | None
    validation_accuracy: float | None
    history: tuple[EpochReport, ...]


def train(
    run: JobRun, store: ImageStore, adapted: AdaptedSupernet, candidate: Candidate
) -> Trained:
    """Train the chosen subnet as the device would."""
    training = _Training(run, store, adapted, candidate)
    measured = run.workload.measured

    def on_news(number: int, news: News) -> None:
        training.hear(news)
        share = measured + (1 - measured) * training.share_done
        if isinstance(news, Resumed):
            run.progress.resume(Stage.TRAIN, share, 1.0)
        else:
            run.progress.report(Stage.TRAIN, share, 1.0)

    with run.pool(Shared(store=store)) as pool:
        pool.run([training.task], on_news)
    found = training.trained()
    return Trained(
        network=found.network,
        start=training.start,
        trained_by=found.trained_by,
        process_peak_bytes=found.process_peak_bytes,
        validation_accuracy=found.history[-1].val_accuracy,
        history=found.history,
    )


class _Finished(NamedTuple):
    network: Network
    history: tuple[EpochReport, ...]
    trained_by: Trainer
    process_peak_bytes: int | None


class _Training:
    """The training, as its news tell of it."""

    def __init__(
        self, run: JobRun, store: ImageStore, supernet: AdaptedSupernet, candidate: Candidate
    ) -> None:
        self._run, self._store = run, store
        self._path = run.workplace.resumable(_FILE)
        self.share_done = 0.0
        method = supernet.method_of(candidate)
        settings = run.final_settings(method)
        self.start = self._start(supernet, candidate)
        self.task = TrainTask(
            config=network_of(supernet.spec, candidate, supernet.method, store.num_classes),
            method=method,
            weights=to_arrays(self.start),
            candidate=candidate,
            settings=settings,
            checkpoint=_content(self._path),
            by_device_trainer=run.job.peak_meaning is PeakMeaning.PROCESS
            and trains_alike(method, settings, store),
            scratch=run.workplace.path("."),
        )

    def _start(self, supernet: AdaptedSupernet, candidate: Candidate) -> Mapping[str, Tensor]:
        """The subnet's weights before the training, found once for all attempts: on another
        processor, or with other threads, statistics come out a little different."""
        is_adapted = self._run.recipe.starts_adapted
        kind = f"{_NAME}_weights"
        header: dict[str, Any] = {"candidate": _without_plan(candidate)}
        if not is_adapted:  # an earlier version's are
            header["start"] = "pretrained"
        path = self._run.files.found(kind)
        if path is not None:
            weights, found = read_tensors(path)
            if found == header:
                return weights
        if is_adapted:
            _, weights = supernet.subnet_weights(candidate, self._store)
        else:
            weights = pretrained_subnet(
                self._run.supernet,
                candidate,
                self._store,
                method=supernet.method_of(candidate),
                splits=self._run.trained_splits,
                seed=self._run.options.seed,
                should_stop=self._run.should_stop,
            )
        path = self._run.workplace.path(f"{kind}.safetensors")
        write_tensors(path, weights, header)
        self._run.files.publish(kind, path)
        return weights

    def hear(self, news: News) -> None:
        if isinstance(news, Step):
            self.share_done = news.done / news.total
        elif isinstance(news, Done):
            self.share_done = 1.0
        elif isinstance(news, Epoch):
            write_content(self._path, news.checkpoint)
            self._run.tell_epoch(_NAME, news.report)
        elif isinstance(news, Resumed):
            for report in news.history:  # saved by an attempt that died before it told of it
                self._run.tell_epoch(_NAME, report)
            self.share_done = len(news.history) / self.task.settings.epochs

    def trained(self) -> _Finished:
        """As its last epoch has left it: nothing is left to train."""
        network, task = self.task.network(), self.task
        checkpoint = FileCheckpoint(self._path)
        if is_device_checkpoint(checkpoint):
            found = read_training(network, task.candidate.plan, checkpoint)
            return _Finished(network, found.history, "native", found.peak_resident_bytes)
        history = train_network(
            network,
            self._store,
            resolution=task.candidate.resolution,
            plan=task.candidate.plan,
            settings=task.settings,
            checkpoint=self._path,
        )
        return _Finished(network, history, "torch", None)


def _without_plan(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.to_dict().items() if name != "plan"}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
