"""The memory of classifying with the int8 export, predicted and measured.

    python -m benchmarks.memory.inference [--networks N] [--seed S] [--fit] [--json]

Networks of random weights, whose memory is that of trained ones: the largest, the smallest and
random subnets of several supernets, at random resolutions, with lite residual modules of a random
size or none. Memory is a fresh process's over loading the model and classifying an image twice in
one thread, Python and libraries included (tinytl.onnx_export.footprint). --fit prints the weights
of tinytl.accounting.inference_memory anew: of those that are above no measured process, the ones
that are least above them in all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np
import torch
from scipy.optimize import linprog

from benchmarks.shared.machine import describe_machine
from search.space.candidates import SearchSpace
from search.space.lite_residual_sizes import NONE_OR_ANY, method_of
from search.space.pricing import network_of
from search.supernets.registry import DEFAULT_SUPERNET, parse_supernet
from tinytl.accounting.inference_memory import Weights, graph_parts, process_bytes
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.onnx_export.footprint import measure_footprint
from tinytl.onnx_export.network import onnx_network
from tinytl.units import format_bytes

_SUPERNETS = (
    DEFAULT_SUPERNET,
    "ofa_proxyless_d234_e346_k357_w0.75_tinyimagenet",
    "ofa_proxyless_d234_e346_k357_w1.3",
    "efficientnet_lite0",
    "efficientnet_lite2",
    "ofa_mbv3_d234_e346_k357_w1.0",
)
_RESOLUTIONS = (48, 64, 65, 80, 96, 97, 112, 128, 129, 160, 161, 193, 224, 225)
_NUM_CLASSES = (2, 10, 100)
_MODEL = "model.int8.onnx"


@dataclass(frozen=True, kw_only=True)
class Row:
    supernet: str
    resolution: int
    predicted_bytes: int
    measured_bytes: int
    amounts: list[float]
    """What the weights weigh, in their order."""


def main() -> None:
    arguments = _parse_arguments()
    rows = []
    for supernet in _SUPERNETS:
        found = list(_rows(supernet, arguments.networks, arguments.seed))
        rows += found
        print(_line(supernet, found), flush=True)
    if arguments.fit:
        print(fitted(rows))
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": [asdict(row) for row in rows]}))


def _rows(supernet: str, count: int, seed: int) -> Iterator[Row]:
    rng = random.Random(seed)
    spec = parse_supernet(supernet)
    space = SearchSpace(
        supernet=spec, resolutions=_RESOLUTIONS, lite_residual_sizes=NONE_OR_ANY, batch_size=8
    )
    for number in range(count):
        drawn = space.sample(rng)
        subnet = (spec.largest, spec.smallest, drawn.subnet)[min(number, 2)]
        method = method_of(Method.LITE_RESIDUAL_BIAS, drawn.lite_residual)
        candidate = space.candidate(subnet, drawn.resolution, drawn.lite_residual)
        network = network_of(spec, candidate, method, rng.choice(_NUM_CLASSES))
        measured = measured_bytes(network, method, drawn.resolution)
        if measured is None:
            raise SystemExit("this system does not tell what a process takes")
        yield Row(
            supernet=supernet,
            resolution=drawn.resolution,
            predicted_bytes=process_bytes(network, drawn.resolution),
            measured_bytes=measured,
            amounts=_amounts(network, drawn.resolution),
        )


def measured_bytes(network: NetworkConfig, method: Method, resolution: int) -> int | None:
    """Of a fresh process that classifies with the network's int8 export, at its peak; None where
    the system does not tell."""
    built = build_network(network, method, generator=torch.Generator().manual_seed(0))
    tensors = {name: values.numpy() for name, values in built.state_dict().items()}
    model = onnx_network(network, tensors, resolution=resolution, precision="int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL
        path.write_bytes(model.SerializeToString(deterministic=True))
        found = measure_footprint(path)
    return None if found is None else found.process_bytes


def _amounts(network: NetworkConfig, resolution: int) -> list[float]:
    parts = graph_parts(network, resolution)
    return [
        1,
        sum(part.num_nodes for part in parts),
        sum(part.num_squeeze_excites for part in parts),
        sum(part.int8_bytes for part in parts),
        sum(part.float_bytes for part in parts),
        max(part.live_bytes for part in parts),
    ]


def fitted(rows: Sequence[Row]) -> Weights:
    """A linear program: least in sum, with no measured process above it."""
    amounts = np.array([row.amounts for row in rows], float)
    measured = np.array([row.measured_bytes for row in rows], float)
    scales = amounts.max(axis=0).clip(min=1)
    scaled = amounts / scales
    found = linprog(scaled.sum(axis=0), A_ub=-scaled, b_ub=-measured, bounds=(0, None))
    fixed, *others = (found.x / scales).tolist()
    names = ("node", "squeeze_excite", "int8", "floats", "live")
    return Weights(fixed=round(fixed), **dict(zip(names, others, strict=True)))


def _line(supernet: str, rows: Sequence[Row]) -> str:
    over = [row.predicted_bytes / row.measured_bytes - 1 for row in rows]
    measured = [row.measured_bytes for row in rows]
    return (
        f"| {supernet.removeprefix('ofa_').removesuffix('_tinyimagenet')} | {len(rows)} | "
        f"{format_bytes(min(measured))} to {format_bytes(max(measured))} | "
        f"{min(over):+.1%} to {max(over):+.1%} | {mean(over):+.1%} |"
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=20, help="of each supernet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true", help="print the weights that fit these")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
