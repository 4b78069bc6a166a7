"""The training loop that a device runs: Adam, cosine schedule, micro-batches, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from tinytl.description.class_weights import ClassWeights, balanced_order, is_balanced
from tinytl.description.method import Method
from tinytl.description.ofa_format import to_ofa
from tinytl.description.plan import Plan
from tinytl.engine.network import Network
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import Batch, run_step
from tinytl.errors import (
    BundleError,
    CancelledError,
    DataError,
    DivergenceError,
    TinyTLError,
)
from tinytl.training.checkpoint import Checkpoint, FileCheckpoint, sha256_of
from tinytl.training.data import Augmentation, ImageSplit, ImageStore, Split

_NOTED_LATER = "image_values"
_BALANCED, _REFIT = "balanced", "refit"
"""What checkpoints of earlier versions don't tell, which did neither."""

DEFAULT_LEARNING_RATES = {
    Method.HEAD: 4e-3,
    Method.BIAS: 2e-3,
    Method.LITE_RESIDUAL: 6e-3,
    Method.LITE_RESIDUAL_BIAS: 6e-3,
    Method.NORM_HEAD: 2e-3,
    Method.FULL: 1e-3,
}
"""Adam's peak learning rate at batch 8, by method."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long and how fast a network is trained; learning_rate None takes the method's own.

    class_weights: "balanced" looks at images of every class as often, "none" at every image once
    an epoch, "auto" does the first where classes are uneven (tinytl.description.class_weights).
    refit: validation images are trained on as well, for a network that they have chosen already;
    none are left to tell how far it is.
    """

    epochs: int = 10
    learning_rate: float | None = None
    label_smoothing: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    class_weights: ClassWeights = "auto"
    refit: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, at_least in (("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < at_least:
                raise TinyTLError(
                    f"{name} must be an integer of at least {at_least} but got {value!r}"
                )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise TinyTLError(f"learning_rate must be positive but got {self.learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise TinyTLError(
                f"label_smoothing must be at least 0 and below 1 but got {self.label_smoothing}"
            )
        if self.class_weights not in get_args(ClassWeights):
            raise TinyTLError(
                f"class_weights must be one of {', '.join(get_args(ClassWeights))} but got "
                f"{self.class_weights!r}"
            )


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished epoch; loss is the mean over its images, accuracy, between 0 and 1, None where
    the validation images were trained on."""

    epoch: int
    num_epochs: int
    train_loss: float
    val_accuracy: float | None
    seconds: float


def train(
    network: Network,
    store: ImageStore,
    *,
    resolution: int,
    plan: Plan,
    settings: TrainSettings,
    checkpoint: Checkpoint | Path | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_resume: Callable[[Sequence[EpochReport]], None] = lambda history: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[EpochReport, ...]:
    """Train the network in place on store's train split and return a report for each epoch.

    It is trained on the device that it is on. Checkpoints are the same from every device, and
    serve on every other.
    on_step is told how many of all updates are done, on_resume the epochs that the checkpoint
    holds, on_epoch each one after. With a checkpoint, or the path of one, every epoch is saved
    there atomically, and a run that finds one goes on after its last epoch, to the same result
    bit for bit, whatever the trained values of the network are by then. Raises CancelledError
    when should_stop asks for it (the last saved epoch stays), BundleError for a checkpoint of
    another run: of other frozen values, images, plan or settings; DataError for a store that is
    none for this network.
    """
    run = _Run(network, store, resolution, plan, settings)
    history = []
    if isinstance(checkpoint, Path):
        checkpoint = FileCheckpoint(checkpoint)
    if checkpoint is not None and checkpoint.exists():
        history = run.resume(checkpoint)
        on_resume(history)
    for epoch in range(len(history), settings.epochs):
        started = time.perf_counter()
        loss = run.train_epoch(epoch, on_step, should_stop)
        accuracy = None
        if not settings.refit:
            accuracy = evaluate(
                network,
                store.split("val"),
                resolution=resolution,
                batch_size=plan.evaluation_batch_size,
                should_stop=should_stop,
            )
        report = EpochReport(
            epoch=epoch,
            num_epochs=settings.epochs,
            train_loss=loss,
            val_accuracy=accuracy,
            seconds=time.perf_counter() - started,
        )
        history.append(report)
        if checkpoint is not None:
            run.save(checkpoint, history)
        on_epoch(report)
    return tuple(history)


def evaluate(
    network: Network,
    split: ImageSplit,
    *,
    resolution: int,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """Top-1 accuracy, 0 to 1, on whole images of a split. Raises CancelledError."""
    correct = correct_images(
        network, split, resolution=resolution, batch_size=batch_size, should_stop=should_stop
    )
    return float(correct.mean())


@torch.no_grad()
def correct_images(
    network: Network,
    split: ImageSplit,
    *,
    resolution: int,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Which whole images of a split are right, bool (N,) in its order. Raises CancelledError."""
    correct = np.empty(len(split), dtype=np.bool_)
    for start in range(0, len(split), batch_size):
        if should_stop():
            raise CancelledError("evaluation was cancelled")
        indices = range(start, min(start + batch_size, len(split)))
        logits = network(split.batch(indices, resolution).to(network.device))
        labels = split.labels_of(indices)
        correct[indices.start : indices.stop] = (logits.argmax(1).cpu() == labels).numpy()
    return correct


@torch.no_grad()
def class_probabilities(
    network: Network,
    split: ImageSplit,
    *,
    resolution: int,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """What the network makes of whole images of a split, in its order: float32 (N, classes).
    Raises CancelledError."""
    probabilities = np.empty((len(split), network.config.num_classes), dtype=np.float32)
    for start in range(0, len(split), batch_size):
        if should_stop():
            raise CancelledError("evaluation was cancelled")
        indices = range(start, min(start + batch_size, len(split)))
        logits = network(split.batch(indices, resolution).to(network.device))
        probabilities[indices.start : indices.stop] = logits.softmax(1).cpu().numpy()
    return probabilities


class _Run:
    """A training in progress: the network, its optimizer and the data."""

    def __init__(
        self,
        network: Network,
        store: ImageStore,
        resolution: int,
        plan: Plan,
        settings: TrainSettings,
    ) -> None:
        _check_store(store, network)
        self.network = network
        self.store = store
        self.splits = [store.split("train"), store.split("val")]
        self.split = self.splits[0]
        if settings.refit:
            self.split = self.split.followed_by(self.splits[1])
        self.resolution = resolution
        self.plan = plan
        self.settings = settings
        self.is_balanced = is_balanced(settings.class_weights, self.split.labels)
        network.store_trained(plan.trained_bits)
        self.parameters = network.trained_parameters()
        self.names: dict[Tensor, str] = {
            parameter: name for name, parameter in self.parameters.items()
        }
        rate = settings.learning_rate or DEFAULT_LEARNING_RATES[network.method]
        self.learning_rate = rate * math.sqrt(plan.batch_size / 8)
        self.optimizer = Adam(self.parameters, state_bits=plan.optimizer_bits, seed=settings.seed)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this run, which may go on from it."""
        settings = asdict(self.settings)
        del settings["class_weights"], settings["refit"]
        return {
            "resolution": self.resolution,
            "plan": asdict(self.plan),
            "settings": settings,
            _BALANCED: self.is_balanced,
            _REFIT: self.settings.refit,
            "network": to_ofa(self.network.config),
            "method": self.network.method.value,
            "frozen_values": sha256_of(_frozen_values(self.network)),
            "classes": list(self.store.classes),
            "images": [self.store.image_size, *map(len, self.splits)],
            "image_values": [split.sha256() for split in self.splits],
        }

    def train_epoch(
        self, epoch: int, on_step: Callable[[int, int], None], should_stop: Callable[[], bool]
    ) -> float:
        """As many images as there are, in seeded order; returns the mean loss."""
        num_images, batch_size = len(self.split), self.plan.batch_size
        rng = np.random.default_rng([self.settings.seed, epoch])
        if self.is_balanced:
            order = balanced_order(self.split.labels, rng)
        else:
            order = rng.permutation(num_images)
        steps = math.ceil(num_images / batch_size)
        total_steps = self.settings.epochs * steps
        total_loss = 0.0
        for step in range(steps):
            if should_stop():
                raise CancelledError("training was cancelled")
            done = epoch * steps + step
            cosine = math.cos(math.pi * done / total_steps)
            indices = [int(i) for i in order[step * batch_size : (step + 1) * batch_size]]
            try:
                total_loss += self.train_step(
                    indices, epoch, self.learning_rate * (1 + cosine) / 2
                )
            except DivergenceError as error:
                raise DivergenceError(
                    f"{error} in epoch {epoch}, step {step}; "
                    f"try a learning rate below {self.learning_rate:g}"
                ) from error
            on_step(done + 1, total_steps)
        return total_loss / num_images

    def train_step(self, indices: list[int], epoch: int, learning_rate: float) -> float:
        """One update from the images of these indices; returns the sum of their losses."""
        seed, device = (self.settings.seed, epoch), self.network.device
        batch = Batch(
            images=self.split.augmented_batch(
                indices, self.resolution, self.settings.augmentation, seed
            ).to(device),
            labels=self.split.labels_of(indices).to(device),
            keep=self._dropout_mask(indices, seed),
            label_smoothing=self.settings.label_smoothing,
        )
        self.optimizer.begin_step(learning_rate)
        losses = run_step(self.network, batch, self.plan, self._update)
        return float(losses.sum())

    def _update(self, parameter: Tensor, gradient: Tensor) -> None:
        self.optimizer.update(self.names[parameter], gradient)

    def _dropout_mask(self, indices: list[int], seed: tuple[int, int]) -> Tensor | None:
        rate = self.network.config.dropout_rate
        if rate == 0:
            return None
        features = self.network.classifier.in_features
        mask = torch.empty(len(indices), features)
        for row, index in enumerate(indices):
            rng = np.random.default_rng([*seed, index, 1])
            mask.numpy()[row] = rng.random(features) >= rate
        return mask.div_(1 - rate).to(self.network.device)

    def save(self, checkpoint: Checkpoint, history: list[EpochReport]) -> None:
        header = {**self.identity, "history": [asdict(report) for report in history]}
        tensors = {f"parameter.{name}": value for name, value in self.parameters.items()}
        checkpoint.save({**tensors, **self.optimizer.state_tensors()}, header)

    def resume(self, checkpoint: Checkpoint) -> list[EpochReport]:
        with checkpoint.open() as (tensors, header):
            for key, value in self.identity.items():
                expected = _as_json(value)
                earlier = {_NOTED_LATER: expected, _BALANCED: False, _REFIT: False}
                found = header.get(key, earlier.get(key))
                if found != expected:
                    raise BundleError(
                        f"checkpoint {checkpoint.name} belongs to another run: its {key} is "
                        f"{found!r}, not {expected!r}; delete it or name another file"
                    )
            self._restore(tensors, checkpoint.name)
            try:
                return [EpochReport(**report) for report in header["history"]]
            except (KeyError, TypeError) as error:
                raise BundleError(f"checkpoint {checkpoint.name} is damaged: {error!r}") from error

    @torch.no_grad()
    def _restore(self, tensors: Mapping[str, Tensor], saved_as: str) -> None:
        for name, parameter in self.parameters.items():
            saved = tensors.get(f"parameter.{name}")
            if saved is None or (saved.shape, saved.dtype) != (parameter.shape, parameter.dtype):
                raise BundleError(f"checkpoint {saved_as} is damaged: its {name!r} does not fit")
        self.optimizer.load_state(tensors)
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])


def _check_store(store: ImageStore, network: Network) -> None:
    if store.num_classes != network.config.num_classes:
        raise DataError(
            f"the images are of {store.num_classes} classes, but the network tells "
            f"{network.config.num_classes} apart"
        )
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        if len(store.split(split)) == 0:
            raise DataError(f"training needs images in the {split} split, but the store has none")
        labels = store.split(split).labels
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= store.num_classes:
            raise DataError(
                f"labels of the {split} split go from {lowest} to {highest}, but those of "
                f"{store.num_classes} classes from 0 to {store.num_classes - 1}"
            )


def _frozen_values(network: Network) -> Iterator[tuple[str, Tensor]]:
    """By name, everything that training leaves as it is."""
    trained = network.trained_parameters().keys()
    return ((name, value) for name, value in network.state_dict().items() if name not in trained)


def _as_json(value: Any) -> Any:
    """value as it comes back from JSON: tuples become lists."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return value
