"""The trainings that benchmarks.memory.training compares, and the plans that tinyfit has for
them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from benchmarks.memory.pace import Training
from benchmarks.memory.stock_memory import StockMeasurement, measure_stock_in_fresh_process
from search.space.spec import proxyless_mobile
from tinytl.accounting import planner
from tinytl.accounting.memory import peak_memory
from tinytl.accounting.published import published_memory
from tinytl.description.config import GROUP_NORM, NetworkConfig, NormConfig, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.measurement.measure import Measurement, measure_in_fresh_process

BATCH_SIZE = 8
RESOLUTION = 224
NUM_CLASSES = 102
NORMS = {
    "batch": NormConfig(),
    "group": GROUP_NORM,
}
"""batch: folded into the convolutions; group: with weight standardization, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training. norm: one of NORMS."""

    method: Method
    norm: str = "batch"
    resolution: int = RESOLUTION
    batch_size: int = BATCH_SIZE

    @property
    def network(self) -> NetworkConfig:
        network = replace(proxyless_mobile(), num_classes=NUM_CLASSES, norm=NORMS[self.norm])
        return with_lite_residuals(network) if self.method.uses_lite_residual else network

    @property
    def published_bytes(self) -> int:
        return published_memory(
            self.network,
            self.method,
            resolution=self.resolution,
            batch_size=self.batch_size,
            frozen_param_bits=32 if self.method is Method.FULL else 8,
        ).total_bytes


def describe(plan: Plan) -> str:
    """For example "1r, 3: 8; 8/32": images at a time, "r" if recomputed; "3:" from that stage on.

    At the end: bits of Adam's moments / of trained values.
    """
    parts = [
        ("" if stretch.from_stage == 0 else f"{stretch.from_stage}: ")
        + f"{stretch.micro_batch_size}{'r' if stretch.recomputes else ''}"
        for stretch in plan.stretches
    ]
    return f"{', '.join(parts)}; {plan.optimizer_bits}/{plan.trained_bits}"


def plans(batch_size: int) -> list[Plan]:
    """The planner's menu, fastest first, with trained values in 32 bits."""
    return [plan for plan in planner.plans(batch_size) if plan.trained_bits == 32]


def leanest_plan(case: Case) -> Plan:
    """By its predicted peak; the faster one of two alike."""
    return min(plans(case.batch_size), key=lambda plan: _predicted_bytes(case, plan))


def ever_leaner_plans(case: Case) -> list[Plan]:
    """Those that are predicted leaner than every faster one: the curve of time over memory."""
    found = []
    least = math.inf
    for plan in plans(case.batch_size):
        if (predicted := _predicted_bytes(case, plan)) < least:
            least = predicted
            found.append(plan)
    return found


def _predicted_bytes(case: Case, plan: Plan) -> int:
    return peak_memory(case.network, case.method, plan, case.resolution).total_bytes


@lru_cache
def measure(case: Case, plan: Plan) -> Measurement:
    return measure_in_fresh_process(case.network, case.method, plan, case.resolution)


@lru_cache
def measure_stock(case: Case) -> StockMeasurement:
    return measure_stock_in_fresh_process(
        case.network, case.method, batch_size=case.batch_size, resolution=case.resolution
    )


def training(case: Case, plan: Plan | None) -> Training:
    return Training(
        case.network,
        case.method,
        plan,
        batch_size=case.batch_size,
        resolution=case.resolution,
    )
