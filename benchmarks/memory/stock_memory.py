"""What training stock modules takes: the stock network of a config, and Inception-V3.

One step of torch.optim.Adam on the whole batch, in a fresh process: `python -m
benchmarks.memory.stock_memory` reads a request as JSON from standard input and prints one JSON
line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.memory.inception import InceptionV3
from benchmarks.memory.stock import StockNetwork
from tinytl.description.config import IMAGENET, NetworkConfig
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa, to_ofa
from tinytl.measurement.measure import run_in_fresh_process
from tinytl.measurement.tracker import measure_peaks, resident_memory

_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class StockMeasurement:
    """Memory that a training of stock modules takes.

    storage_peak_bytes and allocator_peak_bytes: of one step after a warm-up step, with what was
    alive before (weights, gradients, Adam's state), without the stored images. rss_growth_bytes:
    growth of resident memory through the first two steps, beyond weights and stored images.
    """

    storage_peak_bytes: int
    allocator_peak_bytes: int
    rss_growth_bytes: int | None


def measure_stock_in_fresh_process(
    network: NetworkConfig, method: Method, *, batch_size: int, resolution: int
) -> StockMeasurement:
    """Train the config's StockNetwork, its lite residuals standardized as the published ones.

    Raises TinyTLError where the process fails.
    """
    request = {"network": to_ofa(network), "method": method.value, "classes": network.num_classes}
    return _in_fresh_process({**request, "batch_size": batch_size, "resolution": resolution})


def measure_inception_in_fresh_process(
    *, batch_size: int, resolution: int, num_classes: int
) -> StockMeasurement:
    """Fine-tune all of InceptionV3. Raises TinyTLError where the process fails."""
    request = {"network": None, "classes": num_classes}
    return _in_fresh_process({**request, "batch_size": batch_size, "resolution": resolution})


def measure_step(
    network: nn.Module, *, batch_size: int, resolution: int, num_classes: int
) -> StockMeasurement:
    """Train network on random uint8 images: memory does not depend on the values of pixels."""
    step = stock_step(
        network, batch_size=batch_size, resolution=resolution, num_classes=num_classes
    )

    def first_steps() -> None:
        step()
        step()

    # resident memory first: the instruments take memory of their own
    resident = resident_memory(first_steps)
    peaks = measure_peaks(step)
    return StockMeasurement(
        storage_peak_bytes=peaks.storage_bytes,
        allocator_peak_bytes=peaks.allocator_bytes,
        rss_growth_bytes=None if resident is None else resident.growth_bytes,
    )


def stock_step(
    network: nn.Module, *, batch_size: int, resolution: int, num_classes: int
) -> Callable[[], None]:
    """A step of torch.optim.Adam on random images: forward, backward, update."""
    images, labels = random_images(batch_size, resolution, num_classes)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        batch = _normalize(torch.from_numpy(images))
        loss = F.cross_entropy(network(batch), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def random_images(
    batch_size: int, resolution: int, num_classes: int
) -> tuple[NDArray[np.uint8], Tensor]:
    """uint8 (N, 3, H, W), and labels (N,)."""
    shape = (batch_size, 3, resolution, resolution)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    return images, torch.arange(batch_size) % num_classes


def _normalize(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32, contiguous, as torchvision's transforms make them."""
    mean = torch.tensor(IMAGENET.mean).view(3, 1, 1)
    std = torch.tensor(IMAGENET.std).view(3, 1, 1)
    return images.float().div_(255).sub_(mean).div_(std)


def _in_fresh_process(request: dict[str, Any]) -> StockMeasurement:
    answer = run_in_fresh_process("benchmarks.memory.stock_memory", request, directory=_REPOSITORY)
    return StockMeasurement(**answer)


def main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    torch.manual_seed(0)
    network: nn.Module
    if request["network"] is None:
        network = InceptionV3(request["classes"])
    else:
        config, method = from_ofa(request["network"]), Method(request["method"])
        network = StockNetwork(config, method, standardize_lite_residuals=True)
    measurement = measure_step(
        network,
        batch_size=request["batch_size"],
        resolution=request["resolution"],
        num_classes=request["classes"],
    )
    sys.stdout.write(json.dumps(asdict(measurement)) + "\n")


if __name__ == "__main__":
    main()
