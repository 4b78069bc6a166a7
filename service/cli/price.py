"""`tinyfit price` and `tinyfit measure`: what a training takes, by formula and for real."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.space.spec import Spec, load_json, load_spec
from service.errors import InputError
from tinytl.accounting.memory import peak_memory
from tinytl.accounting.planner import fastest_plan, leanest_plan
from tinytl.accounting.published import published_memory
from tinytl.description.plan import Plan
from tinytl.environment import torch_environment
from tinytl.errors import ConfigError
from tinytl.native.pricing.process import process_memory
from tinytl.units import format_bytes

Answer = tuple[dict[str, Any], str]


def price_file(path: Path, *, accounting: str, plan: str | None) -> Answer:
    """The bytes of a SPEC.json: accounting "peak" counts everything, "published" as TinyTL did.

    plan: a file or JSON, instead of the spec's.
    """
    spec = _load(path, plan)
    if accounting == "published":
        return _published(spec)
    peak = peak_memory(
        spec.network,
        spec.method,
        spec.plan,
        spec.resolution,
        frozen_bits=spec.frozen_param_bits,
    )
    process_bytes = _process_bytes(spec, spec.plan)
    answer = {
        "plan": asdict(spec.plan),
        "predicted_peak_bytes": peak.total_bytes,
        "breakdown": peak.breakdown,
        "predicted_process_bytes": process_bytes,
    }
    rows = {
        "predicted peak": peak.total_bytes,
        **peak.breakdown,
        "device's process": process_bytes,
    }
    return answer, f"{_plan_row(spec.plan)}\n{_table(rows)}"


def _process_bytes(spec: Spec, plan: Plan) -> int | None:
    """Predicted, of the device trainer's whole process; None where it does not do it."""
    if spec.frozen_param_bits != 8:
        return None
    try:
        return process_memory(spec.network, spec.method, plan, spec.resolution).total_bytes
    except ConfigError:
        return None


def _load(path: Path, plan: str | None) -> Spec:
    spec = load_spec(path)
    if plan is None:
        return spec
    if not plan.lstrip().startswith("{"):
        return spec.with_plan(load_json(Path(plan)))
    try:
        return spec.with_plan(json.loads(plan))
    except ValueError as error:
        raise InputError(f"the plan is wrong: {error}") from error


def _published(spec: Spec) -> Answer:
    memory = published_memory(
        spec.network,
        spec.method,
        resolution=spec.resolution,
        batch_size=spec.plan.batch_size,
        frozen_param_bits=spec.frozen_param_bits,
    )
    found = {
        "param_bytes": memory.param_bytes,
        "peak_activation_bytes_per_image": memory.peak_activation_bytes_per_image,
        "total_bytes": memory.total_bytes,
    }
    rows = {
        "parameters": memory.param_bytes,
        "activations per image": memory.peak_activation_bytes_per_image,
        "total": memory.total_bytes,
    }
    return found, _table(rows)


def measure_file(path: Path, *, plan: str | None, limit_bytes: int | None) -> Answer:
    """Peak and pace of real training steps of a SPEC.json, in a process of their own.

    plan: a file or JSON, instead of the spec's. Or limit_bytes: the fastest plan that is
    predicted to fit. Where there is no plan at all: the leanest of a reasonable pace.
    """
    spec = _load(path, plan)
    chosen = _plan(spec, limit_bytes)
    from tinytl.measurement.measure import measure_in_fresh_process

    os.environ.update(torch_environment())
    found = measure_in_fresh_process(
        spec.network,
        spec.method,
        chosen,
        spec.resolution,
        weight_bits=spec.frozen_param_bits,
    )
    process_bytes = _process_bytes(spec, chosen)
    answer = {
        "plan": asdict(chosen),
        "predicted_peak_bytes": found.predicted_peak_bytes,
        "measured_peak_bytes": found.measured_peak_bytes,
        "storage_peak_bytes": found.storage_peak_bytes,
        "rss_growth_bytes": found.rss_growth_bytes,
        "step_seconds": found.step_seconds,
        "breakdown": found.breakdown_bytes,
        "predicted_process_bytes": process_bytes,
    }
    rows = {
        "predicted peak": found.predicted_peak_bytes,
        "measured peak": found.measured_peak_bytes,
        "of tensors alone": found.storage_peak_bytes,
        "growth of RSS": found.rss_growth_bytes,
        "device's process": process_bytes,
    }
    text = f"{_plan_row(chosen)}\n{_table(rows)}\n{'step':<22}{found.step_seconds:9.3f} s"
    return answer, text


def _plan(spec: Spec, limit_bytes: int | None) -> Plan:
    if limit_bytes is None and spec.given_plan is not None:
        return spec.given_plan
    if limit_bytes is None:
        plan, _ = leanest_plan(
            spec.network,
            spec.method,
            spec.resolution,
            batch_size=spec.batch_size,
            frozen_bits=spec.frozen_param_bits,
        )
    else:
        plan, _ = fastest_plan(
            spec.network,
            spec.method,
            spec.resolution,
            limit_bytes,
            batch_size=spec.batch_size,
            frozen_bits=spec.frozen_param_bits,
        )
    return plan


def _plan_row(plan: Plan) -> str:
    return f"{'plan':<24}{plan.describe()}"


def _table(rows: Mapping[str, int | None]) -> str:
    return "\n".join(
        f"{name.replace('_', ' '):<22}{'unknown' if size is None else format_bytes(size):>11}"
        for name, size in rows.items()
    )
