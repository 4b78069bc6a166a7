"""The device trainer's whole process beside Python's: `python -m benchmarks.memory.device`.

    python -m benchmarks.memory.device [CASE ...] [--repeats N] [--target TARGET] [--json]
        [--record FILE] [--executorch PYTHON] [--picture docs/memory.svg]

Resident memory is VmHWM, of the whole process. A step's time is processor time in one thread, as
it does not depend on what else the machine does: medians of runs that take turns. The trainer's
counts reading and augmenting the images, which those in Python have in memory. Trained values are
random: neither memory nor time depends on them. What is measured is kept in the record, and the
same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.memory.cases import NUM_CLASSES, RESOLUTION
from benchmarks.memory.executorch import VERSION, ExecutorchCost, executorch_cost
from benchmarks.memory.pace import Training
from benchmarks.memory.picture import Processes, picture
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from search.space.architecture import SupernetSpec
from search.space.spec import proxyless_mobile
from tinytl.description.config import NetworkConfig, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.network import build_network
from tinytl.native.build import NATIVE, TARGETS, BuildError, build_trainer
from tinytl.native.delivery import predicted_process_bytes
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.formats.program_file import read_program
from tinytl.native.program import ProgramSettings, compile_program

CONTRACTED = ("-ffp-contract=fast",)
_SECONDS_A_RUN = 1.5
_MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training."""

    network: NetworkConfig
    plan: Plan
    method: Method = Method.LITE_RESIDUAL_BIAS
    resolution: int = RESOLUTION

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {number}" for number in range(self.network.num_classes))


def _mobile(plan: Plan, method: Method = Method.LITE_RESIDUAL_BIAS) -> Case:
    network = replace(proxyless_mobile(), num_classes=NUM_CLASSES)
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    return Case(network=network, plan=plan, method=method)


def _narrow(plan: Plan) -> Case:
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = with_lite_residuals(spec.network_config(spec.smallest, 10))
    return Case(network=network, plan=plan, resolution=48)


LEAN = Plan(
    batch_size=8,
    stretches=(
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=3, micro_batch_size=8),
    ),
    optimizer_bits=8,
)
SINGLE = replace(Plan.whole(1), optimizer_bits=8)
WHOLE = replace(Plan.whole(8), optimizer_bits=8)
CASES = {
    "batch 8": _mobile(LEAN),
    "batch 8, 16 bits": _mobile(replace(LEAN, trained_bits=16)),
    "batch 1": _mobile(SINGLE),
    "batch 1, 16 bits": _mobile(replace(SINGLE, trained_bits=16)),
    "batch 8 at once": _mobile(WHOLE),
    "narrow, 48 px, batch 8": _narrow(WHOLE),
    "bias, batch 1": _mobile(SINGLE, Method.BIAS),
}
"""ProxylessNAS-Mobile at 224 px by lite_residual+bias, where the name does not say otherwise."""

EXECUTORCH_CASE = "bias, batch 1"
EXECUTORCH = f"executorch {VERSION}; {EXECUTORCH_CASE}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a process that trains: resident bytes at its peak, processor seconds of a step."""

    peak_bytes: int
    step_seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A training's costs. stock: None where the plan is not what stock PyTorch would do."""

    name: str
    plan: str
    predicted_bytes: int
    arena_bytes: int
    trainer: Cost
    contracted: Cost
    engine: Cost
    stock: Cost | None
    over_engine: float
    """The trainer's step over the torch engine's, as medians of what was measured in turn."""
    over_stock: float | None

    @staticmethod
    def from_dict(kept: dict[str, Any]) -> Row:
        names = ("trainer", "contracted", "engine", "stock")
        costs = {name: None if kept[name] is None else Cost(**kept[name]) for name in names}
        return Row(**{**kept, **costs})

    @property
    def cells(self) -> list[str]:
        stock = self.stock
        return [
            self.name,
            f"{self.trainer.peak_bytes / _MB:.2f}",
            f"{self.predicted_bytes / _MB:.2f}",
            f"{self.arena_bytes / _MB:.2f}",
            f"{self.engine.peak_bytes / _MB:.0f}",
            "" if stock is None else f"{stock.peak_bytes / _MB:.0f}",
            f"{1e3 * self.trainer.step_seconds:.1f}",
            f"{1e3 * self.contracted.step_seconds:.1f}",
            f"{1e3 * self.engine.step_seconds:.1f}",
            "" if stock is None else f"{1e3 * stock.step_seconds:.1f}",
            f"{self.over_engine:.2f}",
            "" if self.over_stock is None else f"{self.over_stock:.2f}",
        ]


