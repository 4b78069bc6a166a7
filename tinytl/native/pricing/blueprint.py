"""Stand-ins for a network's parts: their shapes, as the unroller reads them, and no values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tinytl.description.config import (
    Activation,
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NormConfig,
    Padding,
)
from tinytl.description.method import Method, is_trained
from tinytl.description.plan import OptimizerBits, TrainedBits
from tinytl.native.arena import aligned
from tinytl.native.unroll.memory import Buffer, FrozenValues
from tinytl.native.unroll.parameters import Parameters
from tinytl.native.unroll.units import Values


@dataclass(frozen=True, kw_only=True)
class Blank:
    """A tensor without values, as far as the unroller looks at tensors."""

    shape: tuple[int, ...]
    value_bytes: int = 4
    requires_grad: bool = False

    def numel(self) -> int:
        return math.prod(self.shape)

    def element_size(self) -> int:
        return self.value_bytes

    def dim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> Blank:
        """As numpy's basic indexing."""
        indices = index if isinstance(index, tuple) else (index,)
        shape = [
            len(range(*of.indices(size)))
            for of, size in zip(indices, self.shape, strict=False)
            if isinstance(of, slice)
        ]
        rest = self.shape[len(indices) :]
        return Blank(shape=(*shape, *rest), value_bytes=self.value_bytes)

    def permute(self, *axes: int) -> Blank:
        shape = tuple(self.shape[axis] for axis in axes)
        return Blank(shape=shape, value_bytes=self.value_bytes)

    def flatten(self) -> Blank:
        return Blank(shape=(self.numel(),), value_bytes=self.value_bytes)


class FrozenSizes(FrozenValues):
    """Counts what FrozenValues would hold."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.num_buffers = 0

    def add(self, values: Any) -> Buffer:
        return self._count(values.numel() * values.element_size())

    def add_floats(self, values: Any) -> Buffer:
        return self._count(4 * values.numel())

    def _count(self, num_bytes: int) -> Buffer:
        buffer = Buffer(storage=None, num_bytes=num_bytes, offset=self.num_bytes)
        self.num_bytes += aligned(num_bytes)
        self.num_buffers += 1
        return buffer


@dataclass(frozen=True, kw_only=True)
class _Frozen:
    weight: Blank
    scale: Blank


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """tinytl.engine.layers.ConvUnit."""

    frozen: _Frozen
    gain: Blank | None
    bias: Blank | None
    norm: NormConfig | None
    stride: int
    groups: int
    padding: Padding
    activation: Activation | None


@dataclass(frozen=True, kw_only=True)
class _SqueezeExcite:
    reduce: _Unit
    expand: _Unit


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    weight: Blank
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    out_channels: int


@dataclass(frozen=True, kw_only=True)
class _Norm:
    weight: Blank
    bias: Blank
    eps: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class _LiteResidual:
    config: LiteResidualConfig
    conv1: _Convolution
    bn1: _Norm
    conv2: _Convolution
    final_bn: _Norm


@dataclass(frozen=True, kw_only=True)
class _Block:
    config: BlockConfig
    expand: _Unit | None
    depthwise: _Unit
    squeeze_excite: _SqueezeExcite | None
    project: _Unit
    lite_residual: _LiteResidual | None
    trained: Mapping[str, Blank]

    def parameters(self) -> Iterator[Blank]:
        """Those that are trained: the unroller asks whether there are any."""
        return iter(self.trained.values())


@dataclass(frozen=True, kw_only=True)
class _Classifier:
    in_features: int


@dataclass(kw_only=True)
class _Ends:
    """A network's stem, tail and head."""

    first_conv: Any = None
    final_expand: Any = None
    feature_mix: Any = None
    classifier: Any = None


class _Trained:
    """A network, as far as its trained parameters are asked for."""

    def __init__(self, trained: Mapping[str, Any]) -> None:
        self._trained = trained

    def trained_parameters(self) -> Mapping[str, Any]:
        return self._trained


