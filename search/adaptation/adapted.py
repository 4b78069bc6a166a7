"""A supernet adapted to target data: what every trial's weights are cut from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from search.adaptation.ridge import fit_ridge
from search.adaptation.views import evaluation_batch, features_of, spread_evenly
from search.elastic import lite_residual as elastic_lite_residual
from search.elastic.matching import Target, match, targets_of
from search.elastic.ofa_package import build_elastic_network
from search.elastic.supernet import Supernet, build_lite_residuals, supernet_from_weights
from search.errors import AdaptationError, SearchError
from search.space.architecture import SupernetSpec
from search.space.candidates import Candidate
from search.space.lite_residual_sizes import SIZES, holder, method_of
from search.space.pricing import network_of
from tinytl.description.config import LiteResidualSize, NetworkConfig, Normalization
from tinytl.description.method import Method, is_trained
from tinytl.engine.lite_residual import LiteResidual
from tinytl.engine.network import build_network
from tinytl.engine.ops.normalize import normalize
from tinytl.errors import BundleError
from tinytl.training.checkpoint import read_tensors, write_tensors
from tinytl.training.data import ImageStore

CALIBRATION_IMAGES = 128
"""Training images that a subnet's batch norm statistics are found on; those that are matched on
fewer where they are large, as a map then has more positions to take them of."""

_CALIBRATION_PIXELS = CALIBRATION_IMAGES * 128**2

HEAD_IMAGES = 128
"""Training images that the head of a matched subnet is found on."""

_CALIBRATION_BATCH = 64
_CALIBRATION_SIDE = 112
"""Images of more pixels come fewer at once."""
_TargetKey = tuple[int, int, LiteResidualSize | None]
_FORMAT = "adapted supernet"
_FORMAT_VERSION = 2


class AdaptedSupernet:
    """A supernet with a head for the target classes and, where the method has them, lite
    residual modules: one per block index but the first, shared by all subnets. They hold those
    of each of lite_residual_sizes, to which subnets are cut; None is a subnet without.
    """

    def __init__(
        self,
        supernet: Supernet,
        lite_residuals: dict[int, LiteResidual],
        *,
        method: Method,
        lite_residual_sizes: Sequence[LiteResidualSize | None],
    ) -> None:
        self.supernet = supernet
        self.lite_residuals = lite_residuals
        self.method = method
        self.lite_residual_sizes = tuple(lite_residual_sizes)
        self._targets: WeakKeyDictionary[ImageStore, dict[_TargetKey, list[Target]]] = (
            WeakKeyDictionary()
        )

    @classmethod
    def fresh(
        cls,
        supernet: Supernet,
        num_classes: int,
        *,
        method: Method,
        lite_residual_sizes: Sequence[LiteResidualSize | None] = SIZES,
        seed: int = 0,
    ) -> AdaptedSupernet:
        """The state before adaptation: the supernet's weights and a new head; where the method
        has lite residual modules, the supernet's own, cut to the size that holds all these, or,
        where it has none of that size, new ones, which add nothing yet. The supernet itself is
        left as it is. Raises AdaptationError where no module holds all these sizes.
        """
        size = holder(lite_residual_sizes)
        generator = torch.Generator().manual_seed(seed)
        network = build_elastic_network(supernet.spec, num_classes)
        state = dict(supernet.network.state_dict())
        head = network.classifier.linear
        bound = 1 / math.sqrt(head.in_features)
        state["classifier.linear.weight"] = torch.empty(head.weight.shape).uniform_(
            -bound, bound, generator=generator
        )
        state["classifier.linear.bias"] = torch.zeros(num_classes)
        network.load_state_dict(state)
        network.requires_grad_(False).eval()
        return cls(
            Supernet(supernet.spec, network, num_classes),
            _first_modules(supernet, size, generator) if method.uses_lite_residual else {},
            method=method,
            lite_residual_sizes=lite_residual_sizes,
        )

    @property
    def spec(self) -> SupernetSpec:
        return self.supernet.spec

    @property
    def has_own_heads(self) -> bool:
        """Whether each subnet has a head of its own: where subnets are matched, the supernet's is
        trained with the full network alone."""
        return self.spec.statistics == "matched"

    @property
    def num_classes(self) -> int:
        return self.supernet.num_classes

    @property
    def device(self) -> torch.device:
        """Where subnets run to be recalibrated."""
        device: torch.device = self.supernet.network.classifier.linear.bias.device
        return device

    def to(self, device: torch.device) -> AdaptedSupernet:
        """Move it there, itself."""
        for module in (self.supernet.network, *self.lite_residuals.values()):
            module.to(device)
        self._targets.clear()
        return self

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What adaptation trains, by name: of biases, lite residuals and head what the method
        trains. The main branch's weights stay as they are.
        """
        trained = {
            f"lite_residual.{index}.{name}": parameter
            for index, module in self.lite_residuals.items()
            for name, parameter in module.named_parameters()
            if is_trained(f"blocks.{index}.lite_residual.{name}", self.method)
        }
        for name, parameter in self.supernet.network.named_parameters():
            trains_bias = (
                self.method.trains_squeeze_bias if ".se." in name else self.method.trains_bias
            )
            if name.startswith("classifier.") or (name.endswith(".bias") and trains_bias):
                trained[f"network.{name}"] = parameter
        return trained

    def method_of(self, candidate: Candidate) -> Method:
        """What trains the candidate."""
        return method_of(self.method, candidate.lite_residual)

    def lite_residuals_of(self, size: LiteResidualSize | None) -> dict[int, LiteResidual]:
        """The modules, uncut, that run in a subnet with modules of this size."""
        return {} if size is None else self.lite_residuals

    def subnet_weights(
        self,
        candidate: Candidate,
        store: ImageStore,
        *,
        num_images: int | None = None,
        own_head: bool = True,
    ) -> tuple[NetworkConfig, dict[str, Tensor]]:
        """The candidate's network and weights, as tinytl.engine.network.build_network takes them,
        on the CPU whatever the device.

        Batch norm statistics are found on num_images training images, by default at most
        CALIBRATION_IMAGES, spread evenly, at the candidate's resolution, as the supernet's
        specification says; group norms have none, and no image is read. Where statistics are
        matched, the head is the subnet's own, unless that is not asked for: a ridge regression on
        features of HEAD_IMAGES training images.
        """
        subnet, size = candidate.subnet, candidate.lite_residual
        if self.method.uses_lite_residual and size not in self.lite_residual_sizes:
            raise AdaptationError(
                f"the supernet was adapted with {list(self.lite_residual_sizes)} "
                f"but the candidate has {size}"
            )
        lite_residuals = self.lite_residuals_of(size)
        num_images = num_images or self._calibration_images(candidate.resolution)
        norms: dict[str, Tensor] = {}
        if self.spec.norm.kind == "batch":
            batches = partial(
                calibration_batches,
                store,
                candidate.resolution,
                num_images,
                self.spec.normalization,
                self.device,
            )
            if self.spec.statistics == "recalibrated":
                self.supernet.recalibrate(subnet, batches(), lite_residuals, size)
            elif subnet != self.spec.largest:
                targets = self._targets_of(store, candidate, num_images, batches)
                norms = match(self.supernet, subnet, batches(), targets, lite_residuals, size)
        _, weights = self.supernet.extract(subnet)
        weights |= norms
        for position, index in self.supernet.positions(candidate.subnet).items():
            if size is not None and index in lite_residuals:
                cut = elastic_lite_residual.cut_state(lite_residuals[index], size)
                for name, value in cut.items():
                    weights[f"blocks.{position}.lite_residual.{name}"] = value
        weights = {name: value.cpu() for name, value in weights.items()}
        config = network_of(self.spec, candidate, self.method, self.num_classes)
        if own_head and self.has_own_heads:
            weights |= self._own_head(config, candidate, store, weights)
        return config, weights

    def _calibration_images(self, resolution: int) -> int:
        if self.spec.statistics == "recalibrated":
            return CALIBRATION_IMAGES
        return min(CALIBRATION_IMAGES, _CALIBRATION_PIXELS // resolution**2)

    def _own_head(
        self,
        config: NetworkConfig,
        candidate: Candidate,
        store: ImageStore,
        weights: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        network = build_network(config, self.method_of(candidate), weights).to(self.device)
        split = store.split("train")
        indices = spread_evenly(min(HEAD_IMAGES, len(split)), len(split))
        features, labels = features_of(network, [(split, indices)], candidate.resolution)
        head = fit_ridge(features, labels, self.num_classes)
        return {"classifier.linear.weight": head.weight, "classifier.linear.bias": head.bias}

    def _targets_of(
        self,
        store: ImageStore,
        candidate: Candidate,
        num_images: int,
        batches: Callable[[], Iterator[Tensor]],
    ) -> list[Target]:
        """They are kept: many candidates are matched with the same."""
        size = candidate.lite_residual if self.lite_residuals else None
        known = self._targets.setdefault(store, {})
        key = (candidate.resolution, num_images, size)
        if key not in known:
            lite_residuals = self.lite_residuals_of(size)
            known[key] = targets_of(self.supernet, batches(), lite_residuals, size)
        return known[key]

    def save(self, path: Path) -> None:
        """Write everything to path atomically."""
        write_tensors(path, *self.to_tensors())

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything, as from_tensors takes it: tensors by name, and a header for JSON."""
        tensors = {
            f"network.{name}": value
            for name, value in self.supernet.network.state_dict().items()
            if not name.endswith(".num_batches_tracked")
        }
        for index, module in self.lite_residuals.items():
            for name, value in module.state_dict().items():
                tensors[f"lite_residual.{index}.{name}"] = value
        header = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "supernet": self.spec.id,
            "method": self.method.value,
            "lite_residual_sizes": [size and asdict(size) for size in self.lite_residual_sizes],
        }
        return tensors, header

    @classmethod
    def load(cls, path: Path) -> AdaptedSupernet:
        """Read what save wrote. Raises AdaptationError where the file is damaged or another."""
        try:
            tensors, header = read_tensors(path)
        except BundleError as error:
            raise AdaptationError(f"{path.name} can't be used: {error}") from error
        return cls.from_tensors(tensors, header, source=path.name)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, source: str
    ) -> AdaptedSupernet:
        """What to_tensors gave. Raises AdaptationError, which names the source, where that is
        damaged or something else."""
        try:
            if header["format"] != _FORMAT:
                raise AdaptationError(f"{source} is no {_FORMAT}: {header!r}")
            if header["format_version"] != _FORMAT_VERSION:
                raise AdaptationError(
                    f"{source} has format version {header['format_version']!r}, not "
                    f"{_FORMAT_VERSION}: adapt the supernet again"
                )
            spec = SupernetSpec.parse(header["supernet"])
            method = Method(header["method"])
            sizes = tuple(
                None if size is None else LiteResidualSize(**size)
                for size in header["lite_residual_sizes"]
            )
            parts: dict[str, dict[str, Tensor]] = {"network": {}, "lite_residual": {}}
            for name, value in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            supernet = supernet_from_weights(spec, parts["network"], source=source)
            size = holder(sizes)
            modules = build_lite_residuals(spec, size) if method.uses_lite_residual else {}
            _as_module(modules).load_state_dict(parts["lite_residual"])
        except AdaptationError:
            raise
        except (SearchError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise AdaptationError(f"{source} can't be used: {error}") from error
        return cls(supernet, modules, method=method, lite_residual_sizes=sizes)


def _first_modules(
    supernet: Supernet, size: LiteResidualSize, generator: torch.Generator
) -> dict[int, LiteResidual]:
    if supernet.lite_residuals and size in SIZES:
        return {
            index: elastic_lite_residual.cut(module, size)
            for index, module in supernet.lite_residuals.items()
        }
    return build_lite_residuals(supernet.spec, size, generator)


def _as_module(modules: dict[int, LiteResidual]) -> nn.ModuleDict:
    return nn.ModuleDict({str(index): module for index, module in modules.items()})


def calibration_batches(
    store: ImageStore,
    resolution: int,
    num_images: int,
    normalization: Normalization,
    device: torch.device,
) -> Iterator[Tensor]:
    """Normalized training images (N, 3, resolution, resolution), in batches of which each has its
    share of every class; fewer at once where they are large."""
    split = store.split("train")
    count = min(num_images, len(split))
    pixels = _CALIBRATION_BATCH * _CALIBRATION_SIDE**2
    at_once = max(1, min(_CALIBRATION_BATCH, pixels // resolution**2))
    num_batches = math.ceil(count / at_once)
    for first in range(num_batches):
        # they lie in the order of their classes
        indices = [i * len(split) // count for i in range(first, count, num_batches)]
        images = evaluation_batch(split, indices, resolution).to(device)
        yield normalize(images, normalization)
