"""`tinyfit price` and `tinyfit measure`: what a training takes, by formula and for real."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.spec import Spec, load_spec
from service.lifeline import torch_environment
from tinytl.memory import peak_memory
from tinytl.published import published_memory
from tinytl.units import format_bytes

Answer = tuple[dict[str, Any], str]


def price_file(path: Path, *, accounting: str) -> Answer:
    """The bytes of a SPEC.json: accounting "peak" counts everything, "published" as TinyTL did."""
    spec = load_spec(path)
    if accounting == "published":
        return _published(spec)
    peak = peak_memory(
        spec.network,
        spec.method,
        spec.plan,
        spec.resolution,
        frozen_bits=spec.frozen_param_bits,
    )
    found = {"predicted_peak_bytes": peak.total_bytes, "breakdown": peak.breakdown}
    rows = {"predicted peak": peak.total_bytes, **peak.breakdown}
    return found, _table(rows)


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


def measure_file(path: Path) -> Answer:
    """Peak and pace of real training steps of a SPEC.json, in a process of their own."""
    from tinytl.measure import measure_in_fresh_process

    spec = load_spec(path)
    os.environ.update(torch_environment())
    found = measure_in_fresh_process(
        spec.network,
        spec.method,
        spec.plan,
        spec.resolution,
        weight_bits=spec.frozen_param_bits,
    )
    answer = {
        "predicted_peak_bytes": found.predicted_peak_bytes,
        "measured_peak_bytes": found.measured_peak_bytes,
        "rss_growth_bytes": found.rss_growth_bytes,
        "step_seconds": found.step_seconds,
    }
    rows = {
        "predicted peak": found.predicted_peak_bytes,
        "measured peak": found.measured_peak_bytes,
        "growth of RSS": found.rss_growth_bytes,
    }
    return answer, f"{_table(rows)}\n{'step':<22}{found.step_seconds:9.3f} s"


def _table(rows: Mapping[str, int | None]) -> str:
    return "\n".join(
        f"{name.replace('_', ' '):<22}{'unknown' if size is None else format_bytes(size):>11}"
        for name, size in rows.items()
    )
