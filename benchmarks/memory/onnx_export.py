"""What exported networks take, and how far they are from the networks: float and int8.

    python -m benchmarks.memory.onnx_export [--json]

Networks of random weights, whose memory is that of trained ones: the largest subnets of some
supernets, with lite residual modules and trained biases. Memory is a fresh process's, over loading
the model and classifying an image twice in one thread: of the whole process, and beyond Python and
libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np
import torch

from benchmarks.shared.machine import describe_machine
from search.space.architecture import SupernetSpec
from tinytl.description.config import with_lite_residuals
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.onnx_export.export import Images, Probabilities, check_models, write_models
from tinytl.onnx_export.source import ExportSource
from tinytl.units import format_bytes

_NETWORKS = (
    ("ofa_proxyless_d234_e346_k357_w0.35", 48),
    ("ofa_proxyless_d234_e346_k357_w0.35", 96),
    ("ofa_proxyless_d234_e346_k357_w0.75", 96),
    ("ofa_proxyless_d234_e346_k357_w1.3", 224),
    ("ofa_mbv3_d234_e346_k357_w1.0", 224),
)
_NUM_CLASSES = 10
_NUM_IMAGES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    print("| supernet | input | model | file | process | beyond Python | largest difference |")
    print("|---" * 7 + "|")
    rows = []
    for supernet, resolution in _NETWORKS:
        for row in _measure(supernet, resolution):
            rows.append(row)
            print(_line(row), flush=True)
    if options.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _measure(supernet: str, resolution: int) -> list[dict[str, Any]]:
    spec = SupernetSpec.parse(supernet)
    config = with_lite_residuals(spec.network_config(spec.largest, _NUM_CLASSES))
    generator = torch.Generator().manual_seed(0)
    network = build_network(config, Method.LITE_RESIDUAL_BIAS, generator=generator)
    with torch.no_grad():  # a fresh module adds nothing
        for name, values in network.named_parameters():
            if name.endswith("final_bn.weight"):
                values.fill_(0.1)
    source = ExportSource(
        network=config,
        tensors={name: values.numpy() for name, values in network.state_dict().items()},
        classes=tuple(map(str, range(_NUM_CLASSES))),
        preprocessing={"resolution": resolution, "image_size": resolution},
    )

    def expected() -> Iterable[tuple[Images, Probabilities]]:
        shape = (_NUM_IMAGES, 3, resolution, resolution)
        images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        yield images, network(torch.from_numpy(images)).softmax(1).numpy()

    with tempfile.TemporaryDirectory() as folder:
        write_models(source, Path(folder))
        checks = check_models(Path(folder), expected)
    named = {"supernet": supernet, "resolution": resolution}
    return [named | {"model": kind, **asdict(check)} for kind, check in checks.items()]


def _line(row: Mapping[str, Any]) -> str:
    footprint = row["footprint"] or {"process_bytes": 0, "growth_bytes": 0}
    return (
        f"| {row['supernet'].removeprefix('ofa_')} | {row['resolution']} px | {row['model']} | "
        f"{format_bytes(row['bytes'])} | {format_bytes(footprint['process_bytes'])} | "
        f"{format_bytes(footprint['growth_bytes'])} | {row['largest_difference']:.1g} |"
    )


if __name__ == "__main__":
    main()
