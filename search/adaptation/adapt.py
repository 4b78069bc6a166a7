"""Adaptation of a supernet to the target data, before the search.

As in TinyTL (arXiv 2007.11622, section 3.3): biases, lite residual modules and a new head are
fine-tuned with one random subnet and one random size of the modules a step, so that every
choice of both can be scored with shared weights. Where candidates without modules are among the
choices, half of the steps run without: biases then serve both kinds.

A supernet of matched statistics is adapted as its full network, whose norms keep the statistics
that it came with, as they do on the device: its subnets are matched to that afterwards, and their
own statistics in training would be unlike those.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch.nn.functional as F
from torch import nn

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.optimizer import SubnetAdam
from search.elastic.supernet import Supernet
from search.errors import AdaptationError
from search.space.candidates import sample_subnet
from search.space.lite_residual_sizes import SIZES, holder
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.engine.ops.normalize import normalize
from tinytl.errors import BundleError, CancelledError
from tinytl.training.checkpoint import read_tensors, sha256_of, write_tensors
from tinytl.training.data import Augmentation, ImageStore

__all__ = ["AdaptSettings", "AdaptedSupernet", "adapt"]

_FULL_BATCH_SIDE = 96
"""Of images: larger ones come fewer to a step, which then takes as long."""

_SHARE_WITHOUT = 0.5
"""Of the steps, without lite residual modules where that is a choice."""


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a supernet is adapted.

    lite_residual_sizes count where the method has such modules: a single one of any size, or
    several of search.space.lite_residual_sizes.SIZES, of which each step trains a random one; and
    None, for a step without.
    """

    method: Method = Method.LITE_RESIDUAL_BIAS
    lite_residual_sizes: tuple[LiteResidualSize | None, ...] = SIZES
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-2
    label_smoothing: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    checkpoint_steps: int = 50

    def __post_init__(self) -> None:
        holder(self.lite_residual_sizes)
        for name, least in (("steps", 1), ("batch_size", 2), ("checkpoint_steps", 1)):
            if getattr(self, name) < least:
                raise AdaptationError(
                    f"{name} must be at least {least} but got {getattr(self, name)}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise AdaptationError(f"learning_rate must be positive but got {self.learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise AdaptationError(
                f"label_smoothing must be at least 0 and below 1 but got {self.label_smoothing}"
            )


def adapt(
    supernet: Supernet,
    store: ImageStore,
    resolutions: Sequence[int],
    settings: AdaptSettings,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> AdaptedSupernet:
    """Adapt a supernet to store's train split; the supernet given is left as it is.

    Each step trains one random subnet (or the full network, where statistics are matched), with
    lite residual modules of one random size, at one random resolution on a class-balanced batch,
    which is smaller where images have more pixels than 96 x 96. With a checkpoint path, the state
    is saved there atomically every checkpoint_steps, and a run that finds the file goes on from
    it, to the same result bit for bit. Raises CancelledError when should_stop asks for it,
    AdaptationError for a checkpoint of another run.
    """
    run = _Run(supernet, store, resolutions, settings)
    done = run.resume(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    with _training(run.adapted, list(run.parameters.values())):
        for step in range(done, settings.steps):
            if should_stop():
                raise CancelledError("adaptation was cancelled")
            run.train_step(step)
            done = step + 1
            if checkpoint is not None and (
                done % settings.checkpoint_steps == 0 or done == settings.steps
            ):
                run.save(checkpoint, done)
            on_progress(done, settings.steps)
    return run.adapted


class _Run:
    """An adaptation in progress: the supernet, its optimizer and the data."""

    def __init__(
        self,
        supernet: Supernet,
        store: ImageStore,
        resolutions: Sequence[int],
        settings: AdaptSettings,
    ) -> None:
        self.split = store.split("train")
        self.resolutions = tuple(resolutions)
        self.settings = settings
        self.adapted = AdaptedSupernet.fresh(
            supernet,
            store.num_classes,
            method=settings.method,
            lite_residual_sizes=settings.lite_residual_sizes,
            seed=settings.seed,
        )
        self.parameters = self.adapted.trained_parameters()
        self.optimizer = SubnetAdam(self.parameters)
        by_class: dict[int, list[int]] = defaultdict(list)
        for index, label in enumerate(self.split.labels.tolist()):
            by_class[label].append(index)
        self.images_by_class = list(by_class.values())
        self.identity = {
            "supernet": supernet.spec.id,
            "weights_sha256": sha256_of(supernet.network.named_parameters()),
            "num_classes": store.num_classes,
            "num_images": len(self.split),
            "resolutions": list(self.resolutions),
            "settings": json.loads(json.dumps(asdict(settings))),
        }

    def train_step(self, step: int) -> None:
        """One update. All its random choices derive from (seed, step)."""
        settings = self.settings
        rng = random.Random(f"adapt {settings.seed} {step}")
        subnet = sample_subnet(self.adapted.spec, rng)
        if self.adapted.spec.statistics == "matched":
            subnet = self.adapted.spec.largest
        resolution = rng.choice(self.resolutions)
        pixels = settings.batch_size * _FULL_BATCH_SIDE**2
        batch_size = max(2, min(settings.batch_size, pixels // resolution**2))
        size = self._draw_size(step)
        indices = list(_balanced(self.images_by_class, batch_size, rng))
        images = self.split.augmented_batch(
            indices, resolution, settings.augmentation, (settings.seed, step)
        )
        logits = self.adapted.supernet.forward(
            subnet,
            normalize(images, self.adapted.spec.normalization),
            self.adapted.lite_residuals_of(size),
            size,
        )
        loss = F.cross_entropy(
            logits, self.split.labels_of(indices), label_smoothing=settings.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        cosine = (1 + math.cos(math.pi * step / settings.steps)) / 2
        self.optimizer.step(settings.learning_rate * cosine)

    def _draw_size(self, step: int) -> LiteResidualSize | None:
        """Drawn apart, so that all else is the same whatever the sizes."""
        rng = random.Random(f"adapt lite residual {self.settings.seed} {step}")
        sizes = self.settings.lite_residual_sizes
        if None in sizes and rng.random() < _SHARE_WITHOUT:
            return None
        return rng.choice([size for size in sizes if size is not None])

    def save(self, path: Path, done: int) -> None:
        write_tensors(path, self.optimizer.state_tensors(), {**self.identity, "done": done})

    def resume(self, path: Path) -> int:
        try:
            tensors, header = read_tensors(path)
            done = header.pop("done")
            if header != self.identity:
                raise AdaptationError(
                    f"checkpoint {path.name} belongs to another adaptation: {header!r}, "
                    f"not {self.identity!r}; delete it or name another file"
                )
            self.optimizer.load_state(tensors)
        except (BundleError, KeyError) as error:
            raise AdaptationError(f"checkpoint {path.name} is damaged: {error}") from error
        return int(done)


def _balanced(
    images_by_class: Sequence[Sequence[int]], count: int, rng: random.Random
) -> Iterator[int]:
    """count image indices, the classes taking turns in random order."""
    order: list[Sequence[int]] = []
    for _ in range(count):
        if not order:
            order = rng.sample(list(images_by_class), len(images_by_class))
        yield rng.choice(order.pop())


@contextmanager
def _training(adapted: AdaptedSupernet, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The parameters take gradients; batch norms use the batch's statistics and keep none, but for
    those that are matched to afterwards."""
    norms = []
    if adapted.spec.statistics == "recalibrated":
        norms = [m for m in adapted.supernet.network.modules() if isinstance(m, nn.BatchNorm2d)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.training, norm.track_running_stats = False, True
