"""A convolution with its norm and activation, and squeeze-and-excite, frozen or trained.

Layers run forward and backward explicitly: forward pushes what backward will need on a tape,
backward pops it, last in, first out. So what is stored, and for how long, is written here and
nowhere else. backward may overwrite the gradient that it is given.

Parameters are named for tinytl.description.method: `weight` (a parameter only where it is
trained), `gain` (where norm gains are trained), `bias`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.description.chunks import HARD_SWISH_CHUNK_VALUES
from tinytl.description.config import Activation, NormConfig, Padding, largest_divisor
from tinytl.description.method import Method
from tinytl.engine.gradients import Gradients, learns, needed
from tinytl.engine.ops.convolution import (
    convolve,
    convolve_frozen,
    cut_out,
    frozen_input_gradient,
    input_gradient,
    lay_out,
    weight_gradient,
)
from tinytl.engine.ops.masks import apply_mask_, clamp_, clamp_and_pack_
from tinytl.engine.ops.norms import (
    frozen_norm_,
    frozen_norm_backward_,
    group_norm,
    group_norm_backward,
)
from tinytl.engine.ops.quantize import quantize

WeightBits = Literal[8, 32]
TensorGetter = Callable[[str, torch.Size], Tensor]
"""Takes a tensor of a name and shape out of a source state dict."""

Tape = list[Any]
"""What forward leaves for backward, a stack."""


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


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
    return centered.div_(deviation + eps)


def standardize_backward(grad: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Gradient of standardize's weight.

    With c = w - mean(w), s = std(w) (n - 1 in its denominator) and z = c / (s + eps):
    dw = (g - mean(g)) / (s + eps) - c * sum(g * c) / ((n - 1) * s * (s + eps)^2).
    """
    num_values = weight[0].numel()
    centered = weight - weight.mean((1, 2, 3), keepdim=True)
    deviation = centered.flatten(1).std(1).view(-1, 1, 1, 1)
    spread = deviation + eps
    along = (grad * centered).sum((1, 2, 3), keepdim=True)
    along.div_((num_values - 1) * deviation * spread**2)
    along.nan_to_num_(0)  # where all values are equal
    grad = (grad - grad.mean((1, 2, 3), keepdim=True)).div_(spread)
    return grad.sub_(centered.mul_(along))


