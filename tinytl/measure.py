"""Measures what training a network under a plan takes, by training it.

`python -m tinytl.measure` reads a request as JSON from standard input and prints one JSON line:
a fresh process, so that resident memory starts clean.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinytl.config import NetworkConfig
from tinytl.data import ImageSplit, ImageStore, Split
from tinytl.errors import TinyTLError
from tinytl.layers import WeightBits
from tinytl.memory import peak_memory
from tinytl.network import build_network
from tinytl.ofa_format import from_ofa, to_ofa
from tinytl.plan import Plan
from tinytl.tracker import measure_peaks, resident_memory
from tinytl.train import TrainSettings, train
from tinytl.trainable import Method

_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Predicted and measured memory of a training, and its pace.

    measured_peak_bytes: allocator peak over a whole run of train(): steps, validation and
    checkpoint; storage_peak_bytes: of the same, temporaries inside operators excepted.
    rss_growth_bytes: of the process's resident memory, through a run; process_peak_bytes: its
    peak, torch's libraries included. step_seconds: mean time of one update of a whole batch,
    from its images on, in a warm process. breakdown_bytes: the prediction's parts.
    """

    predicted_peak_bytes: int
    measured_peak_bytes: int
    storage_peak_bytes: int
    rss_growth_bytes: int | None
    process_peak_bytes: int | None
    step_seconds: float
    breakdown_bytes: dict[str, int]


def measure_training(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int | None = None,
    weight_bits: WeightBits = 8,
) -> Measurement:
    """Train a randomly initialised network on random images and measure what that takes.

    Memory and time do not depend on the values of weights and pixels. image_size: side of the
    stored images, None for the resolution; weight_bits: what frozen weights are stored in.
    """
    image_size = image_size or resolution
    predicted = peak_memory(
        network, method, plan, resolution, image_size=image_size, frozen_bits=weight_bits
    )
    generator = torch.Generator().manual_seed(0)
    model = build_network(network, method, weight_bits=weight_bits, generator=generator)
    step_ends: list[float] = []

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        store = random_store(network.num_classes, image_size, _STEPS, plan, directory)

        def run() -> None:
            train(
                model,
                store,
                resolution=resolution,
                plan=plan,
                settings=TrainSettings(epochs=1),
                checkpoint=directory / f"training-{len(step_ends)}.safetensors",
                on_step=lambda done, total: step_ends.append(time.perf_counter()),
            )

        # resident memory first: the other instruments take memory of their own
        resident = resident_memory(run)
        run()
        warm = step_ends[_STEPS:]
        peaks = measure_peaks(run)
        return Measurement(
            predicted_peak_bytes=predicted.total_bytes,
            measured_peak_bytes=peaks.allocator_bytes,
            storage_peak_bytes=peaks.storage_bytes,
            rss_growth_bytes=None if resident is None else resident.growth_bytes,
            process_peak_bytes=None if resident is None else resident.process_peak_bytes,
            step_seconds=(warm[-1] - warm[0]) / (_STEPS - 1),
            breakdown_bytes=predicted.breakdown,
        )


def random_store(
    num_classes: int, image_size: int, steps: int, plan: Plan, directory: Path
) -> ImageStore:
    """Random images, kept in directory, for so many training steps and one evaluation step."""
    rng = np.random.default_rng(0)
    num_train = steps * plan.batch_size
    num_images = num_train + plan.evaluation_batch_size
    images = np.lib.format.open_memmap(
        directory / "images.npy", "w+", np.uint8, (num_images, 3, image_size, image_size)
    )
    for index in range(num_images):
        images[index] = rng.integers(256, size=images.shape[1:], dtype=np.uint8)
    labels = np.arange(num_images) % num_classes
    splits: dict[Split, ImageSplit] = {
        "train": ImageSplit(images[:num_train], labels[:num_train]),
        "val": ImageSplit(images[num_train:], labels[num_train:]),
    }
    return ImageStore(splits, [str(label) for label in range(num_classes)], image_size)


def measure_in_fresh_process(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int | None = None,
    weight_bits: WeightBits = 8,
) -> Measurement:
    """measure_training in a process of its own. Raises TinyTLError where that fails."""
    request = {
        "network": to_ofa(network),
        "method": method.value,
        "plan": asdict(plan),
        "resolution": resolution,
        "image_size": image_size,
        "weight_bits": weight_bits,
    }
    return Measurement(**ask_fresh_process("tinytl.measure", request))


def ask_fresh_process(
    module: str, request: dict[str, Any], *, directory: Path | None = None
) -> dict[str, Any]:
    """What `python -m module`, given the request as JSON, answers as its last line of JSON.

    directory: where it runs, None for the present one. Raises TinyTLError where it fails.
    """
    process = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        reason = process.stderr.strip().splitlines()[-1:] or ["it said nothing, as when killed"]
        raise TinyTLError(
            f"the measuring process ended with code {process.returncode}: {reason[0]}"
        )
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    measurement = measure_training(
        from_ofa(request["network"]),
        Method(request["method"]),
        Plan.from_dict(request["plan"]),
        request["resolution"],
        image_size=request["image_size"],
        weight_bits=request["weight_bits"],
    )
    sys.stdout.write(json.dumps(asdict(measurement)) + "\n")


if __name__ == "__main__":
    main()
