"""What pricing a candidate takes: microseconds, its network's description included.

    python -m benchmarks.pricing [--json]

Random subnets with random resolutions and plans of one to three stretches, no two alike, lite
residuals and biases trained. As many others are priced before, so that what blocks cost is known;
then each of the 10,000 goes once through search.pricing.price. The figure is the processor time
of all, divided by their number, on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace

from benchmarks.machine import describe_machine
from search.architecture import SupernetSpec
from search.pricing import price
from search.space import Candidate, SearchSpace
from tinytl.plan import Plan, Stretch
from tinytl.trainable import Method

_SUPERNETS = ("ofa_proxyless_d234_e346_k357_w0.35", "ofa_mbv3_d234_e346_k357_w1.0")
_RESOLUTIONS = (96, 128, 160, 192, 224)
_NUM_CANDIDATES = 10_000
_NUM_CLASSES = 10
_METHOD = Method.LITE_RESIDUAL_BIAS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    rows = []
    for supernet in _SUPERNETS:
        space = SearchSpace(supernet=SupernetSpec.parse(supernet), resolutions=_RESOLUTIONS)
        for num_stretches in (1, 3):
            found = _microseconds(space, num_stretches)
            rows.append(
                {
                    "supernet": supernet,
                    "most_stretches": num_stretches,
                    "candidates": _NUM_CANDIDATES,
                    "microseconds": found,
                }
            )
            print(f"{supernet}, {num_stretches} stretches at most: {found:.0f} us a candidate")
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _microseconds(space: SearchSpace, num_stretches: int) -> float:
    rng = random.Random(0)
    distinct: dict[Candidate, None] = {}
    while len(distinct) < 2 * _NUM_CANDIDATES:
        plan = _random_plan(rng, space.batch_size, num_stretches)
        distinct[replace(space.sample(rng), plan=plan)] = None
    candidates = list(distinct)
    for candidate in candidates[:_NUM_CANDIDATES]:
        price(space, candidate, _METHOD, _NUM_CLASSES)
    started = time.process_time()
    for candidate in candidates[_NUM_CANDIDATES:]:
        price(space, candidate, _METHOD, _NUM_CLASSES)
    return 1e6 * (time.process_time() - started) / _NUM_CANDIDATES


def _random_plan(rng: random.Random, batch_size: int, num_stretches: int) -> Plan:
    starts = [0, *sorted(rng.sample(range(1, 5), rng.randint(0, num_stretches - 1)))]
    stretches = tuple(
        Stretch(
            from_stage=start,
            micro_batch_size=rng.randint(1, batch_size),
            recomputes=start != starts[-1] and rng.random() < 0.5,
        )
        for start in starts
    )
    return Plan(batch_size=batch_size, stretches=stretches)


if __name__ == "__main__":
    main()
