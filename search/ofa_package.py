"""The one door to the ofa package.

ofa's data loading needs torchvision and a module that torch no longer has, and nothing here
loads data through it: an empty module stands in for it before the first import.
"""

import sys
from types import ModuleType
from typing import Any

_DATA_LOADING = "ofa.utils.my_dataloader"
sys.modules.setdefault(_DATA_LOADING, ModuleType(_DATA_LOADING))

from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import (  # noqa: E402
    DynamicBatchNorm2d,
)
from ofa.imagenet_classification.elastic_nn.networks.ofa_mbv3 import (  # noqa: E402
    OFAMobileNetV3,
)
from ofa.imagenet_classification.elastic_nn.networks.ofa_proxyless import (  # noqa: E402
    OFAProxylessNASNets,
)
from ofa.utils import MyConv2d  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from search.architecture import SupernetSpec  # noqa: E402
from search.elastic_group_norm import ElasticGroupNorm, GroupNorm, standardize  # noqa: E402
from tinytl.config import NormConfig  # noqa: E402

__all__ = ["OFAMobileNetV3", "OFAProxylessNASNets", "build_elastic_network"]


def build_elastic_network(spec: SupernetSpec, num_classes: int) -> Any:
    """ofa's elastic network (a torch.nn.Module) of this architecture, randomly initialised."""
    settings = {
        "n_classes": num_classes,
        "bn_param": (spec.norm.momentum, spec.norm.eps),
        "dropout_rate": 0,
        "width_mult": spec.width,
        "ks_list": list(spec.kernel_sizes),
        "expand_ratio_list": list(spec.expand_ratios),
        "depth_list": list(spec.depths),
    }
    network: nn.Module
    if spec.family == "proxyless":
        network = OFAProxylessNASNets(base_stage_width="proxyless", **settings)
    else:
        network = OFAMobileNetV3(**settings)
    if spec.norm.kind == "group":
        _use_group_norm(network, spec.norm)
    return network


class _StandardizedConv2d(MyConv2d):  # type: ignore[misc]
    """ofa's elastic layers standardize the weights that they cut from a MyConv2d."""

    def weight_standardization(self, weight: Tensor) -> Tensor:
        return standardize(weight, self.WS_EPS)


def _use_group_norm(network: nn.Module, norm: NormConfig) -> None:
    """Replace every batch norm, and the convolution before it."""
    parent: Any
    for parent in list(network.modules()):
        before = getattr(parent, "bn", None)
        if isinstance(before, DynamicBatchNorm2d):
            parent.bn = ElasticGroupNorm(before.bn.num_features, norm)
            parent.conv.conv = _standardized(parent.conv.conv, norm)
        elif isinstance(before, nn.BatchNorm2d) and not isinstance(parent, DynamicBatchNorm2d):
            parent.bn = GroupNorm(before.num_features, norm)
            parent.conv = _standardized(parent.conv, norm)


def _standardized(conv: nn.Conv2d, norm: NormConfig) -> nn.Conv2d:
    found = _StandardizedConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        bias=False,
    )
    found.weight = conv.weight
    found.WS_EPS = norm.weight_standardization_eps
    return found
