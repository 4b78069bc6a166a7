"""What pricing a candidate takes: microseconds, its network's description included.

    python -m benchmarks.search.pricing [--json]

Random subnets with random resolutions and random plans of the planner's menu, no two alike, lite
residuals and biases trained. As many others are priced before, so that what blocks cost is known;
then each of the 10,000 goes once through search.space.pricing.price. The figure is the processor
time of all, divided by their number, on one core.

Beside it, 30,000 random candidates at once, through search.space.bulk_pricing.BulkPricing: the
lean peak over all lean plans, trained weights in 32 bits, and multiply-accumulates. Tables are
made before; what they take once, with the choice of the lean plans, is given in seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace

import numpy as np

from benchmarks.shared.machine import describe_machine
from search.space.architecture import SupernetSpec
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import Candidate, SearchSpace
from search.space.pricing import price
from tinytl.accounting.planner import plans
from tinytl.description.method import Method

_SUPERNETS = ("ofa_proxyless_d234_e346_k357_w0.35", "ofa_mbv3_d234_e346_k357_w1.0")
_RESOLUTIONS = (96, 128, 160, 192, 224)
_NUM_CANDIDATES = 10_000
_NUM_BULK = 30_000
_NO_LIMIT = 1 << 60
_NUM_CLASSES = 10
_METHOD = Method.LITE_RESIDUAL_BIAS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    rows = []
    for supernet in _SUPERNETS:
        space = SearchSpace(supernet=SupernetSpec.parse(supernet), resolutions=_RESOLUTIONS)
        bulk = _bulk(space)
        found = _microseconds(space)
        row = {"supernet": supernet, "candidates": _NUM_CANDIDATES, "microseconds": found}
        rows.append({**row, "bulk": bulk})
        print(f"{supernet}: {found:.0f} us a candidate")
        print(
            f"  of {bulk['candidates']} at once: {bulk['microseconds']:.1f} us a candidate over "
            f"{bulk['lean_plans']} lean plans, {bulk['macs_microseconds']:.1f} us its "
            f"multiply-accumulates; tables {bulk['table_seconds']:.1f} s"
        )
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _microseconds(space: SearchSpace) -> float:
    rng = random.Random(0)
    menu = plans(space.batch_size)
    distinct: dict[Candidate, None] = {}
    while len(distinct) < 2 * _NUM_CANDIDATES:
        distinct[replace(space.sample(rng), plan=rng.choice(menu))] = None
    candidates = list(distinct)
    for candidate in candidates[:_NUM_CANDIDATES]:
        price(space, candidate, _METHOD, _NUM_CLASSES)
    started = time.process_time()
    for candidate in candidates[_NUM_CANDIDATES:]:
        price(space, candidate, _METHOD, _NUM_CLASSES)
    return 1e6 * (time.process_time() - started) / _NUM_CANDIDATES


def _bulk(space: SearchSpace) -> dict[str, float]:
    counts = [len(values) for values in space.choices().values()]
    rows = np.random.default_rng(0).integers(counts, size=(_NUM_BULK, len(counts)), dtype=np.intp)
    pricing = BulkPricing(space, _METHOD, _NUM_CLASSES)
    started = time.process_time()
    num_plans = len(pricing.lean_plans(space.lite_residual_sizes[-1]))
    pricing.lean_peak_bytes(rows[:1000], _NO_LIMIT)
    ready = time.process_time()
    pricing.lean_peak_bytes(rows, _NO_LIMIT)
    priced = time.process_time()
    pricing.macs(rows)
    return {
        "candidates": _NUM_BULK,
        "lean_plans": num_plans,
        "table_seconds": ready - started,
        "microseconds": 1e6 * (priced - ready) / _NUM_BULK,
        "macs_microseconds": 1e6 * (time.process_time() - priced) / _NUM_BULK,
    }


if __name__ == "__main__":
    main()
