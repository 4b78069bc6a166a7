"""A supernet in memory: loaded through ofa, run at any subnet, cut to a subnet's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.elastic import lite_residual as elastic_lite_residual
from search.elastic.efficientnet_lite import from_published, is_published
from search.elastic.ofa_package import build_elastic_network
from search.elastic.weights_file import in_16_bits, read_weights
from search.errors import SupernetError
from search.space.architecture import Subnet, SupernetSpec
from search.space.lite_residual_sizes import LARGEST
from search.supernets.registry import OFFICIAL_URL, SupernetFile, locate
from tinytl.description.config import LiteResidualSize, NetworkConfig, with_lite_residuals
from tinytl.engine.lite_residual import LiteResidual

_CLASSIFIER_KEYS = ("classifier.linear.weight", "classifier.linear.linear.weight")
_NORM_FIELDS = {
    "batch": ("weight", "bias", "running_mean", "running_var"),
    "group": ("weight", "bias"),
}
_LITE_RESIDUAL = ".lite_residual."
_COUNTER = ".num_batches_tracked"
_STATIC_PARTS = ("first_conv.", "blocks.0.", "final_expand_layer.", "feature_mix_layer.")


class Supernet:
    """ofa's elastic network with its description; every subnet shares its weights.

    Block indices are those of the full-depth network. num_classes: 0 where the network has no
    head, and its outputs are features. lite_residuals are the modules that it was
    pretrained with, of the largest size, by block index; empty where there were none.
    """

    def __init__(
        self,
        spec: SupernetSpec,
        network: nn.Module,
        num_classes: int,
        lite_residuals: Mapping[int, LiteResidual] | None = None,
    ) -> None:
        self.spec = spec
        self.network: Any = network
        self.num_classes = num_classes
        self.lite_residuals = dict(lite_residuals or {})

    def forward(
        self,
        subnet: Subnet,
        images: Tensor,
        lite_residuals: Mapping[int, LiteResidual] | None = None,
        size: LiteResidualSize | None = None,
        *,
        passing: Callable[[int, Tensor], Tensor] = lambda index, y: y,
    ) -> Tensor:
        """Logits (N, num_classes) of the subnet for normalized images (N, 3, H, W).

        The lite residual modules given run beside their blocks, cut to size where one is given.
        passing: what the output of the dynamic block of an index becomes.
        """
        if images.is_cuda:  # where channels-last maps take a hundred times as long to train on
            images = images.contiguous()
        net = self.network
        net.set_active_subnet(
            ks=list(subnet.kernel_sizes), e=list(subnet.expand_ratios), d=list(subnet.depths)
        )
        x = net.blocks[0](net.first_conv(images))
        for stage in self.spec.active_blocks(subnet):
            for index in stage:
                y = net.blocks[index](x)
                if lite_residuals is not None and index in lite_residuals:
                    y = y + elastic_lite_residual.run(lite_residuals[index], x, y.shape[2:], size)
                x = passing(index, y)
        if self.spec.family == "mobilenetv3":
            x = net.final_expand_layer(x).mean((2, 3), keepdim=True)
            x = net.feature_mix_layer(x).flatten(1)
        else:
            x = net.feature_mix_layer(x).mean((2, 3))
        logits: Tensor = net.classifier(x)
        return logits

    @torch.no_grad()
    def recalibrate(
        self,
        subnet: Subnet,
        batches: Iterable[Tensor],
        lite_residuals: Mapping[int, LiteResidual] | None = None,
        size: LiteResidualSize | None = None,
    ) -> None:
        """Set the batch norm statistics to those of the subnet on normalized images.

        They are averaged over the batches and hold for this subnet alone, as in ofa's
        set_running_statistics; unlike there, the network is not copied. Group norms have no
        statistics: nothing runs, and no batch is asked for.
        """
        norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return
        settings = [(norm.training, norm.momentum, norm.track_running_stats) for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.training, norm.momentum, norm.track_running_stats = True, None, True
            for images in batches:
                self.forward(subnet, images, lite_residuals, size)
        finally:
            for norm, setting in zip(norms, settings, strict=True):
                norm.training, norm.momentum, norm.track_running_stats = setting

    @torch.no_grad()
    def extract(self, subnet: Subnet) -> tuple[NetworkConfig, dict[str, Tensor]]:
        """The subnet as a static network: its description, and copies of its weights.

        Keys are those of ofa's static networks; blocks are numbered without the absent ones.
        """
        state = self.network.state_dict()
        weights = {
            key: value.clone()
            for key, value in state.items()
            if key.startswith((*_STATIC_PARTS, "classifier.")) and not key.endswith(_COUNTER)
        }
        config = self.spec.network_config(subnet, self.num_classes)
        for position, index in self.positions(subnet).items():
            block = config.blocks[position]
            assert block is not None
            layer = self.network.blocks[index].conv
            mid, kernel_size = block.mid_channels, block.kernel_size
            parts = {
                "inverted_bottleneck": (
                    layer.inverted_bottleneck.conv.get_active_filter(mid, block.in_channels),
                    layer.inverted_bottleneck.bn.bn,
                    mid,
                ),
                "depth_conv": (
                    layer.depth_conv.conv.get_active_filter(mid, kernel_size),
                    layer.depth_conv.bn.bn,
                    mid,
                ),
                "point_linear": (
                    layer.point_linear.conv.get_active_filter(block.out_channels, mid),
                    layer.point_linear.bn.bn,
                    block.out_channels,
                ),
            }
            for name, (weight, norm, channels) in parts.items():
                prefix = f"blocks.{position}.conv.{name}"
                weights[f"{prefix}.conv.weight"] = weight.detach().clone()
                for field in _NORM_FIELDS[self.spec.norm.kind]:
                    weights[f"{prefix}.bn.{field}"] = getattr(norm, field)[:channels].clone()
            if block.squeeze_excite:
                se, squeeze = layer.depth_conv.se, block.squeeze_channels
                prefix = f"blocks.{position}.conv.depth_conv.se.fc"
                weights |= {
                    f"{prefix}.reduce.weight": se.fc.reduce.weight[:squeeze, :mid].clone(),
                    f"{prefix}.reduce.bias": se.fc.reduce.bias[:squeeze].clone(),
                    f"{prefix}.expand.weight": se.fc.expand.weight[:mid, :squeeze].clone(),
                    f"{prefix}.expand.bias": se.fc.expand.bias[:mid].clone(),
                }
        return config, weights

    def positions(self, subnet: Subnet) -> dict[int, int]:
        """Position of each dynamic block in the static network -> its index at full depth."""
        indices = [index for stage in self.spec.active_blocks(subnet) for index in stage]
        return dict(enumerate(indices, start=1))


def load_supernet(
    name_or_path: str | Path, cache_dir: Path, *, base_url: str = OFFICIAL_URL
) -> Supernet:
    """Load a supernet by name or path; an official one is fetched if need be.

    Raises SupernetError where the file is not the whole network that its name says.
    """
    return load_supernet_file(locate(name_or_path, cache_dir, base_url=base_url))


def load_supernet_file(file: SupernetFile) -> Supernet:
    """Load a supernet that is on this machine. Raises SupernetError as load_supernet does."""
    return supernet_from_weights(file.spec, read_weights(file.path), source=str(file.path))


def supernet_from_weights(
    spec: SupernetSpec, weights: Mapping[str, Tensor], *, source: str
) -> Supernet:
    """Build ofa's elastic network and load all its weights through ofa's own key mapping; those of
    a published EfficientNet-Lite by their own names. Without a classifier the supernet has no
    head."""
    if is_published(weights):
        weights = from_published(spec, weights)
    num_classes = _num_classes(weights, source)
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise SupernetError(f"supernet {source}: tensor {key!r} holds values not finite")
    network = build_elastic_network(spec, num_classes)
    own = {key: value for key, value in weights.items() if _LITE_RESIDUAL not in key}
    _mark_unset(network)
    try:
        network.load_state_dict(own)
    except AssertionError as error:
        raise SupernetError(
            f"supernet {source}: {spec.id} has no tensor {str(error)!r}; the file is of another "
            f"architecture"
        ) from error
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SupernetError(f"supernet {source} is not a {spec.id}: {reason}") from error
    missing = _still_unset(network)
    if missing:
        raise SupernetError(
            f"supernet {source} lacks {len(missing)} tensors of {spec.id}, such as {missing[:3]}"
        )
    network.requires_grad_(False).eval()
    modules = _lite_residuals(spec, weights, source) if len(own) < len(weights) else {}
    return Supernet(spec, network, num_classes, modules)


def supernet_tensors(supernet: Supernet) -> dict[str, Tensor]:
    """All weights in 16 bits, batch norm statistics in 32, by ofa's names.

    Lite residual modules are under blocks.N.lite_residual.
    """
    tensors = dict(supernet.network.state_dict())
    for index, module in supernet.lite_residuals.items():
        for name, value in module.state_dict().items():
            tensors[f"blocks.{index}{_LITE_RESIDUAL}{name}"] = value
    return in_16_bits(tensors)


def untrained_supernet(
    spec: SupernetSpec, num_classes: int, *, lite_residuals: bool, generator: torch.Generator
) -> Supernet:
    """A supernet of random weights, as pretraining starts from.

    Convolutions are He normal by fan-out. The last norm of every block with a shortcut starts
    with scale 0 (arXiv 1706.02677, section 5.1): without that, group norm learns nothing for
    many steps.
    """
    network = build_elastic_network(spec, num_classes)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] ** 2 / module.groups
                module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for block in network.blocks:
            if block.shortcut is not None:
                norm = block.conv.point_linear.bn
                getattr(norm, "bn", norm).weight.zero_()  # elastic norms hold theirs as bn
        head = network.classifier.linear
        bound = 1 / math.sqrt(head.in_features)
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.zero_()
    modules = build_lite_residuals(spec, LARGEST, generator) if lite_residuals else {}
    return Supernet(spec, network, num_classes, modules)


def build_lite_residuals(
    spec: SupernetSpec, size: LiteResidualSize, generator: torch.Generator | None = None
) -> dict[int, LiteResidual]:
    """Fresh lite residual modules of this size by block index, one per block but the first."""
    network = with_lite_residuals(spec.network_config(spec.largest, 2), size)
    return {
        index: LiteResidual(block.lite_residual, generator).requires_grad_(False)
        for index, block in enumerate(network.blocks)
        if block is not None and block.lite_residual is not None
    }


@torch.no_grad()
def _lite_residuals(
    spec: SupernetSpec, weights: Mapping[str, Tensor], source: str
) -> dict[int, LiteResidual]:
    modules = build_lite_residuals(spec, LARGEST)
    unread = {key for key in weights if _LITE_RESIDUAL in key}
    for index, module in modules.items():
        for name, own in module.state_dict().items():
            key = f"blocks.{index}{_LITE_RESIDUAL}{name}"
            if key not in unread:
                raise SupernetError(f"supernet {source} lacks {key!r} of its lite residuals")
            if weights[key].shape != own.shape:
                raise SupernetError(
                    f"supernet {source}: {key!r} must have the shape {tuple(own.shape)} "
                    f"but has {tuple(weights[key].shape)}"
                )
            own.copy_(weights[key])
            unread.remove(key)
    if unread:
        raise SupernetError(
            f"supernet {source}: {spec.id} has no lite residual tensor {min(unread)!r}"
        )
    return modules


def _num_classes(weights: Mapping[str, Tensor], source: str) -> int:
    for key in _CLASSIFIER_KEYS:
        if key in weights and weights[key].dim() == 2:
            return weights[key].shape[0]
    if any(key.startswith("classifier.") for key in weights):
        raise SupernetError(f"supernet {source} lacks the classifier {_CLASSIFIER_KEYS[0]!r}")
    return 0


@torch.no_grad()
def _mark_unset(network: nn.Module) -> None:
    """NaN everywhere, so that what ofa's mapping leaves out shows: it accepts missing keys."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.fill_(torch.nan)


def _still_unset(network: nn.Module) -> list[str]:
    return [
        key
        for key, value in network.state_dict().items()
        if value.is_floating_point() and value.isnan().any()
    ]
