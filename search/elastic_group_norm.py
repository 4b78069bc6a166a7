"""Group norm and weight standardization in ofa's elastic networks (TinyTL paper, section 4.1).

ofa's own replacement leaves a norm of all channels where a subnet has fewer, and its standardized
convolution refuses channels-last weights. The names of tensors stay as with batch norm.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.config import NormConfig


class ElasticGroupNorm(nn.Module):
    """Group norm of as many channels as come; groups are equally large in every subnet."""

    def __init__(self, num_channels: int, norm: NormConfig) -> None:
        super().__init__()
        self.bn = group_norm(num_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        channels, whole = x.shape[1], self.bn
        num_groups = whole.num_groups * channels // whole.num_channels
        weight, bias = whole.weight[:channels], whole.bias[:channels]
        return F.group_norm(x, num_groups, weight, bias, whole.eps)


def standardize(weight: Tensor, eps: float) -> Tensor:
    """The weight (O, I, K, K) with mean 0 and deviation 1 per output channel (arXiv 1903.10520).

    The deviation is of n - 1, and eps is added to it, as in the published code.
    """
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.flatten(1).std(1) + eps).view(-1, 1, 1, 1)


def group_norm(num_channels: int, norm: NormConfig) -> nn.GroupNorm:
    """A group norm of the right number of groups."""
    return nn.GroupNorm(num_channels // norm.channels_per_group, num_channels, norm.eps)
