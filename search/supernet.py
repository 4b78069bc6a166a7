"""A supernet in memory: loaded through ofa, run at any subnet, cut to a subnet's weights."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from search import elastic_lite_residual
from search.architecture import Subnet, SupernetSpec
from search.errors import SupernetError
from search.lite_residual_sizes import LARGEST
from search.ofa_package import build_elastic_network
from search.registry import OFFICIAL_URL, SupernetFile, locate
from tinytl.config import LiteResidualSize, NetworkConfig, with_lite_residuals
from tinytl.lite_residual import LiteResidual

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

    Block indices are those of the full-depth network. lite_residuals are the modules that it was
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
    ) -> Tensor:
        """Logits (N, num_classes) of the subnet for normalized images (N, 3, H, W).

        The lite residual modules given run beside their blocks, cut to size where one is given.
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
                x = y
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file. Nothing but tensors is ever unpickled."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, SafetensorError) as error:
        reason = str(error) or "it is cut off"
        raise SupernetError(f"supernet file {path} can't be read: {reason}") from error
    except pickle.UnpicklingError as error:  # whose text says how to unpickle it all the same
        raise SupernetError(
            f"supernet file {path} is refused, because it is damaged or holds more than tensors"
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise SupernetError(f"supernet file {path} is damaged: {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise SupernetError(
            f'supernet file {path} must hold {{"state_dict": tensors by name}}, as torch.save '
            f"writes it"
        )
    return content


def supernet_from_weights(
    spec: SupernetSpec, weights: Mapping[str, Tensor], *, source: str
) -> Supernet:
    """Build ofa's elastic network and load all its weights through ofa's own key mapping."""
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
    raise SupernetError(f"supernet {source} lacks the classifier {_CLASSIFIER_KEYS[0]!r}")


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
