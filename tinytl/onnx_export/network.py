"""A network's graph: what tinytl/engine computes (network.py, blocks.py, layers.py), forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytl.description.config import (
    GROUP_NORM_CHANNELS,
    Activation,
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    Normalization,
    NormConfig,
    Padding,
    conv_pads,
    conv_size,
    largest_divisor,
)
from tinytl.onnx_export.files import Precision
from tinytl.onnx_export.graph import Floats, GraphBuilder

Tensors = Mapping[str, NDArray[Any]]
"""A network's state dict, under the names of tinytl.engine.network.Network."""

INPUT, OUTPUT = "images", "probabilities"
_LITE_RESIDUAL_EPS = 1e-5


def onnx_network(
    network: NetworkConfig, tensors: Tensors, *, resolution: int, precision: Precision
) -> onnx.ModelProto:
    """`probabilities` (N, classes), float, of `images` (N, 3, resolution, resolution), uint8 RGB.

    Norms of fixed statistics are folded, and images normalized inside. With precision "int8" the
    main branch's weights are stored in 8 bits and computed with in float: frozen ones are those of
    the network, to the bit; trained ones are rounded. Classifier and lite residual modules, which
    are trained, stay in float, so that where the main branch is frozen nothing is lost.
    """
    writer = _NetworkWriter(GraphBuilder(precision), tensors, network)
    name, side = writer.normalized_images(network.normalization), resolution
    name, side = writer.conv(name, side, "first_conv", network.first_conv)
    for index, block in enumerate(network.blocks):
        if block is not None:
            name, side = writer.block(name, side, f"blocks.{index}", block)
    tail = [("feature_mix", network.feature_mix)]
    if network.final_expand is not None:
        tail.insert(0, ("final_expand", network.final_expand))
    first, *after_pool = tail
    name, side = writer.conv(name, side, *first)
    name = writer.graph.node("GlobalAveragePool", "pool", [name])
    for prefix, conv in after_pool:
        name, _ = writer.conv(name, 1, prefix, conv)
    writer.classifier(name)
    return writer.graph.model(
        name="tinyfit",
        side=resolution,
        image=INPUT,
        output=OUTPUT,
        num_classes=network.num_classes,
    )