_HEADINGS = (
    *("training", "trainer, MB", "predicted", "arena"),
    *("tinyfit in Python, MB", "stock PyTorch, MB"),
    *("trainer's step, ms", "contracted", "tinyfit in Python", "stock PyTorch"),
    *("over Python's", "over stock's"),
)


class TrainerRuns:
    """Trainings of a program, told apart by how many steps they take."""

    def __init__(self, trainer: Path, program: Path, case: Case, folder: Path) -> None:
        self._trainer = trainer
        self._program = program
        self._case = case
        self._folder = folder
        self.peak_bytes = 0

    def step_seconds(self, steps: int) -> float:
        """By a training of one step, and one that is longer by so many."""
        return (self._seconds(1 + steps) - self._seconds(1)) / steps

    def _seconds(self, steps: int) -> float:
        store = self._folder / f"{steps}.tfi"
        if not store.exists():
            _write_images(store, self._case, steps * self._case.plan.batch_size)
        command = [self._trainer, "train", self._program, store, "--epochs", "1"]
        command += ["--state", self._folder / "state", "--fresh", "--json"]
        before = _children_seconds()
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=True
        )
        seconds = _children_seconds() - before
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.peak_bytes = max(self.peak_bytes, answer["peak_resident_bytes"])
        return seconds


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write_images(path: Path, case: Case, count: int) -> None:
    """To train on, and one to judge by."""
    rng = np.random.default_rng(0)
    shape = (3, case.resolution, case.resolution)
    images = (
        StoredImage(
            pixels=rng.integers(0, 256, shape, dtype=np.uint8),
            label=number % len(case.classes),
            split="train" if number < count else "val",
        )
        for number in range(count + 1)
    )
    write_image_file(
        path,
        images,
        case.classes,
        image_size=case.resolution,
        max_classes=len(case.classes),
    )


def row_of(name: str, target: str, repeats: int) -> Row:
    case = CASES[name]
    plan = case.plan
    network = build_network(case.network, case.method, generator=torch.manual_seed(0))
    network.store_trained(plan.trained_bits)
    content = compile_program(
        network,
        plan,
        resolution=case.resolution,
        image_size=case.resolution,
        classes=case.classes,
        settings=ProgramSettings(),
    )
    trainer, contracted = build_trainer(target), build_trainer(target, options=CONTRACTED)
    predicted = predicted_process_bytes(read_program(content), trainer.stat().st_size)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "program").write_bytes(content)
        runs = [
            TrainerRuns(path, folder / "program", case, folder) for path in (trainer, contracted)
        ]
        engine = stack.enter_context(_python(case, plan))
        stock = stack.enter_context(_python(case, None)) if plan.trained_bits == 32 else None
        steps = max(1, round(_SECONDS_A_RUN / engine.step()))
        turns = [
            _turn(runs, [engine] if stock is None else [engine, stock], steps)
            for _ in range(repeats)
        ]
        peaks = [run.peak_bytes for run in runs] + [
            process.peak_resident_bytes() for process in (engine, stock) if process is not None
        ]
    costs = [
        Cost(peak_bytes=peak, step_seconds=median(seconds))
        for peak, seconds in zip(peaks, zip(*turns, strict=True), strict=True)
    ]
    return Row(
        name=name,
        plan=plan.describe(),
        predicted_bytes=predicted,
        arena_bytes=read_program(content).numbers["arena_bytes"],
        trainer=costs[0],
        contracted=costs[1],
        engine=costs[2],
        stock=costs[3] if stock is not None else None,
        over_engine=median(turn[0] / turn[2] for turn in turns),
        over_stock=median(turn[0] / turn[3] for turn in turns) if stock is not None else None,
    )


