"""Measures what training a network under a plan takes, by training it.

`python -m tinytl.measurement.measure` reads a request as JSON from standard input and prints a
line for every step, and last one of JSON: a fresh process, so that resident memory starts clean.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinytl.accounting.memory import peak_memory
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa, to_ofa
from tinytl.description.plan import Plan
from tinytl.engine.layers import WeightBits
from tinytl.engine.network import build_network
from tinytl.environment import torch_environment
from tinytl.errors import TinyTLError
from tinytl.measurement.tracker import measure_peaks, resident_memory
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import TrainSettings, train

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
    directory: Path,
    image_size: int | None = None,
    weight_bits: WeightBits = 8,
    on_step: Callable[[], None] = lambda: None,
) -> Measurement:
    """Train a randomly initialised network on random images and measure what that takes.

    Memory and time do not depend on the values of weights and pixels. directory: where images and
    checkpoints are left; image_size: side of the stored images, None for the resolution;
    weight_bits: what frozen weights are stored in.
    """
    image_size = image_size or resolution
    predicted = peak_memory(
        network, method, plan, resolution, image_size=image_size, frozen_bits=weight_bits
    )
    generator = torch.Generator().manual_seed(0)
    model = build_network(network, method, weight_bits=weight_bits, generator=generator)
    step_ends: list[float] = []

    store = random_store(network.num_classes, image_size, _STEPS, plan, directory)

    def end_step(done: int, total: int) -> None:
        step_ends.append(time.perf_counter())
        on_step()

    def run() -> None:
        train(
            model,
            store,
            resolution=resolution,
            plan=plan,
            settings=TrainSettings(epochs=1),
            checkpoint=directory / f"training-{len(step_ends)}.safetensors",
            on_step=end_step,
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
    scratch: Path | None = None,
    image_size: int | None = None,
    weight_bits: WeightBits = 8,
    on_step: Callable[[], None] = lambda: None,
) -> Measurement:
    """measure_training in a process of its own. Raises TinyTLError where that fails.

    What on_step raises ends that process. scratch: where its files are until it has ended, None
    for the system's folder of temporary ones.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        request = {
            "network": to_ofa(network),
            "method": method.value,
            "plan": asdict(plan),
            "resolution": resolution,
            "directory": directory,
            "image_size": image_size,
            "weight_bits": weight_bits,
        }
        return Measurement(
            **run_in_fresh_process("tinytl.measurement.measure", request, on_line=on_step)
        )


def run_in_fresh_process(
    module: str,
    request: dict[str, Any],
    *,
    directory: Path | None = None,
    on_line: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What `python -m module`, given the request as JSON, answers as its last line of JSON.

    directory: where it runs, None for the present one. on_line is called for every line that it
    prints; what that raises ends the process. Raises TinyTLError where it fails.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=torch_environment(),
            cwd=directory,
            text=True,
        )
        with process:
            try:
                line = _converse(process, json.dumps(request), on_line)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            reason = errors.read().strip().splitlines()[-1:] or ["it said nothing, as when killed"]
            raise TinyTLError(
                f"the measuring process ended with code {process.returncode}: {reason[0]}"
            )
    answer: dict[str, Any] = json.loads(line)
    return answer


def _converse(process: subprocess.Popen[str], words: str, on_line: Callable[[], None]) -> str:
    """Say the words; the last line of the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it has ended, and its code says why
        process.stdin.write(words)
        process.stdin.close()
    last = ""
    for line in process.stdout:
        on_line()
        last = line
    return last


def main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)

    def show_step() -> None:
        sys.stdout.write("step\n")
        sys.stdout.flush()

    measurement = measure_training(
        from_ofa(request["network"]),
        Method(request["method"]),
        Plan.from_dict(request["plan"]),
        request["resolution"],
        directory=Path(request["directory"]),
        image_size=request["image_size"],
        weight_bits=request["weight_bits"],
        on_step=show_step,
    )
    sys.stdout.write(json.dumps(asdict(measurement)) + "\n")


if __name__ == "__main__":
    main()
