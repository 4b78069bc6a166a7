"""One attempt at a job: what its stages share."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from search.adaptation.adapt import AdaptSettings
from search.elastic.supernet import Supernet, load_supernet
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import SearchSpace
from search.space.families import Recipe
from service.contract.requests import JobSettings, MethodChoice
from service.contract.status import EventKind
from service.feasibility import job_spaces
from service.record.claims import Claim, add_epoch, add_log, set_progress
from service.record.db.database import Database
from service.record.db.models import Dataset, Job
from service.record.events import list_events
from service.record.files.artifacts import Workplace
from service.record.files.blobs import open_blobs
from service.settings import AUTO_SUPERNET, Settings
from service.work.job.job_files import JobFiles
from service.work.job.progress import Progress, Stage
from service.work.job.workload import SplitSizes, Workload
from service.work.pools.pool import OwnProcess, Pool
from service.work.pools.tasks import Parcel, Shared
from service.work.processes.lifeline import StopCheck
from tinytl.description.method import Method
from tinytl.errors import CancelledError
from tinytl.squares import Squaring
from tinytl.training.data import SPLITS, Augmentation, Sample, Split, split_samples
from tinytl.training.train import DEFAULT_LEARNING_RATES, EpochReport, TrainSettings


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
        return JobSettings.recorded(self.job.settings)

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

    @property
    def method(self) -> Method:
        """What the supernet is adapted with; candidates may be trained with less of it
        (search.space.lite_residual_sizes.method_of)."""
        return MethodChoice(self.job.method).method

    @property
    def spaces(self) -> tuple[SearchSpace, ...]:
        """Of the supernets that the job's data may choose; once it has, of that one alone."""
        return job_spaces(self.job, len(self.dataset.classes))

    @property
    def image_size(self) -> int:
        """The side at which images are stored, in pixels."""
        return self.spaces[0].stored_size

    @cached_property
    def squaring(self) -> Squaring:
        fit = self.options.fit
        return Squaring(
            fit="crop" if fit == "auto" else fit
        )  # auto is decided before it is queued

    @cached_property
    def space(self) -> SearchSpace:
        """Of the job's supernet, which is known by then."""
        (space,) = self.spaces
        return space

    @property
    def recipe(self) -> Recipe:
        """What the supernet needs; until the data has chosen one, the longest of those that it may
        choose."""
        recipes = [space.supernet.recipe for space in self.spaces]
        return max(recipes, key=lambda recipe: recipe.train_passes)

    @property
    def trained_splits(self) -> tuple[Split, ...]:
        return ("train", "val") if self.options.refit else ("train",)

    @cached_property
    def pricing(self) -> BulkPricing:
        return BulkPricing(
            self.space,
            self.method,
            len(self.dataset.classes),
            bounds=self.options.bounds,
        )

    @property
    def supernet_name(self) -> str:
        """Of the job's supernet, which is known by then."""
        return self.job.chosen_supernet or self.job.supernet

    @cached_property
    def supernet(self) -> Supernet:
        return self.load_supernet(self.supernet_name)

    def load_supernet(self, name: str) -> Supernet:
        return load_supernet(name, self.settings.supernet_cache_dir.expanduser())

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
        return Progress(self.workload.stages, self._write_progress)

    @property
    def workload(self) -> Workload:
        """As far as it is known: by the supernet that needs most until one is chosen."""
        looks = self.job.supernet_probes
        look_epochs = [1] * len(self.spaces)
        if looks is not None:
            look_epochs = [look.get("epochs", 1) for look in looks]
        is_named = self.job.supernet != AUTO_SUPERNET
        return Workload.of(
            self.options,
            self.recipe,
            self.split_sizes,
            resolutions=max((space.resolutions for space in self.spaces), key=max),
            look_epochs=[] if is_named else look_epochs,
        )

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
            steps=self.options.adapt_steps_by(self.recipe),
            learning_rate=self.recipe.adapt_learning_rate,
            label_smoothing=self.options.label_smoothing,
            augmentation=self.augmentation,
            seed=self.options.seed,
        )

    def final_settings(self, method: Method) -> TrainSettings:
        """Of the final training, by this method."""
        usual = min(DEFAULT_LEARNING_RATES[method], self.recipe.most_learning_rate)
        rate = self.options.learning_rate or usual
        return replace(self.train_settings(), learning_rate=rate)

    def train_settings(self) -> TrainSettings:
        sizes = self.split_sizes
        return TrainSettings(
            epochs=self.options.epochs_by(self.recipe, sizes.train, sizes.val),
            learning_rate=self.options.learning_rate,
            label_smoothing=self.options.label_smoothing,
            augmentation=self.augmentation,
            class_weights=self.options.class_weights,
            refit=self.options.refit,
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
