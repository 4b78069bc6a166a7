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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinytl.config import NetworkConfig
from tinytl.data import ImageSplit, ImageStore, Split
from tinytl.errors import TinyTLError
from tinytl.memory import peak_memory
from tinytl.network import build_network
from tinytl.ofa_format import from_ofa, to_ofa
from tinytl.plan import Plan
from tinytl.tracker import allocator_peak_bytes, rss_growth_bytes
from tinytl.train import EpochReport, TrainSettings, train
from tinytl.trainable import Method

_TRACKED_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Predicted and measured memory of a training, and its pace.

    measured_peak_bytes: allocator peak over a whole run of train(): steps, validation and
    checkpoint. step_seconds: mean time of one update of a whole batch, images included.
    """

    predicted_peak_bytes: int
    measured_peak_bytes: int
    rss_growth_bytes: int | None
    step_seconds: float
    breakdown_bytes: dict[str, int]


def measure_training(
    network: NetworkConfig, method: Method, plan: Plan, resolution: int, *, timed_steps: int = 3
) -> Measurement:
    """Train a randomly initialised network on random images and measure what that takes.

    Memory and time do not depend on the values of weights and pixels.
    """
    predicted = peak_memory(network, method, plan, resolution)
    model = build_network(network, method, generator=torch.Generator().manual_seed(0))
    settings = TrainSettings(epochs=1)

    def run(steps: int) -> tuple[EpochReport, ...]:
        store = random_store(network.num_classes, resolution, steps, plan)
        with tempfile.TemporaryDirectory() as directory:
            return train(
                model,
                store,
                resolution=resolution,
                plan=plan,
                settings=settings,
                checkpoint=Path(directory) / "training.safetensors",
            )

    # resident memory first: the allocator's profiler takes memory of its own
    rss_growth = rss_growth_bytes(lambda: run(_TRACKED_STEPS))
    step_seconds = run(timed_steps)[0].seconds / timed_steps
    return Measurement(
        predicted_peak_bytes=predicted.total_bytes,
        measured_peak_bytes=allocator_peak_bytes(lambda: run(_TRACKED_STEPS)),
        rss_growth_bytes=rss_growth,
        step_seconds=step_seconds,
        breakdown_bytes=predicted.breakdown,
    )


def random_store(num_classes: int, resolution: int, steps: int, plan: Plan) -> ImageStore:
    """Random images for so many training steps and one evaluation step."""
    rng = np.random.default_rng(0)
    num_train = steps * plan.batch_size
    num_images = num_train + plan.micro_batch_size
    images = rng.integers(256, size=(num_images, 3, resolution, resolution), dtype=np.uint8)
    labels = torch.arange(num_images) % num_classes
    splits: dict[Split, ImageSplit] = {
        "train": ImageSplit(images[:num_train], labels[:num_train]),
        "val": ImageSplit(images[num_train:], labels[num_train:]),
    }
    return ImageStore(splits, [str(label) for label in range(num_classes)], resolution)


def measure_in_fresh_process(
    network: NetworkConfig, method: Method, plan: Plan, resolution: int
) -> Measurement:
    """measure_training in a process of its own. Raises TinyTLError where that fails."""
    request = {
        "network": to_ofa(network),
        "method": method.value,
        "plan": asdict(plan),
        "resolution": resolution,
    }
    process = subprocess.run(
        [sys.executable, "-m", "tinytl.measure"],
        input=json.dumps(request),
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        raise TinyTLError(f"the measuring process failed: {process.stderr.strip()[-2000:]}")
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    plan = request["plan"]
    measurement = measure_training(
        from_ofa(request["network"]),
        Method(request["method"]),
        Plan(**{**plan, "micro_batch_sizes": tuple(plan["micro_batch_sizes"])}),
        request["resolution"],
    )
    sys.stdout.write(json.dumps(asdict(measurement)) + "\n")


if __name__ == "__main__":
    main()
