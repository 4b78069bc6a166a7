"""One attempt at a job: what its stages share."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from search.adapt import AdaptSettings
from search.bulk_pricing import BulkPricing
from search.space import SearchSpace
from search.supernet import Supernet, load_supernet
from service.feasibility import search_space
from service.record.artifacts import Workplace
from service.record.blobs import open_blobs
from service.record.claims import Claim, add_epoch, add_log, set_progress
from service.record.database import Database
from service.record.events import list_events
from service.record.models import Dataset, EventKind, Job
from service.schemas import JobSettings
from service.settings import Settings
from service.work.job_files import JobFiles
from service.work.lifeline import StopCheck
from service.work.pools.pool import OwnProcess, Pool
from service.work.pools.tasks import Parcel, Shared
from service.work.progress import (
    Progress,
    SplitSizes,
    Stage,
    TrainWork,
    stage_work,
    train_work,
)
from tinytl.data import SPLITS, Augmentation, Sample, split_samples
from tinytl.errors import CancelledError
from tinytl.train import EpochReport, TrainSettings
from tinytl.trainable import Method


@dataclass(kw_only=True)
class JobRun:
    """One attempt at a job: its rows, its folder, and how it says how far it is."""

    settings: Settings
    database: Database
    claim: Claim
    job: Job
    dataset: Dataset
    workplace: Workplace
    should_stop: StopCheck

    @cached_property
    def options(self) -> JobSettings:
        return JobSettings.model_validate(self.job.settings)

    @cached_property
    def files(self) -> JobFiles:
        blobs = open_blobs(
            self.settings,
            self.database,
            patience_seconds=self.settings.artifact_patience_seconds,
            on_wait=self.check_stop,
        )
        return JobFiles(
            settings=self.settings,
            database=self.database,
            claim=self.claim,
            workplace=self.workplace,
            blobs=blobs,
        )

    @cached_property
    def method(self) -> Method:
        return Method(self.job.method)

    @cached_property
    def space(self) -> SearchSpace:
        return search_space(self.job.supernet, self.options, self.method)

    @cached_property
    def pricing(self) -> BulkPricing:
        return BulkPricing(self.space, self.method, len(self.dataset.classes))

    @cached_property
    def supernet(self) -> Supernet:
        cache_dir = self.settings.supernet_cache_dir.expanduser()
        return load_supernet(self.job.supernet, cache_dir)

    @cached_property
    def split_sizes(self) -> SplitSizes:
        """By the counts alone: which images fill a missing split makes no difference."""
        samples = [
            Sample(path=Path(str(number)), label=label, split=split)
            for split in SPLITS
            for label, name in enumerate(self.dataset.classes)
            for number in range(self.dataset.counts.get(split, {}).get(name, 0))
        ]
        counts = Counter(s.split for s in split_samples(samples, seed=self.options.seed))
        return SplitSizes(train=counts["train"], val=counts["val"], test=counts["test"])

    @cached_property
    def progress(self) -> Progress:
        return Progress(stage_work(self.options, self.split_sizes), self._write_progress)

    @cached_property
    def train_work(self) -> TrainWork:
        return train_work(self.options, self.split_sizes)

    @cached_property
    def augmentation(self) -> Augmentation:
        return Augmentation(
            horizontal_flip=self.options.horizontal_flip,
            min_crop_scale=self.options.min_crop_scale,
        )

    @cached_property
    def _told_epochs(self) -> set[tuple[str, int]]:
        """Training and number of each epoch of which there is an event."""
        told: set[tuple[str, int]] = set()
        after = 0
        while events := list_events(self.database, self.job.id, after=after):
            after = events[-1].number
            epochs = [event.detail for event in events if event.kind is EventKind.EPOCH]
            told.update((epoch["training"], epoch["epoch"]) for epoch in epochs)
        return told

    def adapt_settings(self) -> AdaptSettings:
        return AdaptSettings(
            method=self.method,
            lite_residual_sizes=self.space.lite_residual_sizes,
            steps=self.options.adapt_steps,
            label_smoothing=self.options.label_smoothing,
            augmentation=self.augmentation,
            seed=self.options.seed,
        )

    def train_settings(self) -> TrainSettings:
        return TrainSettings(
            epochs=self.options.epochs,
            learning_rate=self.options.learning_rate,
            label_smoothing=self.options.label_smoothing,
            augmentation=self.augmentation,
            seed=self.options.seed,
        )

    def pool(self, shared: Shared) -> AbstractContextManager[Pool]:
        """Where a stage's tasks are to run."""
        settings = self.settings
        if settings.ray_address is not None:
            from service.work.pools.cluster import RayPool

            return RayPool(
                settings.ray_address,
                shared,
                self.should_stop,
                patience_seconds=settings.ray_patience_seconds,
                gpus_per_task=settings.ray_gpus_per_task,
                say=self.log,
            )
        if settings.pool_processes > 1:
            from service.work.pools.processes import ProcessPool

            parcel = Parcel.for_this_machine(shared)
            return ProcessPool(settings.pool_processes, parcel, self.should_stop)
        return nullcontext(OwnProcess(shared, self.should_stop))

    def check_stop(self) -> None:
        if self.should_stop():
            raise CancelledError("the job was asked to stop")

    def log(self, message: str) -> None:
        """Tell whoever follows the job."""
        add_log(self.database, self.claim, message)

    def tell_epoch(self, training: str, report: EpochReport) -> None:
        """Tell of an epoch, unless an earlier attempt has, and publish its checkpoint."""
        epoch = (training, report.epoch)
        if epoch not in self._told_epochs:
            add_epoch(self.database, self.claim, training=training, **asdict(report))
            self._told_epochs.add(epoch)
        is_last = report.epoch + 1 == report.num_epochs
        self.files.publish_resumable(f"{training}.safetensors", is_last=is_last)

    def _write_progress(self, stage: Stage, progress: float, seconds_left: float | None) -> None:
        set_progress(
            self.database,
            self.claim,
            stage=stage.value,
            progress=progress,
            seconds_left=seconds_left,
        )
