"""What the parts of a network take, forward and backward, without torch. Mirrors
tinytl.engine.blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tinytl.accounting.layers.ledger import FLOAT_BYTES, Ledger, Pass
from tinytl.accounting.layers.lite_residual import LiteResidualCost
from tinytl.accounting.layers.operations import (
    Parameters,
    Setting,
    Unit,
    UnitCost,
    accumulate_gradient,
)
from tinytl.description.config import Activation, BlockConfig, ConvConfig


class Placement(NamedTuple):
    """Where in its stretch a part is.

    needs_input: whether anything before it learns. What is shared is part of a whole batch's map,
    which is counted apart and stays.
    """

    needs_input: bool = True
    grad_is_shared: bool = False
    input_is_shared: bool = False


class Part(Protocol):
    """A part's events in a ledger.

    x, y: bytes of its input (0 for images, which the batch is) and output; kept: what waits
    between forward and backward, the input itself where keeps_input says so.
    """

    x: int
    y: int
    kept: int
    keeps_input: bool

    def count(self, parameters: Parameters) -> None: ...

    def forward(self, ledger: Ledger, *, taped: bool) -> None:
        """The input is held by the caller; leaves the output held, and what is kept."""

    def backward(self, ledger: Ledger, kind: Pass, where: Placement) -> None:
        """What was kept is held, and the output's gradient, but for what is shared.

        Leaves the input's gradient held, where it is needed, and nothing else.
        """


class StemPart:
    """The first convolution; its input is the images, which it widens."""

    def __init__(self, conv: ConvConfig, setting: Setting, in_size: int) -> None:
        self._unit = _conv_unit(conv, setting, in_size)
        self._recomputes = not self._unit.keeps_bits_only
        self._widened = self._unit.x
        self.x = 0
        self.y = self._unit.y
        self.kept = 0 if self._recomputes else self._unit.kept
        self.keeps_input = self._recomputes

    def count(self, parameters: Parameters) -> None:
        self._unit.count(parameters)

    def forward(self, ledger: Ledger, *, taped: bool) -> None:
        ledger.allocate(self._widened)
        self._unit.forward(ledger, taped=taped and not self._recomputes, holds_input=False)

    def backward(self, ledger: Ledger, kind: Pass, where: Placement) -> None:
        unit = self._unit
        if self._recomputes:
            ledger.allocate(self._widened)
            unit.forward(ledger, taped=True, holds_input=unit.trains_weight)
            ledger.free(unit.y)
        unit.backward(ledger, kind, needs_input=False)
        if unit.trains_weight:
            ledger.free(self._widened)


class SqueezeExciteCost:
    """Squeeze-and-excite over a map of x bytes."""

    def __init__(self, block: BlockConfig, setting: Setting, size: int) -> None:
        mid, squeezed = block.mid_channels, block.squeeze_channels
        learns = setting.method.trains_squeeze_bias
        self.x = self.y = setting.map_bytes(mid, size)
        self._pooled = setting.map_bytes(mid, 1)
        layers: tuple[tuple[int, int, Activation | None], ...] = (
            (mid, squeezed, "relu"),
            (squeezed, mid, None),
        )
        self._reduce, self._expand = (
            UnitCost(
                Unit(
                    in_channels=ins,
                    out_channels=outs,
                    activation=activation,
                    has_norm=False,
                    bias_learns=learns,
                    in_size=1,
                ),
                setting,
            )
            for ins, outs, activation in layers
        )

    def count(self, parameters: Parameters) -> None:
        self._reduce.count(parameters)
        self._expand.count(parameters)

    def forward(self, ledger: Ledger, *, taped: bool) -> None:
        """x is held; leaves y held (untaped it is x itself), and what is kept."""
        reduce, expand, pooled = self._reduce, self._expand, self._pooled
        ledger.allocate(pooled)
        reduce.forward(ledger, taped=taped)
        expand.forward(ledger, taped=taped)
        ledger.allocate(pooled)
        if taped:
            ledger.allocate(self.y)
            ledger.free(pooled)  # the opened gate; the rest waits
            if not reduce.trains_weight:
                ledger.free(reduce.x + reduce.y)
        else:
            ledger.free(2 * pooled + reduce.y + expand.y)

    def backward(self, ledger: Ledger, kind: Pass) -> None:
        """Leaves the gradient of x in the place of that of y."""
        reduce, expand, pooled = self._reduce, self._expand, self._pooled
        ledger.allocate(2 * pooled)
        ledger.free(self.x)
        expand.backward(ledger, kind)
        if expand.trains_weight:
            ledger.free(expand.x)
        reduce.backward(ledger, kind)
        if reduce.trains_weight:
            ledger.free(reduce.x)
        ledger.transient(pooled)
        ledger.free(3 * pooled)  # the gate, and the gradients of its opening and of the mean


class BlockPart:
    """A mobile inverted residual block and its lite residual module."""

    def __init__(self, block: BlockConfig, setting: Setting, in_size: int) -> None:
        self._block = block
        bias_learns = setting.method.trains_bias
        mid = block.mid_channels
        depthwise = Unit(
            in_channels=mid,
            out_channels=mid,
            kernel_size=block.kernel_size,
            stride=block.stride,
            is_depthwise=True,
            activation=block.activation,
            bias_learns=bias_learns,
            in_size=in_size,
        )
        expand = Unit(
            in_channels=block.in_channels,
            out_channels=mid,
            activation=block.activation,
            bias_learns=bias_learns,
            in_size=in_size,
        )
        project = Unit(
            in_channels=mid,
            out_channels=block.out_channels,
            bias_learns=bias_learns,
            in_size=depthwise.out_size,
        )
        self._layers: list[UnitCost | SqueezeExciteCost] = []
        if block.has_expansion:
            self._layers.append(UnitCost(expand, setting))
        self._layers.append(UnitCost(depthwise, setting))
        if block.squeeze_excite:
            self._layers.append(SqueezeExciteCost(block, setting, depthwise.out_size))
        self._layers.append(UnitCost(project, setting))
        module = block.lite_residual
        self._lite = None if module is None else LiteResidualCost(module, setting, in_size)
        self._trains_weight = setting.method.trains_weights
        self._clones_gradient = (
            block.shortcut and setting.norm.kind == "batch" and setting.method.trains_gain
        )
        self.x = self._layers[0].x
        self.y = self._layers[-1].y
        self.keeps_input = not _keep_bits_only(self._layers)
        self._pooled = 0 if self._lite is None else self._lite.pooled
        self.kept = self.x if self.keeps_input else self._main_kept + self._pooled

    @property
    def _main_kept(self) -> int:
        return sum(layer.kept for layer in self._layers if isinstance(layer, UnitCost))

    def count(self, parameters: Parameters) -> None:
        for layer in self._layers:
            layer.count(parameters)
        if self._lite is not None:
            self._lite.count(parameters)

    def forward(self, ledger: Ledger, *, taped: bool) -> None:
        keeps_bits = taped and not self.keeps_input
        self._run_main_branch(ledger, taped=keeps_bits)
        if self._lite is not None:
            ledger.allocate(self._pooled)
            self._lite.forward(ledger, self.y)
            ledger.free(self.y)
            if not keeps_bits:
                ledger.free(self._pooled)

    def _run_main_branch(self, ledger: Ledger, *, taped: bool) -> None:
        for position, layer in enumerate(self._layers):
            if isinstance(layer, SqueezeExciteCost):
                layer.forward(ledger, taped=taped)
                continue
            waits = taped and self._trains_weight
            layer.forward(ledger, taped=taped, holds_input=position == 0 or waits)

    def backward(self, ledger: Ledger, kind: Pass, where: Placement) -> None:
        if self._lite is not None:
            if self.keeps_input:
                ledger.allocate(self._pooled)
            self._lite.backward(ledger, kind, self.y, needs_input=where.needs_input)
            ledger.free(self._pooled)
        if not where.needs_input:
            return
        if self.keeps_input:
            self._run_main_branch(ledger, taped=True)
            ledger.free(self.y)
            if not self._trains_weight and not where.input_is_shared:
                ledger.free(self.x)
        stays = self._block.shortcut or where.grad_is_shared
        if self._clones_gradient:
            ledger.allocate(self.y)
        for layer in reversed(self._layers):
            if isinstance(layer, SqueezeExciteCost):
                layer.backward(ledger, kind)
                continue
            grad_stays = stays and layer is self._layers[-1] and not self._clones_gradient
            layer.backward(ledger, kind, grad_stays=grad_stays)
            if layer.trains_weight and not (layer is self._layers[0] and where.input_is_shared):
                ledger.free(layer.x)
        if stays and not where.grad_is_shared:
            ledger.free(self.y)
        if self._lite is not None:
            ledger.free(self._pooled)


class TailPart:
    """The last convolutions and their pooling. The gradient of y is always a shared one."""

    def __init__(
        self,
        before_pool: ConvConfig,
        after_pool: ConvConfig | None,
        setting: Setting,
        in_size: int,
    ) -> None:
        self._before = _conv_unit(before_pool, setting, in_size)
        self._after = None if after_pool is None else _conv_unit(after_pool, setting, 1)
        self._units = [self._before] if self._after is None else [self._before, self._after]
        self._pooled = setting.map_bytes(before_pool.out_channels, 1)
        self.x = self._before.x
        self.y = self._pooled if self._after is None else self._after.y
        self.keeps_input = not _keep_bits_only(self._units)
        self.kept = self.x if self.keeps_input else sum(unit.kept for unit in self._units)

    def count(self, parameters: Parameters) -> None:
        for unit in self._units:
            unit.count(parameters)

    def forward(self, ledger: Ledger, *, taped: bool) -> None:
        self._run(ledger, taped=taped and not self.keeps_input)

    def _run(self, ledger: Ledger, *, taped: bool) -> None:
        self._before.forward(ledger, taped=taped)
        ledger.allocate(self._pooled)
        ledger.free(self._before.y)
        if self._after is not None:
            self._after.forward(ledger, taped=taped)
            if not (taped and self._after.trains_weight):
                ledger.free(self._pooled)

    def backward(self, ledger: Ledger, kind: Pass, where: Placement) -> None:
        trained = self._before.trains_weight
        if self.keeps_input:
            self._run(ledger, taped=True)
            ledger.free(self.y)
            if not trained and not where.input_is_shared:
                ledger.free(self.x)
        if self._after is not None:
            self._after.backward(ledger, kind)
            ledger.allocate(self._after.y)
            if trained:
                ledger.free(self._after.x)
        ledger.allocate(self._before.y)
        self._before.backward(ledger, kind, needs_input=where.needs_input)
        if self._after is not None:
            ledger.free(self._pooled)
        if trained and not where.input_is_shared:
            ledger.free(self.x)


class HeadPart:
    """Dropout, classifier and loss, from features that are held to their gradient."""

    def __init__(
        self, num_features: int, num_classes: int, setting: Setting, *, has_dropout: bool
    ) -> None:
        self._setting = setting
        self._num_weights = num_features * num_classes
        self._num_classes = num_classes
        self.features = setting.map_bytes(num_features, 1)
        self._logits = setting.map_bytes(num_classes, 1)
        self._dropped = self.features if has_dropout else 0

    def count(self, parameters: Parameters) -> None:
        parameters.add(self._num_weights, trained=True, is_matrix=True)
        parameters.add(self._num_classes, trained=True)

    def turn(self, ledger: Ledger, kind: Pass) -> None:
        """The features are held; leaves their gradient held."""
        setting, logits, weight = self._setting, self._logits, self._num_weights * FLOAT_BYTES
        wide = weight if setting.trained_bits == 16 else 0
        ledger.allocate(self._dropped)
        ledger.transient(wide + logits)
        ledger.allocate(2 * logits)
        ledger.transient(3 * logits)
        ledger.transient(wide + self.features)
        ledger.allocate(self.features + weight)
        accumulate_gradient(ledger, setting, kind, self._num_weights, is_matrix=True)
        ledger.allocate(self._num_classes * FLOAT_BYTES)
        accumulate_gradient(ledger, setting, kind, self._num_classes)
        ledger.free(2 * logits + self._dropped)


def _keep_bits_only(layers: Sequence[UnitCost | SqueezeExciteCost]) -> bool:
    return all(isinstance(layer, UnitCost) and layer.keeps_bits_only for layer in layers)


def _conv_unit(conv: ConvConfig, setting: Setting, in_size: int) -> UnitCost:
    unit = Unit(
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
        activation=conv.activation,
        has_norm=conv.has_norm,
        has_bias=conv.has_norm,
        bias_learns=setting.method.trains_bias,
        in_size=in_size,
    )
    return UnitCost(unit, setting)
