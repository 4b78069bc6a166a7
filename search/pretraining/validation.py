"""How good a supernet's subnets are on images that it was not trained on."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from search.elastic.supernet import Supernet
from search.space.architecture import Subnet, SupernetSpec
from search.space.candidates import sample_subnet
from tinytl.engine.ops.normalize import normalize
from tinytl.training.data import ImageSplit, ImageStore

NAMED = ("largest", "middle", "smallest")
_NUM_RANDOM_SUBNETS = 20
_BATCH_SIZE = 128
_CALIBRATION_BATCHES = 8


def named_subnets(spec: SupernetSpec) -> dict[str, Subnet]:
    """The largest, the smallest, and one between them."""
    return dict(zip(NAMED, (spec.largest, spec.middle, spec.smallest), strict=True))


def random_subnets(spec: SupernetSpec) -> dict[str, Subnet]:
    """Always the same ones of a supernet's space, so that supernets can be compared."""
    rng = random.Random("subnets of a card")
    return {f"random {i + 1}": sample_subnet(spec, rng) for i in range(_NUM_RANDOM_SUBNETS)}


class Validation:
    """The validation images, whole and uncropped, at one resolution.

    Batch norm statistics are those of the subnet on training images, its share of every class.
    A GPU holds the images; elsewhere they are read again for every subnet.
    """

    def __init__(self, store: ImageStore, resolution: int, device: torch.device) -> None:
        self._split = store.split("val")
        self._resolution = resolution
        self._device = device
        self._calibration = list(calibration_batches(store.split("train"), resolution))
        self._held = [batch.to(device) for batch in self._read()] if device.type == "cuda" else []

    def __len__(self) -> int:
        return len(self._split)

    @torch.no_grad()
    def accuracy(self, supernet: Supernet, subnet: Subnet, *, lite_residuals: bool) -> float:
        """Top-1, 0 to 1. The supernet may be in training, and goes on in it."""
        modules = supernet.lite_residuals if lite_residuals else None
        with _evaluating(supernet.network):
            self.recalibrate(supernet, subnet, lite_residuals=lite_residuals)
            predicted = [
                supernet.forward(
                    subnet, normalize(images, supernet.spec.normalization), modules
                ).argmax(1)
                for images in self._held or self._read()
            ]
        right = torch.cat(predicted).cpu() == self._split.labels_of(range(len(self._split)))
        return int(right.sum()) / len(self._split)

    def _read(self) -> Iterator[torch.Tensor]:
        """uint8 batches of the validation images, in their order."""
        for first in range(0, len(self._split), _BATCH_SIZE):
            indices = range(first, min(first + _BATCH_SIZE, len(self._split)))
            yield self._split.batch(indices, self._resolution)

    def recalibrate(self, supernet: Supernet, subnet: Subnet, *, lite_residuals: bool) -> None:
        """Batch norm statistics become those of the subnet."""
        normalization = supernet.spec.normalization
        batches = (normalize(b.to(self._device), normalization) for b in self._calibration)
        supernet.recalibrate(subnet, batches, supernet.lite_residuals if lite_residuals else None)


def summary(accuracies: Mapping[str, float]) -> dict[str, Any]:
    """Accuracies of named and random subnets by name -> the named ones, and how the others lie."""
    others = [value for name, value in accuracies.items() if name not in NAMED]
    return {
        **{name: round(accuracies[name], 4) for name in NAMED},
        "random": {
            "num_subnets": len(others),
            "mean": round(statistics.mean(others), 4),
            "standard_deviation": round(statistics.stdev(others), 4),
            "least": round(min(others), 4),
            "most": round(max(others), 4),
        },
    }


def calibration_batches(split: ImageSplit, resolution: int) -> Iterator[torch.Tensor]:
    """uint8 batches of training images, each with its share of every class: they lie by class."""
    count = min(len(split), _BATCH_SIZE * _CALIBRATION_BATCHES)
    num_batches = -(-count // _BATCH_SIZE)
    for first in range(num_batches):
        indices = [i * len(split) // count for i in range(first, count, num_batches)]
        yield split.batch(indices, resolution)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics they hold."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    settings = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = False, True
    try:
        yield
    finally:
        for norm, setting in zip(norms, settings, strict=True):
            norm.training, norm.track_running_stats = setting