def hard_swish_backward_(grad: Tensor, y: Tensor) -> None:
    """Gradient of hard swish's input y from that of its output, in place; both (N, C, H, W),
    channels last. A stretch at a time: torch's own, even into grad, has room for all of it.
    """
    flat, flat_y = (values.permute(0, 2, 3, 1).view(-1) for values in (grad, y))
    for start in range(0, len(flat), HARD_SWISH_CHUNK_VALUES):
        part = flat[start : start + HARD_SWISH_CHUNK_VALUES]
        part_y = flat_y[start : start + HARD_SWISH_CHUNK_VALUES]
        part.copy_(torch.ops.aten.hardswish_backward(part, part_y))


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
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.stride = stride
        self.groups = groups
        self.padding: Padding = padding
        self.activation: Activation | None = activation
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.frozen = None if method.trains_weights else FrozenWeight(shape, weight_bits)
        self.weight = _parameter(*shape) if method.trains_weights else None
        keeps_gain = norm is not None and (norm.kind == "group" or method.trains_gain)
        self.gain = _parameter(out_channels) if keeps_gain else None
        self.bias = _parameter(out_channels) if norm is not None or has_bias else None
        if keeps_gain and norm is not None and norm.kind == "batch":
            self.register_buffer("mean", torch.zeros(out_channels))
            self.register_buffer("inv_std", torch.ones(out_channels))

    @torch.no_grad()
    def assign(self, take: TensorGetter, conv: str, norm: str) -> None:
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
        eps = self._standardization_eps
        self.frozen.assign(weight if eps is None else standardize(weight, eps), factor)

    @property
    def _standardization_eps(self) -> float | None:
        return None if self.norm is None else self.norm.weight_standardization_eps

    @property
    def keeps_bits_only(self) -> bool:
        """Whether backward needs nothing of forward but a rectifier's mask."""
        return self.weight is None and self.gain is None and self.activation != "h_swish"

    @property
    def overwrites_gradient(self) -> bool:
        """Whether backward works in the gradient that it is given."""
        in_place_norm = self.norm is not None and self.norm.kind == "batch"
        return self.activation is not None or (self.gain is not None and in_place_norm)

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """x: (N, C, H, W), channels last, left as it is; it goes once it is convolved, unless
        someone else holds it."""
        in_size = x.shape[2:]
        bias = self.bias if self.gain is None else None
        if self.frozen is not None:
            y = convolve_frozen(
                x,
                self._lay_out(self.frozen.weight, in_size),
                self.frozen.scale,
                bias,
                self.stride,
                self.groups,
            )
        else:
            y = convolve(x, self._used_weight(x), bias, self.stride, self.groups)
            if tape is not None:
                tape.append(x)
        del x
        if tape is not None:
            tape.append(in_size)
        if self.gain is not None:
            y = self._normalize(y, tape)
        return self._activate(y, tape)

    def _lay_out(self, weight: Tensor, in_size: torch.Size) -> Tensor:
        return lay_out(weight, self.padding, self.stride, in_size)

    def _used_weight(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        weight, eps = self.weight.to(x.dtype), self._standardization_eps
        if eps is not None:
            weight = standardize(weight, eps)
        return self._lay_out(weight, x.shape[2:])

    def _normalize(self, y: Tensor, tape: Tape | None) -> Tensor:
        norm, gain, bias = self.norm, self.gain, self.bias
        assert norm is not None
        assert gain is not None
        assert bias is not None
        if norm.kind == "group":
            num_groups = y.shape[1] // largest_divisor(y.shape[1], norm.channels_per_group)
            z, statistics = group_norm(y, gain, bias, num_groups, norm.eps)
            if tape is not None:
                tape.append((y, statistics))
            return z
        if tape is not None:
            tape.append(y)
            y = y.clone()
        return frozen_norm_(y, gain, bias, self._statistics())

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.get_buffer("mean"), self.get_buffer("inv_std")

    def _activate(self, y: Tensor, tape: Tape | None) -> Tensor:
        if self.activation is None:
            return y
        if self.activation == "h_swish":
            if tape is None:
                return F.hardswish(y, inplace=True)
            tape.append(y)
            return F.hardswish(y)
        if tape is None:
            return clamp_(y, self.activation)
        tape.append(clamp_and_pack_(y, self.activation))
        return y

    def backward(
        self, grad: Tensor, tape: Tape, gradients: Gradients, *, needs_input: bool = True
    ) -> Tensor | None:
        """Hands gradients of parameters over; returns that of x where it is needed."""
        if self.activation == "h_swish":
            hard_swish_backward_(grad, tape.pop())
        elif self.activation is not None:
            apply_mask_(grad, tape.pop())
        if self.gain is not None:
            grad = self._normalize_backward(grad, tape, gradients)
        elif learns(self.bias):
            gradients.add(self.bias, grad.sum((0, 2, 3)))
        in_size = tape.pop()
        if self.frozen is not None:
            if not needs_input:
                return None
            frozen = self.frozen
            weight = self._lay_out(frozen.weight, in_size)
            return frozen_input_gradient(
                grad, weight, frozen.scale, in_size, self.stride, self.groups
            )
        return self._trained_backward(grad, tape.pop(), gradients, needs_input=needs_input)

    def _trained_backward(
        self, grad: Tensor, x: Tensor, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        weight = self.weight
        assert weight is not None
        used = self._used_weight(x)
        grad_x = None
        if needs_input:
            grad_x = input_gradient(grad, used, x.shape[2:], self.stride, self.groups)
        gradients.add(weight, self._weight_gradient(grad, x, used))
        return grad_x

    def _weight_gradient(self, grad: Tensor, x: Tensor, used: Tensor) -> Tensor:
        weight, eps = self.weight, self._standardization_eps
        assert weight is not None
        grad_used = weight_gradient(grad, x, used, self.stride, self.groups)
        grad_used = cut_out(grad_used, weight.shape[-1])
        if eps is None:
            return grad_used
        return standardize_backward(grad_used, weight.to(x.dtype), eps)

    def _normalize_backward(self, grad: Tensor, tape: Tape, gradients: Gradients) -> Tensor:
        norm, gain = self.norm, self.gain
        assert norm is not None
        assert gain is not None
        if norm.kind == "group":
            y, statistics = tape.pop()
            grad_y, grad_gain, grad_bias = group_norm_backward(grad, y, gain, statistics)
        else:
            y, statistics = tape.pop(), self._statistics()
            grad_y, grad_gain, grad_bias = frozen_norm_backward_(grad, y, gain, statistics)
        del y
        if learns(gain):
            gradients.add(gain, grad_gain)
        if learns(self.bias):
            gradients.add(self.bias, grad_bias)
        return grad_y


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

    def assign(self, take: TensorGetter, prefix: str) -> None:
        self.reduce.assign(take, f"{prefix}.fc.reduce", "")
        self.expand.assign(take, f"{prefix}.fc.expand", "")

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """x: (N, C, H, W). Without a tape it is overwritten."""
        pooled = x.mean((2, 3), keepdim=True)
        gate = self.expand.forward(self.reduce.forward(pooled, tape), tape)
        opened = F.hardsigmoid(gate)
        if tape is None:
            return x.mul_(opened)
        tape.append((x, gate))
        return x * opened

    def backward(self, grad: Tensor, tape: Tape, gradients: Gradients) -> Tensor:
        x, gate = tape.pop()
        grad_opened = x.mul_(grad).sum((2, 3), keepdim=True)
        del x
        grad_gate = torch.ops.aten.hardsigmoid_backward(grad_opened, gate)
        grad_reduced = needed(self.expand.backward(grad_gate, tape, gradients))
        grad_pooled = needed(self.reduce.backward(grad_reduced, tape, gradients))
        num_positions = grad.shape[2] * grad.shape[3]
        return grad.mul_(F.hardsigmoid(gate)).add_(grad_pooled.div_(num_positions))