class Blueprint:
    """Stand-ins for parts of networks that are alike in norm, padding and what is trained.

    trained: the trained parameters of all that has been drawn.
    """

    def __init__(self, norm: NormConfig, padding: Padding, method: Method) -> None:
        self._norm = norm
        self._padding: Padding = padding
        self._method = method
        self.trained: dict[str, Blank] = {}

    def parameters(
        self, optimizer_bits: OptimizerBits = 32, trained_bits: TrainedBits = 32
    ) -> Parameters:
        """Of all that has been drawn, in a plan's precisions."""
        rounded = {
            name: replace(blank, value_bytes=trained_bits // 8) if blank.dim() > 1 else blank
            for name, blank in self.trained.items()
        }
        network: Any = _Trained(rounded)
        return Parameters(network, optimizer_bits, reserved_classes=0)

    def values(self) -> Values:
        """Of all that has been drawn, none of them there."""
        return Values(self.parameters(), FrozenSizes())

    def stem(self, conv: ConvConfig) -> Any:
        return _Ends(first_conv=self._conv("first_conv", conv))

    def tail(self, expand: ConvConfig | None, mix: ConvConfig) -> Any:
        return _Ends(
            final_expand=None if expand is None else self._conv("final_expand", expand),
            feature_mix=self._conv("feature_mix", mix),
        )

    def classifier(self, num_features: int, num_classes: int) -> Any:
        self._parameter("classifier.weight", num_classes, num_features)
        self._parameter("classifier.bias", num_classes)
        return _Classifier(in_features=num_features)

    def block(self, config: BlockConfig) -> Any:
        """By the name of blocks.0."""
        mid, name, activation = config.mid_channels, "blocks.0", config.activation
        expand, squeeze_excite = None, None
        if config.has_expansion:
            expand = self._unit(f"{name}.expand", (mid, config.in_channels, 1), activation)
        depthwise = self._unit(
            f"{name}.depthwise",
            (mid, 1, config.kernel_size),
            activation,
            groups=mid,
            stride=config.stride,
        )
        if config.squeeze_excite:
            few = config.squeeze_channels
            squeeze_excite = _SqueezeExcite(
                reduce=self._unit(
                    f"{name}.squeeze_excite.reduce", (few, mid, 1), "relu", has_norm=False
                ),
                expand=self._unit(
                    f"{name}.squeeze_excite.expand", (mid, few, 1), None, has_norm=False
                ),
            )
        project = self._unit(f"{name}.project", (config.out_channels, mid, 1), None)
        lite = None
        if config.lite_residual is not None:
            lite = self._lite_residual(f"{name}.lite_residual", config.lite_residual)
        return _Block(
            config=config,
            expand=expand,
            depthwise=depthwise,
            squeeze_excite=squeeze_excite,
            project=project,
            lite_residual=lite,
            trained=self.trained,
        )

    def _parameter(self, name: str, *shape: int) -> Blank:
        trains = is_trained(name, self._method)
        blank = Blank(shape=shape, requires_grad=trains)
        if trains:
            self.trained[name] = blank
        return blank

    def _conv(self, name: str, conv: ConvConfig) -> _Unit:
        return self._unit(
            name,
            (conv.out_channels, conv.in_channels, conv.kernel_size),
            conv.activation,
            stride=conv.stride,
            has_norm=conv.has_norm,
            has_bias=conv.has_norm,
        )

    def _unit(
        self,
        name: str,
        sizes: tuple[int, int, int],
        activation: Activation | None,
        *,
        groups: int = 1,
        stride: int = 1,
        has_norm: bool = True,
        has_bias: bool = True,
    ) -> _Unit:
        """sizes: output channels, input channels of a group, kernel."""
        out, inside, kernel = sizes
        gain = None
        if has_norm and self._norm.kind == "group":
            gain = self._parameter(f"{name}.gain", out)
        return _Unit(
            frozen=_Frozen(
                weight=Blank(shape=(out, inside, kernel, kernel), value_bytes=1),
                scale=Blank(shape=(out, 1, 1, 1)),
            ),
            gain=gain,
            bias=self._parameter(f"{name}.bias", out) if has_bias else None,
            norm=self._norm if has_norm else None,
            stride=stride,
            groups=groups,
            padding=self._padding,
            activation=activation,
        )

    def _lite_residual(self, name: str, config: LiteResidualConfig) -> _LiteResidual:
        mid, out, kernel = config.mid_channels, config.out_channels, config.kernel_size

        def convolution(kind: str, shape: tuple[int, ...], stride: int) -> _Convolution:
            groups = config.groups if kind == "conv1" else 1
            return _Convolution(
                weight=self._parameter(f"{name}.{kind}.weight", *shape),
                kernel_size=(shape[2], shape[3]),
                stride=(stride, stride),
                groups=groups,
                out_channels=shape[0],
            )

        def norm(kind: str, channels: int) -> _Norm:
            weight, bias = (
                self._parameter(f"{name}.{kind}.{what}", channels) for what in ("weight", "bias")
            )
            return _Norm(weight=weight, bias=bias)

        inside = config.in_channels // config.groups
        return _LiteResidual(
            config=config,
            conv1=convolution("conv1", (mid, inside, kernel, kernel), config.stride),
            bn1=norm("bn1", mid),
            conv2=convolution("conv2", (out, mid, 1, 1), 1),
            final_bn=norm("final_bn", out),
        )
