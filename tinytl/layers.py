"""A convolution with its norm and activation, and squeeze-and-excite, frozen or trained.

Parameters are named for tinytl.trainable: `weight` (a parameter only where it is trained),
`gain` (where norm gains are trained), `bias`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.config import Activation, NormConfig, largest_divisor
from tinytl.frozen import convolve, frozen_conv, frozen_statistics_norm, group_norm, rectify
from tinytl.quantize import quantize
from tinytl.trainable import Method

WeightBits = Literal[8, 32]
Take = Callable[[str, torch.Size], Tensor]
"""Takes a tensor of a name and shape out of a source state dict."""


def _empty(*shape: int) -> Tensor:
    return torch.zeros(shape)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(_empty(*shape))


class FrozenWeight(nn.Module):
    """A convolution weight that is not trained: int8 with a scale per output channel, or float."""

    weight: Tensor
    scale: Tensor | None

    def __init__(self, shape: tuple[int, int, int, int], bits: WeightBits) -> None:
        super().__init__()
        if bits == 8:
            self.register_buffer("weight", torch.zeros(shape, dtype=torch.int8))
            self.register_buffer("scale", torch.ones(shape[0], 1, 1, 1))
        else:
            self.register_buffer("weight", torch.zeros(shape))
            self.scale = None

    def assign(self, weight: Tensor, factor: Tensor | None) -> None:
        """Hold weight * factor (per output channel): the factor goes into the scale."""
        if self.scale is not None:
            weight, scale = quantize(weight)
            self.scale.copy_(scale if factor is None else scale * factor)
        elif factor is not None:
            weight = weight * factor
        self.weight.copy_(weight)


def standardize(weight: Tensor, eps: float) -> Tensor:
    """Weight standardization (arXiv 1903.10520): mean 0 and deviation 1 per output channel."""
    centered = weight - weight.mean((1, 2, 3), keepdim=True)
    deviation = centered.flatten(1).std(1).view(-1, 1, 1, 1)
    return centered / (deviation + eps)


class ConvUnit(nn.Module):
    """activation(norm(conv(x))), or activation(conv(x) + bias) where there is no norm.

    A batch norm is frozen: where its gain is not trained it is folded into weight and bias, else
    its fixed statistics stay beside gain and bias. A group norm always keeps gain and bias.
    """

    bias: nn.Parameter | None
    gain: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        method: Method,
        weight_bits: WeightBits,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        norm: NormConfig | None = None,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.stride = stride
        self.groups = groups
        self.activation: Activation | None = activation
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.frozen = None if method.trains_weights else FrozenWeight(shape, weight_bits)
        self.weight = _parameter(*shape) if method.trains_weights else None
        keeps_gain = norm is not None and (norm.kind == "group" or method.trains_gain)
        self.gain = _parameter(out_channels) if keeps_gain else None
        self.bias = _parameter(out_channels) if norm is not None or has_bias else None
        if keeps_gain and norm is not None and norm.kind == "batch":
            self.register_buffer("mean", _empty(out_channels))
            self.register_buffer("inv_std", torch.ones(out_channels))

    @torch.no_grad()
    def assign(self, take: Take, conv: str, norm: str) -> None:
        """Take the float tensors of an ofa static net: prefixes of the convolution and norm."""
        held = self.frozen if self.frozen is not None else self
        assert isinstance(held.weight, Tensor)
        weight = take(f"{conv}.weight", held.weight.shape)
        channels = weight.shape[:1]
        factor = None
        if self.norm is None:
            if self.bias is not None:
                self.bias.copy_(take(f"{conv}.bias", channels))
        else:
            gain, bias = take(f"{norm}.weight", channels), take(f"{norm}.bias", channels)
            if self.norm.kind == "batch":
                mean = take(f"{norm}.running_mean", channels)
                variance = take(f"{norm}.running_var", channels)
                inv_std = (variance + self.norm.eps).rsqrt()
                if self.gain is None:
                    factor = (gain * inv_std).view(-1, 1, 1, 1)
                    bias = bias - mean * gain * inv_std
                else:
                    self.get_buffer("mean").copy_(mean)
                    self.get_buffer("inv_std").copy_(inv_std)
            if self.gain is not None:
                self.gain.copy_(gain)
            assert self.bias is not None
            self.bias.copy_(bias)
        if self.weight is not None:
            self.weight.copy_(weight)
            return
        assert self.frozen is not None
        eps = None if self.norm is None else self.norm.weight_standardization_eps
        self.frozen.assign(weight if eps is None else standardize(weight, eps), factor)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        if self.gain is None:
            return self._convolve(x, self.bias, self.activation)
        y = self._convolve(x, None, None)
        norm, bias = self.norm, self.bias
        assert norm is not None
        assert bias is not None
        if norm.kind == "group":
            groups = y.shape[1] // largest_divisor(y.shape[1], norm.channels_per_group)
            y = group_norm(y, self.gain, bias, groups, norm.eps)
        else:
            mean, inv_std = self.get_buffer("mean"), self.get_buffer("inv_std")
            y = frozen_statistics_norm(y, self.gain, bias, mean, inv_std)
        return rectify(y, self.activation)

    def _convolve(self, x: Tensor, bias: Tensor | None, activation: Activation | None) -> Tensor:
        if self.frozen is not None:
            return frozen_conv(
                x,
                self.frozen.weight,
                self.frozen.scale,
                bias,
                stride=self.stride,
                groups=self.groups,
                activation=activation,
            )
        weight = self.weight
        assert weight is not None
        eps = None if self.norm is None else self.norm.weight_standardization_eps
        used = weight if eps is None else standardize(weight, eps)
        return rectify(convolve(x, used, bias, self.stride, self.groups), activation)


class SqueezeExcite(nn.Module):
    """x * hard_sigmoid(expand(relu(reduce(mean(x))))) (MobileNetV3, arXiv 1905.02244)."""

    def __init__(
        self, channels: int, mid_channels: int, *, method: Method, weight_bits: WeightBits
    ) -> None:
        super().__init__()
        self.reduce = ConvUnit(
            channels,
            mid_channels,
            1,
            method=method,
            weight_bits=weight_bits,
            activation="relu",
            has_bias=True,
        )
        self.expand = ConvUnit(
            mid_channels, channels, 1, method=method, weight_bits=weight_bits, has_bias=True
        )

    def assign(self, take: Take, prefix: str) -> None:
        self.reduce.assign(take, f"{prefix}.fc.reduce", "")
        self.expand.assign(take, f"{prefix}.fc.expand", "")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.expand(self.reduce(pooled)))