def _python(case: Case, plan: Plan | None) -> Training:
    """plan: None for stock PyTorch."""
    return Training(
        case.network,
        case.method,
        plan,
        batch_size=case.plan.batch_size,
        resolution=case.resolution,
    )


def _turn(runs: Sequence[TrainerRuns], others: Sequence[Training], steps: int) -> list[float]:
    """Seconds of a step: of each trainer, then of each training in Python."""
    seconds = [run.step_seconds(steps) for run in runs]
    return seconds + [median(other.step() for _ in range(steps)) for other in others]


def binary_sizes() -> dict[str, int]:
    """Of the targets that the compiler builds for."""
    sizes = {}
    for target in TARGETS:
        if target != NATIVE:
            try:
                sizes[target] = build_trainer(target).stat().st_size
            except BuildError as error:
                print(f"{target}: {error}")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--target", default="x86_64_v3-linux-musl", choices=TARGETS)
    parser.add_argument("--executorch", metavar="PYTHON", help=f"that has ExecuTorch {VERSION}")
    parser.add_argument("--record", type=Path, help="JSON, of what is measured")
    parser.add_argument("--picture", type=Path, help="draw the processes into this SVG file")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    names = options.cases or list(CASES)
    for name in names:
        if name not in CASES:
            parser.error(f"there is no case {name!r}; known are {', '.join(map(repr, CASES))}")
    os.environ["OMP_NUM_THREADS"] = "1"
    print(
        f"Trainer for {options.target}; memory is VmHWM of whole processes, 1 MB = 10^6 bytes.\n"
    )
    record = ResultsFile(options.record)
    rows = list(_table(names, options.target, options.repeats, record))
    answer: dict[str, Any] = {
        "machine": describe_machine(),
        "target": options.target,
        "rows": [asdict(row) for row in rows],
    }
    if options.picture:
        options.picture.write_text(picture(processes_to_draw(rows)), encoding="utf-8")
    if options.executorch:
        if EXECUTORCH not in record:
            record.put(EXECUTORCH, asdict(_executorch(options.executorch, options.repeats)))
        cost = ExecutorchCost(**record[EXECUTORCH])
        print(
            f"ExecuTorch {VERSION}, {EXECUTORCH_CASE}: {cost.peak_bytes / _MB:.2f} MB, of which "
            f"{cost.planned_bytes / _MB:.2f} MB are planned; a step takes "
            f"{1e3 * cost.step_seconds:.1f} ms\n",
            flush=True,
        )
        answer["executorch"] = asdict(cost)
    sizes = binary_sizes()
    print("| target | executable, bytes |\n|---|---|")
    for target, size in sizes.items():
        print(f"| {target} | {size} |")
    answer["binary_bytes"] = sizes
    if options.json:
        print(json.dumps(answer))


def _executorch(python: str, steps: int) -> ExecutorchCost:
    case = CASES[EXECUTORCH_CASE]
    with tempfile.TemporaryDirectory() as folder:
        return executorch_cost(
            python,
            case.network,
            batch_size=case.plan.batch_size,
            resolution=case.resolution,
            steps=steps,
            folder=Path(folder),
        )


def processes_to_draw(rows: Sequence[Row]) -> list[Processes]:
    """Those that stock PyTorch trains, too."""
    return [
        Processes(
            name=row.name,
            stock_bytes=row.stock.peak_bytes,
            python_bytes=row.engine.peak_bytes,
            device_bytes=row.trainer.peak_bytes,
        )
        for row in rows
        if row.stock is not None and row.name in ("batch 8", "batch 1")
    ]


def _table(names: Sequence[str], target: str, repeats: int, record: ResultsFile) -> Iterator[Row]:
    """Printed as it comes."""
    print("| " + " | ".join(_HEADINGS) + " |\n" + "|---" * len(_HEADINGS) + "|")
    for name in names:
        key = f"{name}; {target}; {repeats} repeats"
        if key not in record:
            record.put(key, asdict(row_of(name, target, repeats)))
        row = Row.from_dict(record[key])
        print("| " + " | ".join(row.cells) + " |", flush=True)
        yield row
    print()


if __name__ == "__main__":
    main()
