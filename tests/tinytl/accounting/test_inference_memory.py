"""The memory of classifying, predicted without onnx, against graphs and processes."""

import json
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from benchmarks.memory.inference import measured_bytes
from tests.tinytl.conftest import MOBILENETV3, PROXYLESS
from tinytl.accounting.inference_memory import graph_parts, process_bytes
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.onnx_export.network import onnx_network
from tinytl.onnx_export.predict import open_session, run

_MOST_OVER = 1.25


def graph_of(config, method, resolution, path):
    network = build_network(config, method, generator=torch.Generator().manual_seed(0))
    tensors = {name: values.numpy() for name, values in network.state_dict().items()}
    model = onnx_network(config, tensors, resolution=resolution, precision="int8")
    path.write_bytes(model.SerializeToString())
    return model.graph


@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.FULL], ids=str)
@pytest.mark.parametrize("group_norm", [False, True])
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_parts_are_those_of_the_graph(small_network, tmp_path, supernet, group_norm, method):
    config = small_network(supernet, group_norm=group_norm, lite=method.uses_lite_residual)
    graph = graph_of(config, method, 64, tmp_path / "model.int8.onnx")
    parts = graph_parts(config, 64)
    assert len(parts) == len(config.active_blocks) + 3
    assert sum(part.num_nodes for part in parts) == len(graph.node)
    num_values = Counter()
    for constant in graph.initializer:
        is_shared = constant.name.startswith(("ones.", "zeros.", "zero", "six", "images."))
        if not is_shared:
            num_values[constant.data_type] += onnx.numpy_helper.to_array(constant).size
    assert sum(part.int8_bytes for part in parts) == num_values[onnx.TensorProto.INT8]
    assert sum(part.float_bytes for part in parts) == 4 * num_values[onnx.TensorProto.FLOAT]


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_no_weight_is_widened_before_it_is_needed(
    small_network, tmp_path, monkeypatch, supernet, lite
):
    """Each that waits for its turn is there as floats all the while."""

    class Profiled(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.enable_profiling = True
            self.profile_file_prefix = str(tmp_path / "run")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Profiled)
    path = tmp_path / "model.int8.onnx"
    method = Method.LITE_RESIDUAL_BIAS if lite else Method.BIAS
    graph = graph_of(small_network(supernet, lite=lite), method, 32, path)
    user = {name: node.name for node in graph.node for name in node.input}
    session = open_session(path, num_threads=1)
    shape = session.get_inputs()[0].shape[1:]
    run(session, torch.zeros((1, *shape), dtype=torch.uint8).numpy())
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [
        event["name"].removesuffix("_kernel_time")
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    widened = [place for place, name in enumerate(ran) if name.endswith(".weight")]
    assert len(widened) == sum(node.op_type == "DequantizeLinear" for node in graph.node)
    for place in widened:
        assert ran[place + 1] == user[ran[place]]


@pytest.mark.parametrize("resolution", [49, 160])
@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("kind", [PROXYLESS, MOBILENETV3, "lite0"])
def test_no_process_takes_more(small_network, lite0, kind, lite, resolution):
    if kind == "lite0":
        config = lite0(lite=lite)
    else:
        config = small_network(kind, lite=lite, num_classes=40)
    method = Method.LITE_RESIDUAL_BIAS if lite else Method.BIAS
    measured = measured_bytes(config, method, resolution)
    if measured is None:
        pytest.skip("this system does not tell what a process takes")
    predicted = process_bytes(config, resolution)
    assert measured <= predicted <= _MOST_OVER * measured
