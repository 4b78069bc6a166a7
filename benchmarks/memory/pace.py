"""Step times side by side: trainings in processes of their own, which take turns step by step.

A step runs in one thread and is timed by the process's processor time: on an idle machine that is
the time that it takes, and on a busy one other work does not count. `python -m
benchmarks.memory.pace` is one of the trainings: a request as JSON on the first line of standard
input, then a step for every further line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.memory.stock import StockNetwork
from benchmarks.memory.stock_memory import random_images, stock_step
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa, to_ofa
from tinytl.description.plan import Plan
from tinytl.engine.network import Network, build_network
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import Batch, run_step
from tinytl.environment import torch_environment
from tinytl.errors import TinyTLError

_WARM_UP_STEPS = 2
_LEARNING_RATE = 1e-4
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Medians over neighbouring steps; ratio: of ours to the stock step before it."""

    stock_step_seconds: float
    step_seconds: float
    ratio: float


class Training:
    """A warm training in a process of its own, until the with-block ends.

    plan: None trains the stock network. Raises TinyTLError where the process fails.
    """

    def __init__(
        self,
        network: NetworkConfig,
        method: Method,
        plan: Plan | None,
        *,
        batch_size: int,
        resolution: int,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.memory.pace"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=torch_environment(),
            cwd=_REPOSITORY,
            text=True,
        )
        self._ask(
            {
                "network": to_ofa(network),
                "method": method.value,
                "plan": None if plan is None else asdict(plan),
                "batch_size": batch_size,
                "resolution": resolution,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def step(self) -> float:
        """Take a step; its seconds."""
        return float(self._ask("step"))

    def peak_resident_bytes(self) -> int:
        """Of the whole process until now (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])

    def _ask(self, request: object) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise TinyTLError(f"the training ended with code {process.wait()}")
        return json.loads(line)


def side_by_side(stock: Training, ours: Training, pairs: int) -> Pace:
    """Steps in turn: stock, ours, stock, ours, and so on."""
    seconds = [(stock.step(), ours.step()) for _ in range(pairs)]
    return pace_of(seconds)


def pace_of(seconds: list[tuple[float, float]]) -> Pace:
    """seconds: of a stock step and of ours after it."""
    return Pace(
        stock_step_seconds=median(stock for stock, _ in seconds),
        step_seconds=median(ours for _, ours in seconds),
        ratio=median(ours / stock for stock, ours in seconds),
    )


def engine_step(
    network: Network, plan: Plan, *, resolution: int, num_classes: int
) -> Callable[[], None]:
    """A step of tinytl's engine on random images, as benchmarks.memory.stock_memory.stock_step
    takes."""
    network.store_trained(plan.trained_bits)
    parameters = network.trained_parameters()
    names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    optimizer = Adam(parameters, state_bits=plan.optimizer_bits, seed=0)
    images, labels = random_images(plan.batch_size, resolution, num_classes)

    def step() -> None:
        batch = Batch(images=torch.from_numpy(images), labels=labels)
        optimizer.begin_step(_LEARNING_RATE)
        run_step(network, batch, plan, lambda p, gradient: optimizer.update(names[p], gradient))

    return step


def main() -> None:
    """Answer every line of standard input with a line of JSON."""
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    config, method = from_ofa(request["network"]), Method(request["method"])
    resolution, num_classes = request["resolution"], config.num_classes
    torch.set_num_threads(1)
    generator = torch.manual_seed(0)
    if request["plan"] is None:
        step = stock_step(
            StockNetwork(config, method, standardize_lite_residuals=True),
            batch_size=request["batch_size"],
            resolution=resolution,
            num_classes=num_classes,
        )
    else:
        step = engine_step(
            build_network(config, method, weight_bits=8, generator=generator),
            Plan.from_dict(request["plan"]),
            resolution=resolution,
            num_classes=num_classes,
        )
    for _ in range(_WARM_UP_STEPS):
        step()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        step()
        print(json.dumps(time.process_time() - start), flush=True)


if __name__ == "__main__":
    main()
