"""Training memory and pace: the paper's accounting, stock PyTorch, and tinyfit.

    python -m benchmarks.memory.training [--json] [--quick] [--jobs N]

ProxylessNAS-Mobile at 224 px, batch 8, 102 classes (TinyTL paper, table 2): a table of methods and
norms, step time over memory by plan, and the bars that the project holds itself to. Ours is the
plan of the planner's menu that is predicted leanest, with trained values in 32 bits. Memory is
measured in fresh processes: peaks and growth of resident memory over whole trainings. Steps are
timed in turn with stock PyTorch's, in one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

from benchmarks.memory.cases import (
    BATCH_SIZE,
    NORMS,
    NUM_CLASSES,
    Case,
    describe,
    ever_leaner_plans,
    leanest_plan,
    measure,
    measure_stock,
    training,
)
from benchmarks.memory.pace import Pace, side_by_side
from benchmarks.memory.stock_memory import StockMeasurement, measure_inception_in_fresh_process
from benchmarks.shared.machine import describe_machine
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.measurement.measure import Measurement

_PAIRS = 5
_MB = 10**6
_ROW_HEADINGS = (
    "norm",
    "method",
    "published",
    "stock: storage",
    "allocator",
    "RSS growth",
    "step",
    "tinyfit: plan",
    "predicted",
    "storage",
    "allocator",
    "RSS growth",
    "step",
    "ratio",
)
_POINT_HEADINGS = ("plan", "predicted", "allocator", "RSS growth", "step", "ratio")
_BAR_HEADINGS = ("bar", "limit", "measured", "met", "plan")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case, by the paper's accounting, in stock PyTorch, and by tinyfit's leanest plan."""

    case: Case
    published_bytes: int
    stock: StockMeasurement
    plan: Plan
    ours: Measurement
    pace: Pace

    @property
    def cells(self) -> list[str]:
        stock, ours = self.stock, self.ours
        return [
            self.case.norm,
            self.case.method.value,
            *_megabytes(self.published_bytes),
            *_megabytes(stock.storage_peak_bytes, stock.allocator_peak_bytes),
            *_megabytes(stock.rss_growth_bytes),
            f"{self.pace.stock_step_seconds:.2f}",
            describe(self.plan),
            *_megabytes(ours.predicted_peak_bytes, ours.storage_peak_bytes),
            *_megabytes(ours.measured_peak_bytes, ours.rss_growth_bytes),
            f"{self.pace.step_seconds:.2f}",
            f"{self.pace.ratio:.2f}",
        ]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A plan on the curve of step time over memory."""

    plan: Plan
    ours: Measurement
    pace: Pace

    @property
    def cells(self) -> list[str]:
        ours = self.ours
        return [
            describe(self.plan),
            *_megabytes(ours.predicted_peak_bytes, ours.measured_peak_bytes),
            *_megabytes(ours.rss_growth_bytes),
            f"{self.pace.step_seconds:.2f}",
            f"{self.pace.ratio:.2f}",
        ]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A limit that the project holds itself to, and what was measured."""

    name: str
    limit: str
    measured: str
    met: bool
    plan: Plan | None

    @property
    def cells(self) -> list[str]:
        plan = "none" if self.plan is None else describe(self.plan)
        return [self.name, self.limit, self.measured, "yes" if self.met else "**no**", plan]


_Printed = TypeVar("_Printed", Row, Point, Bar)


def row_of(case: Case) -> Row:
    plan = leanest_plan(case)
    with training(case, None) as stock, training(case, plan) as ours:
        pace = side_by_side(stock, ours, _PAIRS)
    return Row(
        case=case,
        published_bytes=case.published_bytes,
        stock=measure_stock(case),
        plan=plan,
        ours=measure(case, plan),
        pace=pace,
    )


def point_of(case: Case, plan: Plan) -> Point:
    with training(case, None) as stock, training(case, plan) as ours:
        pace = side_by_side(stock, ours, _PAIRS)
    return Point(plan=plan, ours=measure(case, plan), pace=pace)


