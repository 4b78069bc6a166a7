"""Group norm and weight standardization in ofa's elastic networks (TinyTL paper, section 4.1).

ofa's own replacement leaves a norm of all channels where a subnet has fewer, and its standardized
convolution refuses channels-last weights. The names of tensors stay as with batch norm.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.description.config import NormConfig


class GroupNorm(nn.GroupNorm):
    """Group norm of as many channels as come; groups are equally large in every subnet."""

    def __init__(self, num_channels: int, norm: NormConfig) -> None:
        super().__init__(num_channels // norm.channels_per_group, num_channels, norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        """torch 2.13 crashes on the way back to a channels-last x whose gradient is not asked for,
        so it always is."""
        if self.bias.requires_grad and not x.requires_grad:
            x = x.detach().requires_grad_()
        channels = x.shape[1]
        num_groups = self.num_groups * channels // self.num_channels
        return F.group_norm(x, num_groups, self.weight[:channels], self.bias[:channels], self.eps)


class ElasticGroupNorm(nn.Module):
    """In place of ofa's DynamicBatchNorm2d, which holds its norm as bn too."""

    def __init__(self, num_channels: int, norm: NormConfig) -> None:
        super().__init__()
        self.bn = GroupNorm(num_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(x)
        return y


def standardize(weight: Tensor, eps: float) -> Tensor:
    """The weight (O, I, K, K) with mean 0 and deviation 1 per output channel (arXiv 1903.10520).

    The deviation is of n - 1, and eps is added to it, as in the published code.
    """
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.flatten(1).std(1) + eps).view(-1, 1, 1, 1)
