"""Batch norm statistics of a subnet, by what the full network's maps are like.

A supernet that was not trained as one has statistics of its full network alone. Those of a subnet
itself, on some images, would make its maps unlike what its weights were trained with. So each norm
of the subnet gets the scale and shift that make the mean and deviation of its output, channel by
channel, those of the full network's on the same images; and where a stage is cut short, its last
block those that make the stage's output the full network's. What comes out are batch norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from search.elastic.ofa_package import DynamicBatchNorm2d
from search.elastic.supernet import Supernet
from search.space.architecture import Subnet, SupernetSpec
from tinytl.description.config import LiteResidualSize
from tinytl.engine.lite_residual import LiteResidual

_LEAST_VARIANCE = 1e-5
"""Added to both variances of a ratio: a channel that hardly varies is not blown up."""

Modules = Mapping[int, LiteResidual]


class Moments(NamedTuple):
    """Mean and variance of each channel (C,)."""

    mean: Tensor
    variance: Tensor

    @staticmethod
    def of(x: Tensor) -> Moments:
        """Of maps (N, C, H, W): along what lies together first, which var_mean takes many times as
        long for."""
        mean = x.mean((2, 3)).double().mean(0)
        mean_square = torch.linalg.vector_norm(x, dim=(2, 3)).double().square().mean(0)
        variance = mean_square / (x.shape[2] * x.shape[3]) - mean.square()
        return Moments(mean.float(), variance.clamp_min(0).float())


class Target(NamedTuple):
    """What the full network's maps are like on a batch: the outputs of its elastic norms, by the
    modules' names, and of its stages, by number."""

    norms: dict[str, Moments]
    stages: dict[int, Moments]


@torch.no_grad()
def targets_of(
    supernet: Supernet,
    batches: Iterable[Tensor],
    lite_residuals: Modules | None = None,
    size: LiteResidualSize | None = None,
) -> list[Target]:
    """Of each batch of normalized images (N, 3, H, W), with the supernet's statistics."""
    targets = []
    for images in batches:
        target = Target({}, {})
        _Noting(supernet, target).run(supernet.spec.largest, images, lite_residuals, size)
        targets.append(target)
    return targets


@torch.no_grad()
def match(
    supernet: Supernet,
    subnet: Subnet,
    batches: Iterable[Tensor],
    targets: Sequence[Target],
    lite_residuals: Modules | None = None,
    size: LiteResidualSize | None = None,
) -> dict[str, Tensor]:
    """The subnet's elastic norms, as Supernet.extract names them: averages over the batches, of
    which each passes with its own. targets: targets_of these batches."""
    sums: dict[str, list[Tensor]] = {}
    for images, target in zip(batches, targets, strict=True):
        matching = _Matching(supernet, subnet, target)
        matching.run(subnet, images, lite_residuals, size)
        for name, found in matching.found.items():
            before = sums.get(name)
            sums[name] = (
                found if before is None else [a + b for a, b in zip(before, found, strict=True)]
            )
    positions = {index: position for position, index in supernet.positions(subnet).items()}
    eps = supernet.spec.norm.eps
    weights: dict[str, Tensor] = {}
    for name, values in sums.items():
        mean, variance, wanted_mean, wanted_variance = (value / len(targets) for value in values)
        index, _, layer = name.removeprefix("blocks.").partition(".")
        prefix = f"blocks.{positions[int(index)]}.{layer}"
        weights |= {
            f"{prefix}.weight": _scale(variance, wanted_variance) * (variance + eps).sqrt(),
            f"{prefix}.bias": wanted_mean,
            f"{prefix}.running_mean": mean,
            f"{prefix}.running_var": variance,
        }
    return weights


def _scale(variance: Tensor, wanted: Tensor) -> Tensor:
    return ((wanted + _LEAST_VARIANCE) / (variance + _LEAST_VARIANCE)).sqrt()


def _projection(index: int) -> str:
    return f"blocks.{index}.conv.point_linear.bn"


class _Way(ABC):
    """A forward pass with each elastic norm, and what is behind each block, done in a way of its
    own."""

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet

    def run(
        self,
        subnet: Subnet,
        images: Tensor,
        lite_residuals: Modules | None,
        size: LiteResidualSize | None,
    ) -> None:
        norms = {
            name: module
            for name, module in self._supernet.network.named_modules()
            if isinstance(module, DynamicBatchNorm2d)
        }
        for name, module in norms.items():
            module.forward = partial(self.norm, name, module.forward)
        try:
            self._supernet.forward(subnet, images, lite_residuals, size, passing=self.block)
        finally:
            for module in norms.values():
                del module.forward  # What its class has is there again.

    @abstractmethod
    def norm(self, name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The norm's output for x; forward: what it does by itself."""

    @abstractmethod
    def block(self, index: int, y: Tensor) -> Tensor:
        """What the block's output becomes."""


class _Noting(_Way):
    """Fills a target in; the maps stay as they are."""

    def __init__(self, supernet: Supernet, target: Target) -> None:
        super().__init__(supernet)
        self._target = target
        self._ends = _last_blocks(supernet.spec, supernet.spec.largest)

    def norm(self, name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = forward(x)
        self._target.norms[name] = Moments.of(y)
        return y

    def block(self, index: int, y: Tensor) -> Tensor:
        if index in self._ends:
            self._target.stages[self._ends[index]] = Moments.of(y)
        return y


class _Matching(_Way):
    """found: by a norm's name, its input's mean and variance, and those wanted of its output."""

    def __init__(self, supernet: Supernet, subnet: Subnet, target: Target) -> None:
        super().__init__(supernet)
        self._target = target
        full = _last_blocks(supernet.spec, supernet.spec.largest)
        self._cut_short = {
            index: number
            for index, number in _last_blocks(supernet.spec, subnet).items()
            if index not in full
        }
        self._wanted = dict(target.norms)
        for index, number in self._cut_short.items():
            if supernet.network.blocks[index].shortcut is None:
                self._wanted[_projection(index)] = target.stages[number]
        self.found: dict[str, list[Tensor]] = {}

    def norm(self, name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        mean, variance = Moments.of(x)
        wanted_mean, wanted_variance = (value[: len(mean)] for value in self._wanted[name])
        self.found[name] = [mean, variance, wanted_mean, wanted_variance]
        deviation = (wanted_variance + _LEAST_VARIANCE).sqrt()
        return F.batch_norm(x, mean, variance, deviation, wanted_mean, eps=_LEAST_VARIANCE)

    def block(self, index: int, y: Tensor) -> Tensor:
        """Of a stage cut short, the last block's norm makes up for what else is added to it."""
        if index not in self._cut_short:
            return y
        missing = self._target.stages[self._cut_short[index]].mean - y.mean((0, 2, 3))
        self.found[_projection(index)][2] = self.found[_projection(index)][2] + missing
        return y + missing.view(1, -1, 1, 1)


def _last_blocks(spec: SupernetSpec, subnet: Subnet) -> dict[int, int]:
    """Index of each stage's last block -> the stage's number."""
    starts_and_depths = zip(spec.stage_starts, subnet.depths, strict=True)
    return {start + depth: number for number, (start, depth) in enumerate(starts_and_depths)}