def curve_bar(curve: Sequence[Point], *, ratio: float, limit_bytes: int | None) -> Bar:
    """The leanest of the curve's plans that is at most so many times as slow as stock."""
    within = [point for point in curve if point.pace.ratio <= ratio]
    best = min(within, key=lambda point: point.ours.measured_peak_bytes, default=None)
    peak = None if best is None else best.ours.measured_peak_bytes
    limit = "the leanest" if limit_bytes is None else f"{limit_bytes / _MB:.0f} MB"
    return Bar(
        name=f"lite_residual+bias, batch 8, at most {ratio:g} x stock's step",
        limit=limit,
        measured="none"
        if best is None or peak is None
        else f"{peak / _MB:.1f} MB at {best.pace.ratio:.2f} x",
        met=peak is not None and (limit_bytes is None or peak <= limit_bytes),
        plan=None if best is None else best.plan,
    )


def memory_bar(name: str, case: Case, limit_bytes: int, plan: Plan | None = None) -> Bar:
    """plan: None for the leanest."""
    plan = plan or leanest_plan(case)
    peak = measure(case, plan).measured_peak_bytes
    return Bar(
        name=name,
        limit=f"{limit_bytes / _MB:.0f} MB",
        measured=f"{peak / _MB:.1f} MB",
        met=peak <= limit_bytes,
        plan=plan,
    )


def saving_bar(inception: StockMeasurement, case: Case, times: int) -> Bar:
    plan = leanest_plan(case)
    peak, ours = inception.allocator_peak_bytes, measure(case, plan).measured_peak_bytes
    return Bar(
        name="Inception-V3, all of it, 299 px, batch 8, over lite_residual+bias",
        limit=f"{times} x",
        measured=f"{peak / ours:.1f} x ({peak / _MB:.0f} MB over {ours / _MB:.1f})",
        met=peak >= times * ours,
        plan=plan,
    )


def bars_of(curve: Sequence[Point], inception: StockMeasurement) -> Iterator[Bar]:
    method, name = Method.LITE_RESIDUAL_BIAS, "lite_residual+bias"
    best = Case(method=method)
    yield curve_bar(curve, ratio=2.5, limit_bytes=32 * _MB)
    yield curve_bar(curve, ratio=1.2, limit_bytes=None)
    yield memory_bar(f"{name}, batch 8, group norm", replace(best, norm="group"), 40 * _MB)
    yield memory_bar("bias, batch 8", Case(method=Method.BIAS), 12 * _MB)
    single = replace(best, batch_size=1)
    yield memory_bar(f"{name}, batch 1", single, 20 * _MB)
    halved = replace(leanest_plan(single), trained_bits=16)
    yield memory_bar(f"{name}, batch 1, trained values in 16 bits", single, 16 * _MB, halved)
    yield memory_bar(f"{name}, 320 px, batch 8", replace(best, resolution=320), 40 * _MB)
    yield saving_bar(inception, best, 25)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--jobs", type=int, default=1, help="how many measure at once")
    parser.add_argument("--quick", action="store_true", help="one method, three plans, no bars")
    arguments = parser.parse_args()
    best = Case(method=Method.LITE_RESIDUAL_BIAS)
    methods = [best.method] if arguments.quick else list(Method)

    print("Memory in MB (10^6 bytes), steps in seconds; ratio: our step to stock PyTorch's.\n")
    cases = [Case(method=method, norm=norm) for norm in NORMS for method in methods]
    pool = ThreadPoolExecutor(arguments.jobs)
    rows = _table(_ROW_HEADINGS, pool.map(row_of, cases))
    chosen = ever_leaner_plans(best)[:: 4 if arguments.quick else 1]
    curve = _table(_POINT_HEADINGS, pool.map(partial(point_of, best), chosen))
    bars: list[Bar] = []
    if not arguments.quick:
        inception = measure_inception_in_fresh_process(
            batch_size=BATCH_SIZE, resolution=299, num_classes=NUM_CLASSES
        )
        bars = _table(_BAR_HEADINGS, bars_of(curve, inception))
    if arguments.json:
        answer = {
            "machine": describe_machine(),
            "rows": [asdict(row) for row in rows],
            "curve": [asdict(point) for point in curve],
            "bars": [asdict(bar) for bar in bars],
        }
        print(json.dumps(answer))


def _table(headings: Sequence[str], rows: Iterable[_Printed]) -> list[_Printed]:
    """Print the rows as they come; returns them."""
    print("| " + " | ".join(headings) + " |\n" + "|---" * len(headings) + "|")
    found = []
    for row in rows:
        print("| " + " | ".join(row.cells) + " |", flush=True)
        found.append(row)
    print()
    return found


def _megabytes(*sizes: int | None) -> list[str]:
    return ["unknown" if size is None else f"{size / _MB:.1f}" for size in sizes]


if __name__ == "__main__":
    main()
