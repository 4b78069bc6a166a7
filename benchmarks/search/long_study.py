"""How long a search of very many trials takes to propose a batch of four.

    python -m benchmarks.search.long_study [--trials 2000] [--json]

The space is that of a job with the bundled supernet; a candidate's accuracy is made up from what
it computes and some noise. A study is rebuilt from so many trials, drawn at random, as a job's
process does that takes over from another: its first ask learns all of them. Then the search goes
on for half as many more. Seconds on the clock, of the sampler of this project.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterable
from statistics import median

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.shared.machine import describe_machine
from search.elastic.supernet import load_supernet
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import SearchSpace
from search.space.lite_residual_sizes import SIZES
from search.study.optuna_trials import Finished, SamplerName
from search.study.study import BATCH_SIZE, Study
from search.supernets.registry import DEFAULT_SUPERNET
from service.settings import Settings
from tinytl.description.method import Method

_LIMIT_BYTES = 6_000_000
_NUM_CLASSES = 10
_NUM_IMAGES = 200
_NOISE = 0.01


class Search:
    """Studies of one space, and made-up accuracies."""

    def __init__(self) -> None:
        supernet = load_supernet(DEFAULT_SUPERNET, Settings().supernet_cache_dir.expanduser())
        self._space = SearchSpace(
            supernet=supernet.spec,
            resolutions=supernet.spec.resolutions,
            lite_residual_sizes=SIZES,
        )
        self._pricing = BulkPricing(self._space, Method.LITE_RESIDUAL_BIAS, _NUM_CLASSES)
        self._rng = random.Random(0)

    def study(self, sampler: SamplerName, finished: Iterable[Finished] = ()) -> Study:
        return Study(
            self._space,
            self._pricing,
            limit_bytes=_LIMIT_BYTES,
            chance=1 / _NUM_CLASSES,
            num_images=_NUM_IMAGES,
            seed=0,
            sampler=sampler,
            finished=finished,
        )

    def go_on(self, study: Study, num_trials: int) -> list[float]:
        """So many trials more; the seconds that each batch took to propose."""
        seconds = []
        for _ in range(0, num_trials, BATCH_SIZE):
            started = time.perf_counter()
            batch = study.ask(BATCH_SIZE)
            seconds.append(time.perf_counter() - started)
            for proposal in batch:
                accuracy = 0.1 * math.log10(proposal.macs) + self._rng.gauss(0, _NOISE)
                study.tell(proposal.number, accuracy, num_images=_NUM_IMAGES)
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="that there are (2000)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    search = Search()
    drawn = search.study.study("random")
    search.go_on(drawn, options.trials)
    rebuilt = search.study.study("predictor", drawn.finished)
    first, *others = search.go_on(rebuilt, options.trials // 2)
    found = {
        "trials": options.trials,
        "first_ask_seconds": first,
        "median_ask_seconds": median(others),
        "longest_ask_seconds": max(others),
    }
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<20} {value:.4g}")
    if options.json:
        print(json.dumps({"machine": describe_machine(), **found}))


if __name__ == "__main__":
    main()
