"""An ONNX graph that grows node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinytl.onnx_export.files import Precision

Floats = NDArray[np.float32]

OPSET = 18
"""The first whose Resize takes sizes of the last axes alone, so that the batch can stay open."""
IR_VERSION = 8
"""What came with that opset."""

_LEVELS = 127


class GraphBuilder:
    """Nodes in the order in which they run, and the constants that they take.

    Nodes that widen weights come before all others. onnxruntime does not run them in that order:
    it goes from the output back, at each node first along the input that was written last. So the
    maps that a convolution takes are ready before its weight is widened, and the weight does not
    wait."""

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        self._widening: list[onnx.NodeProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node; returns the name of its output, which is its own."""
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Adds a constant; one that is there already by this name is taken for the same."""
        if name not in self._constants:
            array = np.ascontiguousarray(values)
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def floats(self, name: str, values: NDArray[Any]) -> str:
        return self.constant(name, values.astype(np.float32))

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def stored_weight(self, name: str, weight: NDArray[np.int8], scale: Floats) -> str:
        """A weight (out, ...) that is held as int8 with a scale per output channel (out,).

        With 8 bits it stays so, and a DequantizeLinear widens it for its one user: runtimes leave
        that in the graph, where a Cast and Mul would be folded into a float constant.
        """
        by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
        if self._precision == "float":
            return self.floats(name, weight.astype(np.float32) * by_channel)
        held = [self.constant(f"{name}.int8", weight), self.floats(f"{name}.scale", scale)]
        widening = helper.make_node("DequantizeLinear", held, [name], name=name, axis=0)
        self._widening.append(widening)
        return name

    def weight(self, name: str, weight: Floats) -> str:
        """A float weight (out, ...); with 8 bits it is rounded to them, as frozen ones are."""
        if self._precision == "float":
            return self.floats(name, weight)
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / _LEVELS
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        rounded = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
        return self.stored_weight(name, rounded.astype(np.int8), scale)

    def model(
        self, *, name: str, side: int, image: str, output: str, num_classes: int
    ) -> onnx.ModelProto:
        """Of images (N, 3, side, side), uint8, N open. Checked."""
        graph = helper.make_graph(
            [*self._widening, *self._nodes],
            name,
            [_value(image, TensorProto.UINT8, (3, side, side))],
            [_value(output, TensorProto.FLOAT, (num_classes,))],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="tinyfit",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _value(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])
