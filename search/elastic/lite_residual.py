"""Lite residual modules that hold smaller ones: fewer connections, smaller kernels.

A supernet is pretrained with the largest module, of 2 groups and kernel 5 (TinyTL, arXiv
2007.11622, section 3.3: the modules are elastic too). A smaller one shares its weights, as ofa's
DynamicGroupConv2d cuts them: the kernel's middle, and of each group's connections those within
the smaller groups. Norms and the 1x1 convolution are the same in all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytl.description.config import LiteResidualConfig, LiteResidualSize
from tinytl.engine.lite_residual import LiteResidual
from tinytl.engine.ops.upsampling import upsample, upsample_matmul


def smaller(config: LiteResidualConfig, size: LiteResidualSize) -> LiteResidualConfig:
    """The module of this size that config's module holds.

    The size is the module's own, or the module is of the largest, and it is one of SIZES.
    """
    kernel_size = min(config.kernel_size, size.max_kernel_size)
    return replace(config, groups=size.groups, kernel_size=kernel_size)


def cut_weight(weight: Tensor, whole: LiteResidualConfig, part: LiteResidualConfig) -> Tensor:
    """conv1's weight (mid, in / whole.groups, K, K) -> (mid, in / part.groups, k, k)."""
    margin = (whole.kernel_size - part.kernel_size) // 2
    middle = weight[:, :, margin : margin + part.kernel_size, margin : margin + part.kernel_size]
    if part.groups == whole.groups:
        return middle
    ratio = part.groups // whole.groups
    width = part.in_channels // part.groups
    groups = middle.reshape(whole.groups, ratio, -1, *middle.shape[1:])
    kept = [groups[:, i, :, i * width : (i + 1) * width] for i in range(ratio)]
    return torch.stack(kept, 1).flatten(0, 2)


@torch.no_grad()
def cut(module: LiteResidual, size: LiteResidualSize) -> LiteResidual:
    """A module of its own of this size, with copies of the weights."""
    found = LiteResidual(smaller(module.config, size))
    found.load_state_dict(cut_state(module, size))
    return found.requires_grad_(False)


@torch.no_grad()
def cut_state(module: LiteResidual, size: LiteResidualSize) -> dict[str, Tensor]:
    """The state dict of cut's module: copies."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    config = smaller(module.config, size)
    state["conv1.weight"] = cut_weight(module.conv1.weight, module.config, config).clone()
    return state


def run(
    module: LiteResidual, x: Tensor, out_size: torch.Size, size: LiteResidualSize | None = None
) -> Tensor:
    """What the module, cut to size, adds to its block's output (N, out_channels, *out_size), by
    operations that autograd goes back through."""
    config = module.config if size is None else smaller(module.config, size)
    weight = cut_weight(module.conv1.weight, module.config, config)
    padding = config.kernel_size // 2
    y = F.conv2d(module.pool(x), weight, None, config.stride, padding, 1, config.groups)
    y = module.final_bn(module.conv2(F.relu(module.bn1(y))))
    return upsample(y, out_size) if y.device.type == "cpu" else upsample_matmul(y, out_size)
