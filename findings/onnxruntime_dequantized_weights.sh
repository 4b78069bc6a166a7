#!/usr/bin/env bash
# onnxruntime 1.32.0 on the CPU, with int8 weights that are widened in the graph:
#
# 1. Written as DequantizeLinear they stay int8 in the session; written as Cast and Mul they are folded to
#    floats when it is made, which takes more than twice what the floats do.
# 2. When they are widened depends on the execution order, and which order is leaner on the graph. In this
#    chain the default order, which one would think goes node by node, widens all 24 before the first is
#    used, although each DequantizeLinear stands right before its user; PRIORITY_BASED each in its turn. In
#    a chain of convolutions of an image network it can be the other way round. So it is to be measured.
# 3. enable_mem_pattern, which is on by default, makes the second run hold all that the first did in one more
#    block beside it: memory is to be measured over two runs, or the pattern to be off.
#
# A chain of 24 matrices of 1024 x 1024, each int8 with a scale per row, in a fresh process each time.
# Growth of the peak resident memory in matrices as floats (4.2 MB), after making the session and after
# each of three runs:
#   DequantizeLinear, no pattern        10.0 31.5 31.5 31.5
#   the same with a pattern             10.0 31.5 56.5 56.5
#   the same, no pattern, by priority   10.0 10.0 10.0 10.0
#   Cast and Mul, no pattern            65.0 65.1 65.1 65.1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIDE, COUNT = 1024, 24
kind, order, pattern = sys.argv[1:]
rng = np.random.default_rng(0)
nodes, constants, last = [], [], "x"
for number in range(COUNT):
    weight = rng.integers(-127, 128, (SIDE, SIDE), dtype=np.int8)
    scale = np.full(SIDE, 1e-3, np.float32)
    if kind == "cast":
        scale = scale.reshape(-1, 1)
    constants += [numpy_helper.from_array(weight, f"w{number}"), numpy_helper.from_array(scale, f"s{number}")]
    if kind == "cast":
        nodes.append(helper.make_node("Cast", [f"w{number}"], [f"c{number}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"c{number}", f"s{number}"], [f"f{number}"]))
    else:
        nodes.append(helper.make_node("DequantizeLinear", [f"w{number}", f"s{number}"], [f"f{number}"], axis=0))
    nodes.append(helper.make_node("MatMul", [last, f"f{number}"], [f"m{number}"]))
    nodes.append(helper.make_node("Relu", [f"m{number}"], [f"y{number}"]))
    last = f"y{number}"
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIDE])
graph = helper.make_graph(nodes, "chain", [value("x")], [value(last)], constants)
content = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
del graph, nodes, constants


def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.enable_mem_pattern = pattern == "pattern"
if order == "priority":
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
peaks = [status("VmHWM") - before]
for _ in range(3):
    session.run(None, {"x": np.ones((1, SIDE), np.float32)})
    peaks.append(status("VmHWM") - before)
print(*(round(peak / (4 * SIDE * SIDE), 1) for peak in peaks))
PYTHON
measure() { "$folder/venv/bin/python" "$folder/measure.py" "$@"; }
lean=$(measure dequantize default none)
patterned=$(measure dequantize default pattern)
priority=$(measure dequantize priority none)
folded=$(measure cast default none)
printf 'peaks in matrices, after making the session and each of three runs\n'
printf 'dequantized %s\nwith a pattern %s\npriority-based %s\ncast and mul %s\n' \
  "$lean" "$patterned" "$priority" "$folded"
"$folder/venv/bin/python" - "$lean" "$patterned" "$priority" "$folded" <<'PYTHON'
import sys

lean, patterned, priority, folded = ([float(n) for n in line.split()] for line in sys.argv[1:])
assert folded[0] > 48 > 24 > lean[0], (folded, lean)
assert lean[1] > lean[0] + 16 and priority[1] < priority[0] + 8, (lean, priority)
assert lean[2] < lean[1] + 1, lean
assert patterned[2] > patterned[1] + 16, patterned
PYTHON
