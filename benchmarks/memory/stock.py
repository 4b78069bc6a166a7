"""The baseline: a NetworkConfig built from stock PyTorch modules, trained by plain autograd.

What the published TinyTL code does: float weights, weight standardization at every forward,
nn.GroupNorm or a frozen nn.BatchNorm2d, contiguous maps. Tensors have the names that the ofa
package's static networks give them, so tinytl.engine.network.build_network takes the same state
dict.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.description.config import (
    GROUP_NORM_CHANNELS,
    Activation,
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    NormConfig,
    Padding,
    conv_pads,
    largest_divisor,
)
from tinytl.description.method import Method, is_trained

_LAYER_NAMES = {
    "classifier.linear": "classifier",
    "final_expand_layer": "final_expand",
    "feature_mix_layer": "feature_mix",
    ".conv.inverted_bottleneck.": ".expand.",
    ".conv.depth_conv.se.fc.": ".squeeze_excite.",
    ".conv.depth_conv.": ".depthwise.",
    ".conv.point_linear.": ".project.",
}
_VALUE_NAMES = {".conv.weight": ".weight", ".bn.weight": ".gain", ".bn.bias": ".bias"}


class StandardizedConv2d(nn.Conv2d):
    """conv(x, (w - mean(w)) / (std(w) + eps)), per output channel (arXiv 1903.10520)."""

    standardization_eps: float

    def forward(self, input: Tensor) -> Tensor:
        """input: (N, C, H, W)."""
        centered = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        deviation = centered.std((1, 2, 3), keepdim=True)
        weight = centered / (deviation + self.standardization_eps)
        output: Tensor = self._conv_forward(input, weight, None)
        return output


class SamePadding(nn.Module):
    """TensorFlow's "same" padding of a convolution's input: there is no such option of stride 2 in
    PyTorch."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        height, width = (
            conv_pads("same", self.kernel_size, self.stride, side) for side in x.shape[2:]
        )
        return F.pad(x, [*width, *height])


