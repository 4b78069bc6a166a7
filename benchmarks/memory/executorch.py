"""ExecuTorch's training of a network's biases and head, in its own runtime, without Python.

`python -m benchmarks.memory.executorch REQUEST PROGRAM` exports it, by the Python that has
ExecuTorch 1.5.1 and what tinyfit needs: a training graph of float values, batch norms folded.
executorch_runner.cpp then runs forward and backward with the kernels that the wheel has. What it
leaves out, to ExecuTorch's advantage: the update, and whatever stores and reads images.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinytl.description.config import NetworkConfig
from tinytl.description.ofa_format import from_ofa, to_ofa

VERSION = "1.5.1"
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class ExecutorchCost:
    """Of the process: its peak, the plan that ExecuTorch made, processor seconds of a step."""

    peak_bytes: int
    planned_bytes: int
    step_seconds: float


def executorch_cost(
    python: str,
    network: NetworkConfig,
    *,
    batch_size: int,
    resolution: int,
    steps: int,
    folder: Path,
) -> ExecutorchCost:
    """python: the command of a Python that has ExecuTorch. folder: for what is made."""
    request = {"network": to_ofa(network), "batch_size": batch_size, "resolution": resolution}
    program = folder / "training.pte"
    command = [python, "-W", "ignore", "-m", "benchmarks.memory.executorch"]
    exported = _run([*command, json.dumps(request), str(program)])
    runner = _build_runner(Path(exported["executorch"]), folder)
    sizes = [str(size) for size in (batch_size, resolution, steps)]
    found = _run([str(runner), str(program), *sizes])
    return ExecutorchCost(
        peak_bytes=found["peak_bytes"],
        planned_bytes=exported["planned_bytes"],
        step_seconds=found["seconds"],
    )


def _build_runner(package: Path, folder: Path) -> Path:
    include = package / "include"
    runner = folder / "executorch_runner"
    command = ["g++", "-std=c++17", "-O2", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command += ["-I", str(include)]
    command += ["-I", str(include / "executorch/runtime/core/portable_type/c10")]
    command += [str(Path(__file__).with_name("executorch_runner.cpp")), "-o", str(runner)]
    command += ["-L", str(package / "lib"), "-lexecutorch", "-Wl,--no-as-needed"]
    command += ["-lexecutorch_kernels_optimized", "-lexecutorch_threadpool"]
    subprocess.run(
        [*command, f"-Wl,-rpath,{package / 'lib'}"], check=True, capture_output=True, text=True
    )
    return runner


def _run(command: list[str]) -> Any:
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _export(request: dict[str, Any], path: Path) -> dict[str, Any]:
    import executorch  # type: ignore[import-not-found]
    import torch
    import torch.nn.functional as F
    from executorch.exir import to_edge  # type: ignore[import-not-found]
    from executorch.version import __version__ as version  # type: ignore[import-not-found]
    from torch import Tensor, nn
    from torch.export import export
    from torch.export.experimental import _export_forward_backward
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    from benchmarks.memory.stock import StockNetwork
    from tinytl.description.method import Method

    if not version.startswith(VERSION):
        raise SystemExit(f"ExecuTorch {VERSION} was asked for, but {version} is there")

    class Training(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.network(images)
            return F.cross_entropy(logits, labels), logits.detach().argmax(1)

    def fold(module: nn.Module) -> None:
        children = list(module.named_children())
        for (name, first), (next_name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(first, second))
                setattr(module, next_name, nn.Identity())
        for child in module.children():
            fold(child)

    network = StockNetwork(from_ofa(request["network"]), Method.BIAS).eval()
    fold(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.endswith("bias") or name.startswith("classifier"))
    batch_size, side = request["batch_size"], request["resolution"]
    inputs = (torch.randn(batch_size, 3, side, side), torch.zeros(batch_size, dtype=torch.int64))
    joint = _export_forward_backward(export(Training(network), inputs, strict=True))
    made = to_edge(joint).to_executorch()
    path.write_bytes(made.buffer)
    plan = next(p for p in made.executorch_program.execution_plan if p.name == "forward")
    return {
        "planned_bytes": sum(plan.non_const_buffer_sizes),
        "executorch": next(iter(executorch.__path__)),
    }


if __name__ == "__main__":
    print(json.dumps(_export(json.loads(sys.argv[1]), Path(sys.argv[2]))))
