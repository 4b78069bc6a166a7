"""The one door to the ofa package.

ofa's data loading needs torchvision and a module that torch no longer has, and nothing here
loads data through it: an empty module stands in for it before the first import.
"""

import sys
from types import ModuleType
from typing import Any

_DATA_LOADING = "ofa.utils.my_dataloader"
sys.modules.setdefault(_DATA_LOADING, ModuleType(_DATA_LOADING))

from ofa.imagenet_classification.elastic_nn.modules.dynamic_layers import (  # noqa: E402
    DynamicMBConvLayer,
)
from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import (  # noqa: E402
    DynamicBatchNorm2d,
    DynamicSeparableConv2d,
)
from ofa.imagenet_classification.elastic_nn.networks.ofa_mbv3 import (  # noqa: E402
    OFAMobileNetV3,
)
from ofa.imagenet_classification.elastic_nn.networks.ofa_proxyless import (  # noqa: E402
    OFAProxylessNASNets,
)
from ofa.imagenet_classification.networks import MobileNetV3, ProxylessNASNets  # noqa: E402
from ofa.utils import MyConv2d  # noqa: E402
from ofa.utils.layers import (  # noqa: E402
    ConvLayer,
    IdentityLayer,
    LinearLayer,
    MBConvLayer,
    ResidualBlock,
)
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from search.elastic.group_norm import ElasticGroupNorm, GroupNorm, standardize  # noqa: E402
from search.space.architecture import SupernetSpec  # noqa: E402
from search.space.families import Stage  # noqa: E402
from tinytl.description.config import (  # noqa: E402
    BlockConfig,
    ConvConfig,
    NormConfig,
    conv_pads,
)

__all__ = ["DynamicBatchNorm2d", "OFAMobileNetV3", "OFAProxylessNASNets", "build_elastic_network"]


def build_elastic_network(spec: SupernetSpec, num_classes: int) -> Any:
    """ofa's elastic network (a torch.nn.Module) of this architecture, randomly initialised.

    num_classes: 0 for one without a head, whose outputs are features.
    """
    shape = _MobileNetV3 if spec.family == "mobilenetv3" else _ProxylessNASNets
    network: nn.Module = shape(spec, num_classes)
    if spec.norm.kind == "group":
        _use_group_norm(network, spec.norm)
    return network


class _ProxylessNASNets(OFAProxylessNASNets):  # type: ignore[misc]
    """ofa's, whose own constructor gives all stages the same choices."""

    def __init__(self, spec: SupernetSpec, num_classes: int) -> None:
        ProxylessNASNets.__init__(
            self,
            _stem(spec),
            _blocks(spec),
            _pointwise(spec.feature_mix),
            _head(spec, num_classes),
        )
        _finish(self, spec)


class _MobileNetV3(OFAMobileNetV3):  # type: ignore[misc]
    """As above."""

    def __init__(self, spec: SupernetSpec, num_classes: int) -> None:
        assert spec.final_expand is not None
        MobileNetV3.__init__(
            self,
            _stem(spec),
            _blocks(spec),
            _pointwise(spec.final_expand),
            _pointwise(spec.feature_mix),
            _head(spec, num_classes),
        )
        _finish(self, spec)


def _finish(network: Any, spec: SupernetSpec) -> None:
    """What ofa's methods need to know of the stages."""
    depths = [stage.depths[-1] for stage in spec.stages] + [1] * (spec.last is not None)
    starts = [*spec.stage_starts, spec.num_dynamic_blocks - 1][: len(depths)]
    network.block_group_info = [
        list(range(start + 1, start + 1 + depth))
        for start, depth in zip(starts, depths, strict=True)
    ]
    network.runtime_depth = depths
    network.set_bn_param(momentum=spec.norm.momentum, eps=spec.norm.eps)


def _stem(spec: SupernetSpec) -> nn.Module:
    conv = spec.first_conv
    layer = _SamePaddedConvLayer if spec.padding == "same" else ConvLayer
    found: nn.Module = layer(
        conv.in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
        act_func=conv.activation,
    )
    return found


def _blocks(spec: SupernetSpec) -> list[nn.Module]:
    first = spec.first_block
    blocks = [_static_block(first)]
    channels = first.out_channels
    starts = {*spec.stage_starts, sum(stage.depths[-1] for stage in spec.stages)}
    for number, stage in enumerate(spec.block_stages):
        stride = stage.stride if number in starts else 1
        blocks.append(_elastic_block(stage, channels, stride, spec))
        channels = stage.out_channels
    return blocks


def _static_block(block: BlockConfig) -> nn.Module:
    layer = MBConvLayer(
        block.in_channels,
        block.out_channels,
        kernel_size=block.kernel_size,
        stride=block.stride,
        expand_ratio=1,
        act_func=block.activation,
    )
    return _with_shortcut(layer, block.out_channels if block.shortcut else None)


def _elastic_block(stage: Stage, channels: int, stride: int, spec: SupernetSpec) -> nn.Module:
    layer = DynamicMBConvLayer(
        in_channel_list=[channels],
        out_channel_list=[stage.out_channels],
        kernel_size_list=list(stage.kernel_sizes),
        expand_ratio_list=list(stage.expand_ratios),
        stride=stride,
        act_func=stage.activation,
        use_se=stage.squeeze_excite,
    )
    if spec.padding == "same":
        before = layer.depth_conv.conv
        layer.depth_conv.conv = _SamePaddedSeparableConv2d(
            before.max_in_channels, before.kernel_size_list, before.stride
        )
    has_shortcut = stride == 1 and channels == stage.out_channels
    return _with_shortcut(layer, channels if has_shortcut else None)


def _with_shortcut(layer: nn.Module, channels: int | None) -> nn.Module:
    shortcut = None if channels is None else IdentityLayer(channels, channels)
    found: nn.Module = ResidualBlock(layer, shortcut)
    return found


def _pointwise(conv: ConvConfig) -> nn.Module:
    found: nn.Module = ConvLayer(
        conv.in_channels,
        conv.out_channels,
        kernel_size=1,
        use_bn=conv.has_norm,
        act_func=conv.activation,
    )
    return found


def _head(spec: SupernetSpec, num_classes: int) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    found: nn.Module = LinearLayer(spec.feature_mix.out_channels, num_classes, dropout_rate=0)
    return found


class _SamePaddedConvLayer(ConvLayer):  # type: ignore[misc]
    """A stem with TensorFlow's padding."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.conv.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(_padded(x, self.kernel_size, self.stride))
        return y


class _SamePaddedSeparableConv2d(DynamicSeparableConv2d):  # type: ignore[misc]
    """An elastic depthwise convolution with TensorFlow's padding."""

    def forward(self, x: Tensor, kernel_size: int | None = None) -> Tensor:
        size = kernel_size or self.active_kernel_size
        weight = self.get_active_filter(x.shape[1], size).contiguous()
        if isinstance(self.conv, MyConv2d):
            weight = self.conv.weight_standardization(weight)
        x = _padded(x, size, self.stride)
        return F.conv2d(x, weight, None, self.stride, groups=x.shape[1])


def _padded(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """The map with the zeros that "same" puts around it."""
    height, width = (conv_pads("same", kernel_size, stride, size) for size in x.shape[2:])
    return F.pad(x, (*width, *height))


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
