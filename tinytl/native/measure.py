"""What the device trainer's process takes, measured: a few steps on random images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.native.build import BuildError, build_trainer, builds_what_is_delivered
from tinytl.native.training import read_training, train_by
from tinytl.training.checkpoint import MemoryCheckpoint
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import TrainSettings

_STEPS = 3


def measure_process(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int,
    scratch: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """The most bytes that the trainer's whole process is resident with, through some steps and an
    evaluation: they depend neither on the values of weights nor on those of pixels.

    The arguments are those of tinytl.measurement.measure.measure_training. Raises BuildError where
    the trainer can't be built as devices get it, CancelledError, and ConfigError for what it does
    not do.
    """
    if not builds_what_is_delivered():
        raise BuildError(
            "the compiler that was found builds with another C library than devices get, whose "
            "process takes more: pip install 'tinyfit[device]' brings one that doesn't"
        )
    trainer = build_trainer()
    model = build_network(network, method, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    count = _STEPS * plan.batch_size
    pixels = rng.integers(256, size=(count, 3, image_size, image_size), dtype=np.uint8)
    images = ImageSplit(pixels, np.arange(count) % network.num_classes)
    splits: dict[Split, ImageSplit] = {
        "train": images,
        "val": ImageSplit(pixels[:1], images.labels[:1]),
    }
    store = ImageStore(splits, [str(number) for number in range(network.num_classes)], image_size)
    checkpoint = MemoryCheckpoint()
    train_by(
        trainer,
        model,
        store,
        resolution=resolution,
        plan=plan,
        settings=TrainSettings(epochs=1, class_weights="none"),
        checkpoint=checkpoint,
        scratch=scratch,
        should_stop=should_stop,
    )
    found = read_training(model, plan, checkpoint).peak_resident_bytes
    assert found is not None
    return found