class _NetworkWriter:
    def __init__(self, graph: GraphBuilder, tensors: Tensors, network: NetworkConfig) -> None:
        self.graph = graph
        self._tensors = tensors
        self._norm = network.norm
        self._padding = network.padding

    def _floats(self, name: str) -> Floats:
        return self._tensors[name].astype(np.float32)

    def normalized_images(self, its: Normalization) -> str:
        graph = self.graph
        mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (its.mean, its.std))
        name = graph.node("Cast", "images.float", [INPUT], to=onnx.TensorProto.FLOAT)
        scale = graph.floats("images.scale", 1 / (255 * std))
        name = graph.node("Mul", "images.scaled", [name, scale])
        return graph.node("Add", "normalized", [name, graph.floats("images.shift", -mean / std)])

    def classifier(self, name: str) -> None:
        graph = self.graph
        name = graph.node("Flatten", "features", [name])
        weight = graph.floats("classifier.weight", self._floats("classifier.weight"))
        bias = graph.floats("classifier.bias", self._floats("classifier.bias"))
        name = graph.node("Gemm", "logits", [name, weight, bias], transB=1)
        graph.node("Softmax", OUTPUT, [name], axis=1)

    def conv(self, name: str, side: int, prefix: str, conv: ConvConfig) -> tuple[str, int]:
        return self._unit(
            name,
            side,
            prefix,
            kernel_size=conv.kernel_size,
            stride=conv.stride,
            activation=conv.activation,
            norm=self._norm if conv.has_norm else None,
        )

    def block(self, name: str, side: int, prefix: str, block: BlockConfig) -> tuple[str, int]:
        given, given_side = name, side
        norm, activation = self._norm, block.activation
        if block.has_expansion:
            name, side = self._unit(
                name, side, f"{prefix}.expand", activation=activation, norm=norm
            )
        name, side = self._unit(
            name,
            side,
            f"{prefix}.depthwise",
            kernel_size=block.kernel_size,
            stride=block.stride,
            groups=block.mid_channels,
            activation=activation,
            norm=norm,
        )
        if block.squeeze_excite:
            name = self._squeeze_excite(name, f"{prefix}.squeeze_excite")
        name, side = self._unit(name, side, f"{prefix}.project", norm=norm)
        if block.lite_residual is not None:
            module = self._lite_residual(
                given, given_side, side, f"{prefix}.lite_residual", block.lite_residual
            )
            name = self.graph.node("Add", f"{prefix}.with_lite_residual", [name, module])
        if block.shortcut:
            name = self.graph.node("Add", f"{prefix}.with_shortcut", [name, given])
        return name, side

    def _unit(
        self,
        name: str,
        side: int,
        prefix: str,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        norm: NormConfig | None = None,
    ) -> tuple[str, int]:
        """A tinytl.engine.layers.ConvUnit."""
        gain, factor, bias = None, None, self._tensors.get(f"{prefix}.bias")
        if f"{prefix}.gain" in self._tensors:
            gain = self._floats(f"{prefix}.gain")
            if norm is not None and norm.kind == "batch":  # its statistics are fixed: folded
                factor, gain = gain * self._floats(f"{prefix}.inv_std"), None
                assert bias is not None
                bias = bias - self._floats(f"{prefix}.mean") * factor
        weight = self._unit_weight(prefix, norm, factor)
        name = self._convolution(
            name,
            side,
            f"{prefix}.conv",
            weight,
            None if gain is not None else bias,
            kernel_size=kernel_size,
            stride=stride,
            groups=groups,
            padding=self._padding,
        )
        side = conv_size(side, kernel_size, stride)
        if gain is not None:
            assert norm is not None
            assert bias is not None
            name = self._group_norm(
                name, f"{prefix}.norm", gain, bias, norm.channels_per_group, norm.eps, side
            )
        return self._activate(name, prefix, activation), side

    def _unit_weight(self, prefix: str, norm: NormConfig | None, factor: Floats | None) -> str:
        """factor: per output channel, on top."""
        held = self._tensors.get(f"{prefix}.frozen.weight")
        if held is not None and held.dtype == np.int8:
            scale = self._floats(f"{prefix}.frozen.scale").reshape(-1)
            scale = scale if factor is None else scale * factor
            return self.graph.stored_weight(f"{prefix}.weight", held, scale)
        if held is not None:
            weight = held.astype(np.float32)
        else:
            weight = self._floats(f"{prefix}.weight")
            if norm is not None and norm.weight_standardization_eps is not None:
                weight = _standardize(weight, norm.weight_standardization_eps)
        if factor is not None:
            weight = weight * factor.reshape(-1, 1, 1, 1)
        return self.graph.weight(f"{prefix}.weight", weight)

    def _convolution(
        self,
        name: str,
        side: int,
        output: str,
        weight: str,
        bias: NDArray[Any] | None,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        padding: Padding = "symmetric",
    ) -> str:
        inputs = [name, weight]
        if bias is not None:
            inputs.append(self.graph.floats(f"{output}.bias", bias))
        before, after = conv_pads(padding, kernel_size, stride, side)
        return self.graph.node(
            "Conv",
            output,
            inputs,
            kernel_shape=[kernel_size] * 2,
            strides=[stride] * 2,
            pads=[before, before, after, after],
            group=groups,
        )

    def _group_norm(
        self,
        name: str,
        prefix: str,
        gain: Floats,
        bias: NDArray[Any],
        channels_per_group: int,
        eps: float,
        side: int,
    ) -> str:
        """As the instance norm of each group's values in a row: runtimes have a kernel for it."""
        graph, channels = self.graph, len(gain)
        num_groups = channels // largest_divisor(channels, channels_per_group)
        rows = graph.integers(f"groups.{num_groups}", 0, num_groups, -1)
        ones = graph.floats(f"ones.{num_groups}", np.ones(num_groups))
        zeros = graph.floats(f"zeros.{num_groups}", np.zeros(num_groups))
        maps = graph.integers(f"maps.{channels}.{side}", 0, channels, side, side)
        name = graph.node("Reshape", f"{prefix}.rows", [name, rows])
        name = graph.node(
            "InstanceNormalization", f"{prefix}.even", [name, ones, zeros], epsilon=eps
        )
        name = graph.node("Reshape", f"{prefix}.maps", [name, maps])
        gain_name = graph.floats(f"{prefix}.gain", gain.reshape(-1, 1, 1))
        name = graph.node("Mul", f"{prefix}.scaled", [name, gain_name])
        bias_name = graph.floats(f"{prefix}.bias", bias.reshape(-1, 1, 1))
        return graph.node("Add", prefix, [name, bias_name])

    def _activate(self, name: str, prefix: str, activation: Activation | None) -> str:
        graph, output = self.graph, f"{prefix}.{activation}"
        if activation == "relu":
            return graph.node("Relu", output, [name])
        if activation == "relu6":
            bounds = [graph.floats("zero", np.array(0.0)), graph.floats("six", np.array(6.0))]
            return graph.node("Clip", output, [name, *bounds])
        if activation == "h_swish":
            return graph.node("HardSwish", output, [name])
        return name

    def _squeeze_excite(self, name: str, prefix: str) -> str:
        graph = self.graph
        gate = graph.node("GlobalAveragePool", f"{prefix}.pool", [name])
        gate, _ = self._unit(gate, 1, f"{prefix}.reduce", activation="relu")
        gate, _ = self._unit(gate, 1, f"{prefix}.expand")
        gate = graph.node("HardSigmoid", f"{prefix}.gate", [gate], alpha=1 / 6, beta=0.5)
        return graph.node("Mul", prefix, [name, gate])

    def _lite_residual(
        self, name: str, side: int, out_side: int, prefix: str, module: LiteResidualConfig
    ) -> str:
        """A tinytl.engine.lite_residual.LiteResidual."""
        graph = self.graph
        pool = side if module.downsample_ratio is None else min(module.downsample_ratio, side)
        name = graph.node(
            "AveragePool", f"{prefix}.pool", [name], kernel_shape=[pool] * 2, strides=[pool] * 2
        )
        side //= pool
        for conv, norm, kernel_size, stride, groups in (
            ("conv1", "bn1", module.kernel_size, module.stride, module.groups),
            ("conv2", "final_bn", 1, 1, 1),
        ):
            weight_name = f"{prefix}.{conv}.weight"
            name = self._convolution(
                name,
                side,
                f"{prefix}.{conv}",
                graph.floats(weight_name, self._floats(weight_name)),
                None,
                kernel_size=kernel_size,
                stride=stride,
                groups=groups,
            )
            side = conv_size(side, kernel_size, stride)
            name = self._group_norm(
                name,
                f"{prefix}.{norm}",
                self._floats(f"{prefix}.{norm}.weight"),
                self._floats(f"{prefix}.{norm}.bias"),
                GROUP_NORM_CHANNELS,
                _LITE_RESIDUAL_EPS,
                side,
            )
            if conv == "conv1":
                name = graph.node("Relu", f"{prefix}.relu", [name])
        if side == out_side:
            return name
        sizes = graph.integers(f"side.{out_side}", out_side, out_side)
        return graph.node(
            "Resize",
            f"{prefix}.upsampled",
            [name, "", "", sizes],
            axes=[2, 3],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )


def _standardize(weight: Floats, eps: float) -> Floats:
    """tinytl.engine.layers.standardize."""
    centered = weight - weight.mean((1, 2, 3), keepdims=True)
    deviation = centered.reshape(len(weight), -1).std(1, ddof=1).reshape(-1, 1, 1, 1)
    standardized: Floats = centered / (deviation + np.float32(eps))
    return standardized
