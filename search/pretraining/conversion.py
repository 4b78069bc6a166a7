"""A batch norm supernet's weights in a supernet with group norm and weight standardization."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.elastic.group_norm import GroupNorm
from search.elastic.ofa_package import build_elastic_network
from search.elastic.supernet import Supernet
from search.space.architecture import SupernetSpec

_LEAST_DEVIATION = 0.05
"""Of a group-normed channel: a channel that hardly varies is not blown up."""


@torch.no_grad()
def with_group_norm(start: Supernet, spec: SupernetSpec, images: Tensor) -> Supernet:
    """A supernet of spec, start's architecture but for the norms, to be trained further.

    images: normalized (N, 3, H, W). In the largest subnet every norm gives each channel the mean
    and deviation over these images that batch norm would: its scale is batch norm's over the
    deviation that group norm leaves, its bias makes up for the mean. What standardization changes
    of the weights themselves is lost.
    """
    network = build_elastic_network(spec, start.num_classes)
    before = dict(start.network.named_modules())
    state = network.state_dict()
    state |= {name: value for name, value in start.network.state_dict().items() if name in state}
    network.load_state_dict(state)
    hooks = [
        module.register_forward_pre_hook(_fitted_to(before[name]))
        for name, module in network.named_modules()
        if isinstance(module, GroupNorm)
    ]
    supernet = Supernet(spec, network, start.num_classes, start.lite_residuals)
    supernet.forward(spec.largest, images)
    for hook in hooks:
        hook.remove()
    return supernet


def _fitted_to(before: nn.Module) -> Callable[[GroupNorm, tuple[Tensor]], None]:
    """Sets a group norm by the first map that it gets, before it normalizes it."""

    def fit(norm: GroupNorm, arguments: tuple[Tensor]) -> None:
        assert isinstance(before, nn.BatchNorm2d)
        y = F.group_norm(arguments[0], norm.num_groups, eps=norm.eps)
        deviation, mean = torch.std_mean(y, (0, 2, 3))
        norm.weight.copy_(before.weight / deviation.clamp(min=_LEAST_DEVIATION))
        norm.bias.copy_(before.bias - norm.weight * mean)

    return fit
