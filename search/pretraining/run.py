"""Pretraining from the first step to the file: checkpoints, log, validation, the result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.elastic.supernet import Supernet
from search.errors import PretrainError
from search.pretraining.group import Group
from search.pretraining.images import TrainingImages
from search.pretraining.output import Note, card, write_supernet
from search.pretraining.settings import PretrainSettings
from search.pretraining.start import initial_supernet
from search.pretraining.state import Done, TrainingState
from search.pretraining.trainer import Trainer
from search.pretraining.validation import (
    Validation,
    calibration_batches,
    named_subnets,
    random_subnets,
    summary,
)
from search.space.architecture import SupernetSpec
from tinytl.description.config import Normalization
from tinytl.engine.ops.normalize import normalize
from tinytl.errors import CancelledError
from tinytl.training.data import ImageStore

_LOG_STEPS = 50

Progress = dict[str, Any]
"""step and num_steps, of the training; and what was logged with this step, if anything: epoch,
loss by subnet, images_per_second, val_accuracy. Or evaluated and num_evaluations, at the end."""


def training_state(directory: Path, settings: PretrainSettings, note: Note) -> TrainingState:
    """The checkpoint and log in directory of this very training."""
    return TrainingState(directory, {"settings": asdict(settings), "data": note.data})


def pretrain(
    settings: PretrainSettings,
    store: ImageStore,
    directory: Path,
    note: Note,
    *,
    start: Supernet | None = None,
    group: Group | None = None,
    checkpoint_seconds: float = 60,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train a supernet; returns the path of its .safetensors in directory, a card beside it.

    The state is saved in directory every checkpoint_seconds and after each validation, and a run
    that finds it goes on from there, to the same result bit for bit on the same machine, with as
    many processes and threads. Raises CancelledError when should_stop asks for it, PretrainError
    for a checkpoint of another training or a loss that is no longer finite.
    """
    run = _Run(settings, store, directory, note, start, group or Group())
    run.train(checkpoint_seconds, on_progress, should_stop)
    path = directory / f"{settings.architecture}.safetensors"
    if run.group.is_first:
        run.deliver(path, on_progress, should_stop)
    return path


class _Run:
    """A pretraining in progress, in one of its processes."""

    def __init__(
        self,
        settings: PretrainSettings,
        store: ImageStore,
        directory: Path,
        note: Note,
        start: Supernet | None,
        group: Group,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.settings, self.note, self.group = settings, note, group
        normalization = SupernetSpec.parse(settings.architecture).normalization
        self.supernet = initial_supernet(
            settings,
            store.num_classes,
            start,
            lambda: _calibration_images(store, settings.resolutions[-1], normalization),
        )
        for module in (self.supernet.network, *self.supernet.lite_residuals.values()):
            module.to(group.device)
        self.trainer = Trainer(
            self.supernet,
            TrainingImages(store.split("train"), group.device, normalization),
            settings,
            rank=group.rank,
            world_size=group.world_size,
        )
        self.state = training_state(directory, settings, note)
        tensors, self.done = self.state.load()
        if tensors:
            self.trainer.restore(tensors)
        self.begun = time.monotonic()
        if group.is_first:
            self.state.cut_log(self.done.steps)
            self.validation = Validation(store, settings.resolutions[-1], group.device)

    def train(
        self,
        checkpoint_seconds: float,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        trainer = self.trainer
        losses: dict[str, Tensor] = {}
        saved = logged = time.monotonic()
        logged_steps = self.done.steps
        for step in range(self.done.steps, trainer.num_steps):
            if self.group.first_says(should_stop()):
                self._save(step, losses)
                raise CancelledError("pretraining was stopped")
            losses = trainer.train_step(step)
            if not self.group.is_first:
                continue
            entry: Progress = {"step": step + 1, "num_steps": trainer.num_steps}
            epoch, place = divmod(step + 1, trainer.steps_per_epoch)
            if place == 0 or entry["step"] % _LOG_STEPS == 0:
                num_images = (entry["step"] - logged_steps) * self.settings.batch_size
                entry["loss"] = _numbers(losses, step)
                entry["images_per_second"] = round(num_images / (time.monotonic() - logged), 1)
                if place == 0 and self.settings.validates_after(epoch):
                    entry |= {"epoch": epoch, "val_accuracy": self._accuracies()}
                self.state.log(entry)
                logged, logged_steps = time.monotonic(), entry["step"]
            on_progress(entry)
            if "epoch" in entry or time.monotonic() - saved > checkpoint_seconds:
                self._save(entry["step"], losses)
                saved = time.monotonic()

    def deliver(
        self,
        path: Path,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Evaluate the trained supernet, write it and its card, and let go of the checkpoint."""
        spec = self.supernet.spec
        subnets = named_subnets(spec) | random_subnets(spec)
        num_evaluations = len(subnets) * len(self._variants)
        top1: dict[str, Any] = {
            "data": f"{len(self.validation)} validation images at "
            f"{self.settings.resolutions[-1]} px",
        }
        num_done = 0
        for variant, lite_residuals in self._variants.items():
            found = {}
            for name, subnet in subnets.items():
                if should_stop():
                    raise CancelledError("pretraining was stopped")
                on_progress({"evaluated": num_done, "num_evaluations": num_evaluations})
                found[name] = self.validation.accuracy(
                    self.supernet, subnet, lite_residuals=lite_residuals
                )
                num_done += 1
            top1[variant] = summary(found)
        self.validation.recalibrate(self.supernet, spec.largest, lite_residuals=False)
        training = {
            "num_steps": self.trainer.num_steps,
            "processes": self.group.world_size,
            "device": self.done.device,
            "seconds": round(self.done.seconds),
        }
        about = card(self.supernet, self.settings, self.note, top1, training)
        write_supernet(path, self.supernet, about)
        self.state.save({}, replace(self.done, is_finished=True))

    @property
    def _variants(self) -> dict[str, bool]:
        """With and without lite residual modules, where there are any."""
        names = {"without_lite_residuals": False, "with_lite_residuals": True}
        return names if self.supernet.lite_residuals else {"without_lite_residuals": False}

    def _accuracies(self) -> dict[str, dict[str, float]]:
        return {
            variant: {
                name: round(
                    self.validation.accuracy(self.supernet, subnet, lite_residuals=lite_residuals),
                    4,
                )
                for name, subnet in named_subnets(self.supernet.spec).items()
            }
            for variant, lite_residuals in self._variants.items()
        }

    def _save(self, num_steps: int, losses: Mapping[str, Tensor]) -> None:
        """Only the first process writes, and only what training can go on from."""
        if self.group.is_first:
            _numbers(losses, num_steps)
            now = time.monotonic()
            seconds, self.begun = self.done.seconds + now - self.begun, now
            self.done = Done(num_steps, seconds, self.group.device.type)
            self.state.save(self.trainer.state(), self.done)


def _calibration_images(
    store: ImageStore, resolution: int, normalization: Normalization
) -> Tensor:
    images = torch.cat(list(calibration_batches(store.split("train"), resolution)))
    return normalize(images, normalization)


def _numbers(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """The losses of a step. Raises PretrainError where one is not finite."""
    found = {name: round(loss.item(), 4) for name, loss in losses.items()}
    if not all(map(math.isfinite, found.values())):
        raise PretrainError(
            f"training diverged near step {step}: the losses are {found}; start over with a "
            f"smaller learning rate"
        )
    return found
