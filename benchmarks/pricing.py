"""What pricing a candidate takes: microseconds, its network's description included.

    python -m benchmarks.pricing [--json]

Random subnets with random resolutions and random plans of the planner's menu, no two alike, lite
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
from tinytl.planner import plans
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
        found = _microseconds(space)
        row = {"supernet": supernet, "candidates": _NUM_CANDIDATES, "microseconds": found}
        rows.append(row)
        print(f"{supernet}: {found:.0f} us a candidate")
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


if __name__ == "__main__":
    main()
