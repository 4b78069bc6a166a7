"""The parts of a network that a map passes one after another: stem, blocks, tail.

Each keeps for backward as little as its method and norm allow: the bits of its rectifiers where
that is all; else its input, from which backward computes the maps that it needs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tinytl.description.config import (
    IMAGENET,
    BlockConfig,
    Normalization,
    NormConfig,
    Padding,
)
from tinytl.description.method import Method
from tinytl.engine.gradients import Gradients, learns, needed
from tinytl.engine.layers import ConvUnit, SqueezeExcite, Tape, TensorGetter, WeightBits
from tinytl.engine.lite_residual import LiteResidual
from tinytl.engine.ops.convolution import empty_channels_last
from tinytl.engine.ops.normalize import normalize


class Part(Protocol):
    """A part of the network, run forward and backward explicitly (see tinytl.engine.layers)."""

    @property
    def learns(self) -> bool:
        """Whether the part has parameters that are trained."""

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """Leaves x as it is; with a tape, what backward will need is pushed on it."""

    def backward(
        self, grad: Tensor, tape: Tape, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        """The gradient of x where it is needed; grad may be overwritten."""


def _learns(module: nn.Module) -> bool:
    return any(learns(parameter) for parameter in module.parameters())


def _keep_bits_only(layers: Sequence[nn.Module]) -> bool:
    return all(isinstance(layer, ConvUnit) and layer.keeps_bits_only for layer in layers)


class Stem:
    """The first convolution, from images: uint8, widened here, or normalized floats."""

    def __init__(self, unit: ConvUnit, normalization: Normalization = IMAGENET) -> None:
        self._unit = unit
        self._normalization = normalization
        self._recomputes = not _keep_bits_only([unit])

    @property
    def learns(self) -> bool:
        return _learns(self._unit)

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """x: (N, 3, H, W)."""
        if tape is not None and self._recomputes:
            tape.append(x)
            tape = None
        return self._unit.forward(self._widen(x), tape)

    def _widen(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return normalize(images, self._normalization)
        return images.contiguous(memory_format=torch.channels_last)

    def backward(
        self, grad: Tensor, tape: Tape, gradients: Gradients, *, needs_input: bool = False
    ) -> None:
        """Images have no gradient."""
        if self._recomputes:
            x = tape.pop()
            tape = []
            self._unit.forward(self._widen(x), tape)
            del x
        grads = [grad]
        del grad
        self._unit.backward(grads.pop(), tape, gradients, needs_input=needs_input)


class Block(nn.Module):
    """A mobile inverted residual block with an optional lite residual module beside it."""

    def __init__(
        self,
        config: BlockConfig,
        norm: NormConfig,
        method: Method,
        weight_bits: WeightBits,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        mid = config.mid_channels
        self.config = config
        self.expand = (
            ConvUnit(
                config.in_channels,
                mid,
                1,
                method=method,
                weight_bits=weight_bits,
                activation=config.activation,
                norm=norm,
            )
            if config.has_expansion
            else None
        )
        self.depthwise = ConvUnit(
            mid,
            mid,
            config.kernel_size,
            method=method,
            weight_bits=weight_bits,
            stride=config.stride,
            groups=mid,
            activation=config.activation,
            norm=norm,
            padding=padding,
        )
        self.squeeze_excite = (
            SqueezeExcite(mid, config.squeeze_channels, method=method, weight_bits=weight_bits)
            if config.squeeze_excite
            else None
        )
        self.project = ConvUnit(
            mid, config.out_channels, 1, method=method, weight_bits=weight_bits, norm=norm
        )
        module = config.lite_residual
        self.lite_residual = None if module is None else LiteResidual(module)
        self._recomputes = not _keep_bits_only(self._main_branch)

    def assign(self, take: TensorGetter, prefix: str) -> None:
        conv = f"{prefix}.conv"
        if self.expand is not None:
            self.expand.assign(
                take, f"{conv}.inverted_bottleneck.conv", f"{conv}.inverted_bottleneck.bn"
            )
        self.depthwise.assign(take, f"{conv}.depth_conv.conv", f"{conv}.depth_conv.bn")
        if self.squeeze_excite is not None:
            self.squeeze_excite.assign(take, f"{conv}.depth_conv.se")
        self.project.assign(take, f"{conv}.point_linear.conv", f"{conv}.point_linear.bn")

    @property
    def _main_branch(self) -> list[ConvUnit | SqueezeExcite]:
        layers = (self.expand, self.depthwise, self.squeeze_excite, self.project)
        return [layer for layer in layers if layer is not None]

    @property
    def learns(self) -> bool:
        return _learns(self)

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """x: (N, in_channels, H, W) -> (N, out_channels, H', W')."""
        y = self._run_main_branch(x, None if self._recomputes else tape)
        if self.lite_residual is not None:
            pooled = self.lite_residual.pool(x)
            y += self.lite_residual.forward(pooled, y.shape[2:])
            if tape is not None and not self._recomputes:
                tape.append(pooled)
        if self.config.shortcut:
            y += x
        if tape is not None and self._recomputes:
            tape.append(x)
        return y

    def _run_main_branch(self, x: Tensor, tape: Tape | None) -> Tensor:
        maps = [x]  # whose references are handed on, so that a map is freed once it is used
        del x
        for layer in self._main_branch:
            maps.append(layer.forward(maps.pop(), tape))
        return maps.pop()

    def backward(
        self, grad: Tensor, tape: Tape, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        """grad: (N, out_channels, H', W') -> (N, in_channels, H, W)."""
        x = tape.pop() if self._recomputes else None
        grad_pooled = None
        if self.lite_residual is not None:
            pooled = tape.pop() if x is None else self.lite_residual.pool(x)
            grad_pooled = self.lite_residual.backward(
                grad, pooled, gradients, needs_input=needs_input
            )
            del pooled
        if not needs_input:  # then the main branch has nothing that learns, as the stem has not
            tape.clear()
            return None
        if x is not None:
            tape = []
            self._run_main_branch(x, tape)
            del x
        shortcut = self.config.shortcut
        grads = [grad.clone() if shortcut and self.project.overwrites_gradient else grad]
        if not shortcut:
            del grad
        for layer in reversed(self._main_branch):
            grads.append(needed(layer.backward(grads.pop(), tape, gradients)))
        grad_x = grads.pop()
        if shortcut:
            grad_x += grad
        if self.lite_residual is not None:
            self.lite_residual.add_pool_gradient_(grad_x, needed(grad_pooled))
        return grad_x


class Tail:
    """The last convolutions, with the pooling after or between them: a map to its features."""

    def __init__(self, before_pool: ConvUnit, after_pool: ConvUnit | None) -> None:
        self._before_pool = before_pool
        self._after_pool = after_pool
        self._units = [before_pool] if after_pool is None else [before_pool, after_pool]
        self._recomputes = not _keep_bits_only(self._units)

    @property
    def learns(self) -> bool:
        return any(_learns(unit) for unit in self._units)

    def forward(self, x: Tensor, tape: Tape | None = None) -> Tensor:
        """x: (N, C, H, W) -> (N, F)."""
        if tape is not None and self._recomputes:
            tape.append(x)
            tape = None
        return self._run(x, tape)

    def _run(self, x: Tensor, tape: Tape | None) -> Tensor:
        y = self._before_pool.forward(x, tape)
        if tape is not None:
            tape.append(y.shape[2:])
        y = y.mean((2, 3), keepdim=True)
        if self._after_pool is not None:
            y = self._after_pool.forward(y, tape)
        return y.flatten(1)

    def backward(
        self, grad: Tensor, tape: Tape, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        """grad: (N, F) -> (N, C, H, W)."""
        if self._recomputes:
            x = tape.pop()
            tape = []
            self._run(x, tape)
            del x
        grad = grad[:, :, None, None]
        if self._after_pool is not None:
            grad = needed(self._after_pool.backward(grad, tape, gradients))
        return self._before_pool.backward(
            _spread(grad, tape.pop()), tape, gradients, needs_input=needs_input
        )


def _spread(grad: Tensor, size: torch.Size) -> Tensor:
    """Gradient of a map (N, C, *size) from that of its mean (N, C, 1, 1)."""
    num_images, channels = grad.shape[:2]
    grad_map = empty_channels_last(num_images, channels, size, grad)
    return grad_map.copy_(grad).div_(size.numel())
