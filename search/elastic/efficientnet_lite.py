"""The published EfficientNet-Lite networks as OFA supernets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from search.errors import SupernetError
from search.space.architecture import SupernetSpec

_STEM = "_conv_stem.weight"
_LAYERS = {
    "_conv_stem": "first_conv.conv",
    "_bn0": "first_conv.bn",
    "_conv_head": "feature_mix_layer.conv",
    "_bn1": "feature_mix_layer.bn",
    "_fc": "classifier.linear",
}
_BLOCK = re.compile(r"_blocks\.(?P<index>\d+)\.(?P<layer>\w+)\.(?P<field>\w+)")
_BLOCK_LAYERS = {
    "_expand_conv": "inverted_bottleneck.conv",
    "_bn0": "inverted_bottleneck.bn",
    "_depthwise_conv": "depth_conv.conv",
    "_bn1": "depth_conv.bn",
    "_project_conv": "point_linear.conv",
    "_bn2": "point_linear.bn",
}
_COUNTER = "num_batches_tracked"


def is_published(weights: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names that efficientnet_pytorch gives them."""
    return _STEM in weights


@torch.no_grad()
def from_published(spec: SupernetSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network by ofa's names, at full width: of each block the middle channels sorted as
    ofa sorts them, by the L1 norm of what the projection takes from each, so that fewer channels
    are the first ones; smaller kernels the middles of larger ones.

    Raises SupernetError, quoting the name, for a tensor that such a network does not have.
    """
    found = {_name(key): value for key, value in weights.items() if not key.endswith(_COUNTER)}
    for index, stage in enumerate(spec.block_stages, 1):
        block = f"blocks.{index}.conv"
        for smaller, larger in pairwise(stage.kernel_sizes):
            found[f"{block}.depth_conv.conv.{larger}to{smaller}_matrix"] = torch.eye(smaller**2)
        projection = found.get(f"{block}.point_linear.conv.weight")
        if projection is None:
            continue  # loading says what is missing
        order = projection.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
        found[f"{block}.point_linear.conv.weight"] = projection[:, order]
        middle = (f"{block}.inverted_bottleneck.", f"{block}.depth_conv.")
        for key in [key for key in found if key.startswith(middle)]:
            if not key.endswith("_matrix"):
                found[key] = found[key][order]
    return found


def _name(key: str) -> str:
    if match := _BLOCK.fullmatch(key):
        layer = _BLOCK_LAYERS.get(match["layer"])
        if layer is not None:
            return f"blocks.{match['index']}.conv.{layer}.{match['field']}"
    layer, _, field = key.rpartition(".")
    if layer in _LAYERS:
        return f"{_LAYERS[layer]}.{field}"
    raise SupernetError(f"an EfficientNet-Lite has no tensor {key!r}")
