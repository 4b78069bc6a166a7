"""How good a supernet's subnets are on images that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from search.architecture import Subnet, SupernetSpec
from search.pretraining.images import whole_images
from search.supernet import Supernet
from tinytl.data import ImageSplit, ImageStore, normalize

_BATCH_SIZE = 128
_CALIBRATION_BATCHES = 8


def named_subnets(spec: SupernetSpec) -> dict[str, Subnet]:
    """The largest, the smallest, and one between them."""
    middle = spec.uniform(
        *(choices[len(choices) // 2] for choices in _choices(spec)),
    )
    return {"largest": spec.largest, "middle": middle, "smallest": spec.smallest}


def _choices(spec: SupernetSpec) -> tuple[tuple[int, ...], ...]:
    return spec.kernel_sizes, spec.expand_ratios, spec.depths


def accuracies(
    supernet: Supernet,
    subnets: Mapping[str, Subnet],
    store: ImageStore,
    resolution: int,
    *,
    with_lite_residuals: bool,
) -> dict[str, float]:
    """Top-1 accuracy, 0 to 1, of each subnet on the validation images, whole and uncropped.

    Batch norm statistics are those of the subnet on training images. The supernet may be in
    training, and goes on in it.
    """
    modules = supernet.lite_residuals if with_lite_residuals else None
    device = next(supernet.network.parameters()).device
    calibration = [batch.to(device) for batch in _spread(store.split("train"), resolution)]
    split = store.split("val")
    found = {}
    with _evaluating(supernet.network), torch.no_grad():
        for name, subnet in subnets.items():
            supernet.recalibrate(subnet, calibration, modules)
            labels = torch.from_numpy(split.labels.copy())
            predicted = torch.cat(
                [
                    supernet.forward(subnet, images.to(device), modules).argmax(1).cpu()
                    for images in whole_images(split, resolution, _BATCH_SIZE)
                ]
            )
            found[name] = (predicted == labels).float().mean().item()
    return found


def _spread(split: ImageSplit, resolution: int) -> Iterator[torch.Tensor]:
    """Batches of training images, each with its share of every class: images lie by class."""
    count = min(len(split), _BATCH_SIZE * _CALIBRATION_BATCHES)
    num_batches = -(-count // _BATCH_SIZE)
    for first in range(num_batches):
        indices = [i * len(split) // count for i in range(first, count, num_batches)]
        yield normalize(split.batch(indices, resolution))


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