class SqueezeExcite(nn.Module):
    """x * hard_sigmoid(expand(relu(reduce(mean(x))))) (MobileNetV3, arXiv 1905.02244)."""

    def __init__(self, channels: int, mid_channels: int) -> None:
        super().__init__()
        self.fc = _sequence(
            reduce=nn.Conv2d(channels, mid_channels, 1),
            relu=nn.ReLU(inplace=True),
            expand=nn.Conv2d(mid_channels, channels, 1),
            h_sigmoid=nn.Hardsigmoid(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        factors: Tensor = self.fc(x.mean((2, 3), keepdim=True))
        return x * factors


class LiteResidual(nn.Module):
    """upsample(norm(conv1x1(relu(norm(group_conv(pool(x))))))) (TinyTL paper, section 3.2).

    Its norms are group norms, as in tinytl.engine.lite_residual. standardization_eps: None leaves
    the weights as they are, as there.
    """

    def __init__(self, config: LiteResidualConfig, standardization_eps: float | None) -> None:
        super().__init__()
        mid, kernel_size = config.mid_channels, config.kernel_size
        self.downsample_ratio = config.downsample_ratio
        self.conv1 = _conv(
            config.in_channels,
            mid,
            kernel_size,
            stride=config.stride,
            groups=config.groups,
            standardization_eps=standardization_eps,
        )
        self.bn1 = _group_norm(mid, GROUP_NORM_CHANNELS, 1e-5)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = _conv(mid, config.out_channels, 1, standardization_eps=standardization_eps)
        self.final_bn = _group_norm(config.out_channels, GROUP_NORM_CHANNELS, 1e-5)
        nn.init.zeros_(self.final_bn.weight)

    def forward(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        """x: (N, in_channels, H, W). Returns (N, out_channels, *out_size)."""
        smallest_side = min(x.shape[2:])
        y = F.avg_pool2d(x, min(self.downsample_ratio or smallest_side, smallest_side))
        y = self.act(self.bn1(self.conv1(y)))
        y = self.final_bn(self.conv2(y))
        return F.interpolate(y, size=out_size, mode="bilinear", align_corners=False)


class Block(nn.Module):
    """A mobile inverted residual block with an optional lite residual module beside it."""

    def __init__(
        self, config: BlockConfig, norm: NormConfig, padding: Padding, lite_eps: float | None
    ) -> None:
        super().__init__()
        mid = config.mid_channels
        expand = ConvConfig(
            in_channels=config.in_channels,
            out_channels=mid,
            kernel_size=1,
            activation=config.activation,
        )
        depthwise = ConvConfig(
            in_channels=mid,
            out_channels=mid,
            kernel_size=config.kernel_size,
            stride=config.stride,
            activation=config.activation,
        )
        project = ConvConfig(in_channels=mid, out_channels=config.out_channels, kernel_size=1)
        squeeze = SqueezeExcite(mid, config.squeeze_channels) if config.squeeze_excite else None
        self.conv = _sequence(
            inverted_bottleneck=_unit(expand, norm) if config.has_expansion else None,
            depth_conv=_unit(depthwise, norm, padding, groups=mid, squeeze_excite=squeeze),
            point_linear=_unit(project, norm),
        )
        module = config.lite_residual
        self.lite_residual = None if module is None else LiteResidual(module, lite_eps)
        self.shortcut = config.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in_channels, H, W) -> (N, out_channels, H', W')."""
        y: Tensor = self.conv(x)
        if self.lite_residual is not None:
            y = y + self.lite_residual(x, (y.shape[2], y.shape[3]))
        return y + x if self.shortcut else y


class StockNetwork(nn.Module):
    """The network of a config in stock modules; requires_grad has been set for the method.

    Batch norms use their running statistics whatever the mode, as a frozen norm does.
    standardize_lite_residuals: the published code standardizes the weights of lite residuals too
    where it standardizes any; tinytl.engine.network does not.
    """

    def __init__(
        self, config: NetworkConfig, method: Method, *, standardize_lite_residuals: bool = False
    ) -> None:
        super().__init__()
        norm = config.norm
        lite_eps = norm.weight_standardization_eps if standardize_lite_residuals else None
        self.first_conv = _unit(config.first_conv, norm, config.padding)
        self.blocks = nn.Sequential(
            *(
                nn.Identity() if block is None else Block(block, norm, config.padding, lite_eps)
                for block in config.blocks
            )
        )
        final_expand = config.final_expand
        self.final_expand_layer = None if final_expand is None else _unit(final_expand, norm)
        self.feature_mix_layer = _unit(config.feature_mix, norm)
        self.classifier = _sequence(
            dropout=nn.Dropout(config.dropout_rate) if config.dropout_rate else None,
            linear=nn.Linear(config.feature_mix.out_channels, config.num_classes),
        )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(tinytl_name(name), method))
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of normalized float images (N, 3, H, W)."""
        x = self.first_conv(images)
        for block in self.blocks:  # a call of the whole sequence would keep its input alive
            x = block(x)
        if self.final_expand_layer is not None:
            x = self.final_expand_layer(x).mean((2, 3), keepdim=True)
        logits: Tensor = self.classifier(self.feature_mix_layer(x).mean((2, 3)))
        return logits


def tinytl_name(name: str) -> str:
    """What tinytl.engine.network calls the parameter that has this name here."""
    if ".lite_residual." in name:
        return name
    for names in (_LAYER_NAMES, _VALUE_NAMES):
        for stock, ours in names.items():
            if stock in name:
                name = name.replace(stock, ours)
                break
    return name


def stock_gradients(network: StockNetwork, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean cross entropy for every trained parameter, by tinytl.engine.network's
    names.

    images: (N, 3, H, W), normalized; labels: (N,).
    """
    trained = {tinytl_name(n): p for n, p in network.named_parameters() if p.requires_grad}
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, list(trained.values()))
    return dict(zip(trained, gradients, strict=True))


def _sequence(**modules: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict((name, module) for name, module in modules.items() if module is not None)
    )


def _unit(
    config: ConvConfig,
    norm: NormConfig,
    padding: Padding = "symmetric",
    *,
    groups: int = 1,
    squeeze_excite: SqueezeExcite | None = None,
) -> nn.Sequential:
    """Convolution, norm, activation and squeeze-and-excite, where the config has them."""
    kernel_size, stride = config.kernel_size, config.stride
    pads_itself = padding == "symmetric" or stride == 1
    return _sequence(
        pad=None if pads_itself else SamePadding(kernel_size, stride),
        conv=_conv(
            config.in_channels,
            config.out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if pads_itself else 0,
            groups=groups,
            standardization_eps=norm.weight_standardization_eps if config.has_norm else None,
        ),
        bn=_norm(config.out_channels, norm) if config.has_norm else None,
        act=_activation(config.activation),
        se=squeeze_excite,
    )


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    standardization_eps: float | None,
) -> nn.Conv2d:
    padding = kernel_size // 2 if padding is None else padding
    sizes = (in_channels, out_channels, kernel_size, stride, padding)
    if standardization_eps is None:
        return nn.Conv2d(*sizes, groups=groups, bias=False)
    conv = StandardizedConv2d(*sizes, groups=groups, bias=False)
    conv.standardization_eps = standardization_eps
    return conv


def _norm(channels: int, norm: NormConfig) -> nn.Module:
    if norm.kind == "group":
        return _group_norm(channels, norm.channels_per_group, norm.eps)
    return nn.BatchNorm2d(channels, eps=norm.eps, momentum=norm.momentum)


def _group_norm(channels: int, channels_per_group: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(channels // largest_divisor(channels, channels_per_group), channels, eps)


def _activation(activation: Activation | None) -> nn.Module | None:
    if activation is None:
        return None
    if activation == "h_swish":
        return nn.Hardswish()
    return nn.ReLU6(inplace=True) if activation == "relu6" else nn.ReLU(inplace=True)
