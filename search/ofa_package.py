"""The one door to the ofa package.

ofa's data loading needs torchvision and a module that torch no longer has, and nothing here
loads data through it: an empty module stands in for it before the first import.
"""

import sys
from types import ModuleType
from typing import Any

_DATA_LOADING = "ofa.utils.my_dataloader"
sys.modules.setdefault(_DATA_LOADING, ModuleType(_DATA_LOADING))

from ofa.imagenet_classification.elastic_nn.networks.ofa_mbv3 import (  # noqa: E402
    OFAMobileNetV3,
)
from ofa.imagenet_classification.elastic_nn.networks.ofa_proxyless import (  # noqa: E402
    OFAProxylessNASNets,
)

from search.architecture import SupernetSpec  # noqa: E402

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
    if spec.family == "proxyless":
        return OFAProxylessNASNets(base_stage_width="proxyless", **settings)
    return OFAMobileNetV3(**settings)
