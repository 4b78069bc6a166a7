"""The lite residual module as operations; see tinytl.engine.lite_residual, whose way this is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinytl.native.operations import IS_BFLOAT16
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Map
from tinytl.native.unroll.units import GROUP_CHANNELS, Values, gathered_rows

if TYPE_CHECKING:
    from torch import nn

    from tinytl.engine.lite_residual import LiteResidual


class LiteResidualLink:
    """Beside a block: from its pooled input to what its output gets added."""

    def __init__(self, module: LiteResidual, name: str, values: Values) -> None:
        self._module = module
        self._name = name
        self._values = values
        self._config = module.config

    def pooled_size(self, size: int) -> int:
        return size // self._cell(size)

    def _cell(self, size: int) -> int:
        ratio = self._config.downsample_ratio
        return size if ratio is None else min(ratio, size)

    def pool(self, segment: Segment, x: Map, *, waits: bool = False) -> Map:
        size = self.pooled_size(x.size)
        buffer = segment.kept(4 * x.channels * size**2, waits=waits)
        pooled = Map(buffer=buffer, channels=x.channels, size=size, spare=False)
        segment.emit("AVERAGE_POOL", x=x.buffer, y=pooled.buffer, **self._pool_sizes(x))
        return pooled

    def add_pool_gradient(self, segment: Segment, grad: Map, grad_x: Map) -> None:
        segment.emit(
            "AVERAGE_POOL_BACKWARD",
            grad=grad.buffer,
            grad_x=grad_x.buffer,
            **self._pool_sizes(grad_x),
        )

    def _pool_sizes(self, x: Map) -> dict[str, Any]:
        return {
            "kernel": self._cell(x.size),
            "in_size": x.size,
            "out_size": self.pooled_size(x.size),
            "in_channels": x.channels,
            "out_channels": x.channels,
        }

    def forward(self, segment: Segment, pooled: Map, y: Map) -> None:
        """Added to y."""
        narrow = self._convolve(segment, self._module.conv1, "conv1", pooled)
        self._norm(segment, self._module.bn1, "bn1", narrow, narrow, clamps=True)
        end = self._convolve(segment, self._module.conv2, "conv2", narrow)
        self._norm(segment, self._module.final_bn, "final_bn", end, end)
        segment.emit("UPSAMPLE_ADD", x=end.buffer, y=y.buffer, **_upsample_sizes(end, y))

    def backward(
        self, segment: Segment, grad: Map, pooled: Map, *, needs_input: bool
    ) -> Map | None:
        """grad: of the block's output, left as it is. The gradient of pooled."""
        module = self._module
        narrow = self._convolve(segment, module.conv1, "conv1", pooled)
        rectified = segment.new_map(narrow.channels, narrow.size)
        narrow_statistics = self._norm(segment, module.bn1, "bn1", narrow, rectified, clamps=True)
        end = self._convolve(segment, module.conv2, "conv2", rectified)
        end_statistics = self._norm(segment, module.final_bn, "final_bn", end, None)
        grad_end = segment.new_map(end.channels, end.size)
        segment.emit(
            "UPSAMPLE_BACKWARD",
            grad=grad.buffer,
            grad_x=grad_end.buffer,
            **_upsample_sizes(end, grad),
        )
        self._norm_backward(segment, module.final_bn, "final_bn", end, end_statistics, grad_end)
        grad_narrow = self._input_gradient(segment, module.conv2, "conv2", grad_end, rectified)
        self._weight_gradient(segment, module.conv2, "conv2", grad_end, rectified)
        self._norm_backward(
            segment, module.bn1, "bn1", narrow, narrow_statistics, grad_narrow, clamps=True
        )
        grad_pooled = None
        if needs_input:
            grad_pooled = self._input_gradient(segment, module.conv1, "conv1", grad_narrow, pooled)
        self._weight_gradient(segment, module.conv1, "conv1", grad_narrow, pooled)
        return grad_pooled

    def _sizes(self, conv: nn.Conv2d, name: str, x: Map) -> dict[str, Any]:
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        size = (x.size + 2 * (kernel // 2) - kernel) // stride + 1
        taps = x.channels // conv.groups * kernel**2
        parameter = self._values.trained(f"{self._name}.{name}.weight")
        is_bfloat16 = parameter is not None and parameter.is_bfloat16
        return {
            "kernel": kernel,
            "stride": stride,
            "pad_top": kernel // 2,
            "pad_left": kernel // 2,
            "in_size": x.size,
            "out_size": size,
            "in_channels": x.channels,
            "out_channels": conv.out_channels,
            "groups": conv.groups,
            "count": gathered_rows(8 * size**2, taps),
            "flags": IS_BFLOAT16 if is_bfloat16 else 0,
        }

    def _weights(self, conv: nn.Conv2d, name: str) -> Buffer:
        return self._values.buffer(f"{self._name}.{name}.weight", conv.weight)

    def _convolve(self, segment: Segment, conv: nn.Conv2d, name: str, x: Map) -> Map:
        sizes = self._sizes(conv, name, x)
        y = segment.new_map(sizes["out_channels"], sizes["out_size"])
        segment.emit(
            "CONVOLVE", x=x.buffer, weights=self._weights(conv, name), y=y.buffer, **sizes
        )
        return y

    def _input_gradient(
        self, segment: Segment, conv: nn.Conv2d, name: str, grad: Map, x: Map
    ) -> Map:
        grad_x = segment.new_map(x.channels, x.size)
        segment.emit(
            "CONVOLUTION_INPUT_GRADIENT",
            grad=grad.buffer,
            weights=self._weights(conv, name),
            grad_x=grad_x.buffer,
            **self._sizes(conv, name, x),
        )
        return grad_x

    def _weight_gradient(
        self, segment: Segment, conv: nn.Conv2d, name: str, grad: Map, x: Map
    ) -> None:
        parameter = self._values.trained(f"{self._name}.{name}.weight")
        if parameter is None:
            return
        segment.emit(
            "CONVOLUTION_WEIGHT_GRADIENT",
            grad=grad.buffer,
            x=x.buffer,
            grad_weights=segment.gradient(parameter),
            **self._sizes(conv, name, x),
        )
        segment.finish(parameter)

    def _norm_fields(self, norm: nn.GroupNorm, name: str, x: Map, clamps: bool) -> dict[str, Any]:
        return {
            "gain": self._values.buffer(f"{self._name}.{name}.weight", norm.weight),
            "bias": self._values.buffer(f"{self._name}.{name}.bias", norm.bias),
            "value": norm.eps,
            "groups": x.channels // GROUP_CHANNELS,
            "clamp": "RELU" if clamps else "NO_CLAMP",
            "in_size": x.size,
            "in_channels": x.channels,
        }

    def _norm(
        self,
        segment: Segment,
        norm: nn.GroupNorm,
        name: str,
        x: Map,
        y: Map | None,
        *,
        clamps: bool = False,
    ) -> Buffer:
        statistics = segment.temporary(8 * (x.channels // GROUP_CHANNELS))
        segment.emit(
            "GROUP_NORM",
            x=x.buffer,
            y=None if y is None else y.buffer,
            statistics=statistics,
            **self._norm_fields(norm, name, x, clamps),
        )
        return statistics

    def _norm_backward(
        self,
        segment: Segment,
        norm: nn.GroupNorm,
        name: str,
        x: Map,
        statistics: Buffer,
        grad: Map,
        *,
        clamps: bool = False,
    ) -> None:
        """grad becomes that of x."""
        trained = [
            self._values.trained(f"{self._name}.{name}.{kind}") for kind in ("weight", "bias")
        ]
        gain, bias = (None if one is None else segment.gradient(one) for one in trained)
        segment.emit(
            "GROUP_NORM_BACKWARD",
            x=x.buffer,
            statistics=statistics,
            grad=grad.buffer,
            grad_gain=gain,
            grad_bias=bias,
            **self._norm_fields(norm, name, x, clamps),
        )
        for parameter in trained:
            if parameter is not None:
                segment.finish(parameter)


def _upsample_sizes(small: Map, large: Map) -> dict[str, Any]:
    return {
        "in_size": small.size,
        "out_size": large.size,
        "in_channels": small.channels,
        "out_channels": small.channels,
    }
