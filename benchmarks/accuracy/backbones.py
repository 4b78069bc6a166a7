"""The candidate that a job chooses against the best fixed backbone, both trained, on real data.

    python -m benchmarks.accuracy.backbones DATA.zip [DATA.zip ...] [--results FILE] [--json]

For each dataset and seed the supernet is adapted as a job adapts it. Limits are 25, 50 and 75 %
of the way from the least memory that any candidate takes to what the largest takes at its leanest.
For each limit, from the largest on, a search scores candidates, and goes on from the scores of the
limits before, as a job would. The one that it chooses and the fixed backbone are then trained
alike, each with the fastest plan within the limit, and tested.

The fixed backbone is the largest uniform subnet within the limit: one kernel size, expand ratio
and depth everywhere, with the resolution and the size of lite residuals that give it the most
multiply-accumulates.

Finished trainings and searches are kept in --results: a command that was stopped goes on where it
is run again. Delete the file after a change of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np

from benchmarks.accuracy.subnet_trainings import Training
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.paired import paired_difference
from benchmarks.shared.runs import content_digest, ingest_dataset
from search.adaptation.adapt import AdaptSettings, adapt
from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.score import score
from search.elastic.supernet import load_supernet
from search.pretraining.processes import end_with_parent
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import Candidate, SearchSpace
from search.space.encoding import Encoding
from search.space.lite_residual_sizes import SIZES
from search.space.pricing import fastest_fit, smallest_feasible
from search.study.optuna_trials import Finished
from search.study.study import Study
from search.supernets.registry import DEFAULT_SUPERNET, SupernetFile, locate
from service.contract.requests import JobSettings
from service.settings import Settings
from tinytl.description.method import Method
from tinytl.training.data import ImageStore
from tinytl.training.train import TrainSettings

_METHOD = Method.LITE_RESIDUAL_BIAS
_SHARES = (0.75, 0.5, 0.25)
_NO_LIMIT = 10**15
_MILLION = 10**6


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A dataset and a seed, and how candidates are searched and trained."""

    dataset: Path
    seed: int
    supernet: str
    resolutions: tuple[int, ...]
    trials: int
    epochs: int
    adapt_steps: int

    @cached_property
    def key(self) -> str:
        """Names the comparison by everything that decides its outcome, but the code."""
        decisive = {
            **asdict(self),
            "dataset": content_digest(self.dataset),
            "supernet": content_digest(self._supernet_file.path),
        }
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return f"{self.dataset.stem} {self.seed} {digest[:16]}"

    @property
    def _supernet_file(self) -> SupernetFile:
        return locate(self.supernet, _cache_dir())

    def run(self) -> dict[str, Any]:
        """A row for each limit."""
        with tempfile.TemporaryDirectory() as directory:
            images = ingest_dataset(self.dataset, self.resolutions[-1], Path(directory))
            prepared = self._prepare(images)
            return {"rows": [self._row(prepared, share) for share in _SHARES]}

    def _prepare(self, images: Path) -> _Prepared:
        store = ImageStore.open(images)
        adapted = adapt(
            load_supernet(self.supernet, _cache_dir()),
            store,
            self.resolutions,
            AdaptSettings(method=_METHOD, steps=self.adapt_steps, seed=self.seed),
        )
        saved = images.with_name("adapted.safetensors")
        adapted.save(saved)
        space = SearchSpace(
            supernet=adapted.spec, resolutions=self.resolutions, lite_residual_sizes=SIZES
        )
        return _Prepared(
            images=images,
            store=store,
            adapted=adapted,
            saved=saved,
            space=space,
            pricing=BulkPricing(space, _METHOD, store.num_classes),
        )

    def _row(self, prepared: _Prepared, share: float) -> dict[str, Any]:
        limit_bytes = prepared.limit_bytes(share)
        best, seconds = self._search(prepared, limit_bytes)
        chosen = prepared.fit(best.candidate, limit_bytes)
        assert chosen is not None, "what a search chooses fits"
        backbone = prepared.backbone(limit_bytes)
        return {
            "dataset": self.dataset.stem,
            "seed": self.seed,
            "share": share,
            "limit_bytes": limit_bytes,
            "search_seconds": seconds,
            "score": best.accuracy,
            "chosen": prepared.describe(chosen) | self._train(prepared, chosen),
            "backbone": prepared.describe(backbone) | self._train(prepared, backbone),
        }

    def _search(self, prepared: _Prepared, limit_bytes: int) -> tuple[Finished, float]:
        """What a job would choose, and the seconds of the processor that it takes."""
        earlier = prepared.scored
        study = Study(
            prepared.space,
            prepared.pricing,
            limit_bytes=limit_bytes,
            seed=self.seed,
            num_images=len(prepared.store.split("val")),
            chance=1 / prepared.store.num_classes,
            finished=earlier,
            num_inherited=len(earlier),
        )
        started = time.process_time()
        num_trials = len(earlier) + self.trials
        while study.num_finished < num_trials:
            for proposal in study.ask(num_trials - study.num_finished):
                found = score(prepared.adapted, proposal.candidate, prepared.store, seed=self.seed)
                study.tell(proposal.number, found.accuracy, loss=found.loss)
        prepared.scored = study.finished
        return study.best(), time.process_time() - started

    def _train(self, prepared: _Prepared, candidate: Candidate) -> dict[str, float]:
        if candidate not in prepared.trained:
            training = Training(
                adapted=prepared.saved,
                images=prepared.images,
                candidate=candidate,
                settings=TrainSettings(epochs=self.epochs, seed=self.seed),
            )
            prepared.trained[candidate] = asdict(training.run())
        return prepared.trained[candidate]


@dataclass(kw_only=True)
class _Prepared:
    """What the limits of a comparison share. scored, trained: what there is up to now."""

    images: Path
    store: ImageStore
    adapted: AdaptedSupernet
    saved: Path
    space: SearchSpace
    pricing: BulkPricing
    scored: list[Finished] = field(default_factory=list)
    trained: dict[Candidate, dict[str, float]] = field(default_factory=dict)

    def limit_bytes(self, share: float) -> int:
        """That share of the way from the smallest candidate to the largest, which has the lite
        residuals that take most."""
        _, least_bytes = smallest_feasible(self.space, _METHOD, self.store.num_classes)
        top = self.space.largest()
        largest = [
            self.space.candidate(top.subnet, top.resolution, size)
            for size in self.space.lite_residual_sizes
        ]
        most_bytes = max(self.pricing.lean(each, _NO_LIMIT)[1] for each in largest)
        return round(least_bytes + share * (most_bytes - least_bytes))

    def fit(self, candidate: Candidate, limit_bytes: int) -> Candidate | None:
        found = fastest_fit(candidate, self.pricing.price_bytes, limit_bytes)
        return None if found is None else found[0]

    def backbone(self, limit_bytes: int) -> Candidate:
        candidates = [
            self.space.candidate(subnet, side, size)
            for subnet in self.space.supernet.uniform_subnets
            for side in self.space.resolutions
            for size in self.space.lite_residual_sizes
        ]
        macs = self.pricing.macs(Encoding(self.space).rows(candidates))
        fits = (self.fit(candidates[index], limit_bytes) for index in np.argsort(-macs))
        return next(found for found in fits if found is not None)

    def describe(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "peak_bytes": self.pricing.price_bytes(candidate),
            "macs": int(self.pricing.macs(Encoding(self.space).rows([candidate]))[0]),
            "resolution": candidate.resolution,
            "depths": list(candidate.subnet.depths),
            "plan": candidate.plan.describe(),
        }


def main() -> None:
    arguments = _parse_arguments()
    comparisons = [
        Comparison(
            dataset=path,
            seed=seed,
            supernet=arguments.supernet,
            resolutions=tuple(arguments.resolutions),
            trials=arguments.trials,
            epochs=arguments.epochs,
            adapt_steps=arguments.adapt_steps,
        )
        for seed in range(arguments.seeds)
        for path in arguments.datasets
    ]
    kept = ResultsFile(arguments.results)
    missing = [each for each in comparisons if each.key not in kept]
    _say(f"{len(missing)} of {len(comparisons)} comparisons to do; kept in {arguments.results}")
    with ProcessPoolExecutor(
        arguments.processes, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        futures = {pool.submit(each.run): each for each in missing}
        for future in as_completed(futures):
            done = futures[future]
            kept.put(done.key, future.result())
            _say(f"{done.dataset.stem} seed {done.seed} is done")
    rows = [row for each in comparisons for row in kept[each.key]["rows"]]
    differences = _print_tables(rows)
    if arguments.json:
        answer = {"machine": describe_machine(), "rows": rows, "differences": differences}
        print(json.dumps(answer))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    settings = JobSettings()
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--supernet", default=DEFAULT_SUPERNET, help="name or path")
    parser.add_argument("--resolutions", type=int, nargs="+", default=(48, 64, 80, 96))
    parser.add_argument("--trials", type=int, default=settings.trials, help="for each limit")
    parser.add_argument("--epochs", type=int, default=settings.epochs)
    parser.add_argument("--adapt-steps", type=int, default=settings.adapt_steps)
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="side by side")
    parser.add_argument("--results", type=Path, default=Path("build/backbones.json"))
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


def _print_tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies, and by share of the span how far the chosen ones are above."""
    print("Test accuracy in percent, mean over seeds: chosen / fixed backbone (difference)\n")
    shares = sorted(_SHARES)
    print("| dataset | " + " | ".join(f"{share:.0%} of the span" for share in shares) + " |")
    print("|---" * (len(shares) + 1) + "|")
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    for name in names:
        cells = []
        for share in shares:
            pair = [_accuracies(rows, name, share, who) for who in ("chosen", "backbone")]
            ours, theirs = (100 * mean(values) for values in pair)
            cells.append(f"{ours:.1f} / {theirs:.1f} ({ours - theirs:+.1f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\nPoints above the backbone, paired by dataset and seed; standard errors as in")
    print(
        "benchmarks.accuracy.transfer. Means of MB at the peak, and of millions of "
        "multiply-accumulates.\n"
    )
    head = ("span", "points", "error over datasets", "error over seeds", "datasets above")
    print("| " + " | ".join((*head, "MB", "M MACs")) + " |")
    print("|---" * (len(head) + 2) + "|")
    differences = {}
    for label, of in [*((f"{share:.0%}", (share,)) for share in shares), ("all", tuple(shares))]:
        ours, theirs = (
            [
                np.mean([_accuracies(rows, name, share, who) for share in of], axis=0).tolist()
                for name in names
            ]
            for who in ("chosen", "backbone")
        )
        difference = paired_difference(ours, theirs)
        differences[label] = asdict(difference)
        errors = (difference.dataset_error, difference.seed_error)
        sizes = [
            " / ".join(
                f"{mean(r[who][what] for r in rows if r['share'] in of) / _MILLION:.1f}"
                for who in ("chosen", "backbone")
            )
            for what in ("peak_bytes", "macs")
        ]
        cells = [
            f"{100 * difference.mean:+.1f}",
            *("-" if error is None else f"{100 * error:.1f}" for error in errors),
            f"{difference.num_above} of {len(names)}",
            *sizes,
        ]
        print(f"| {label} | " + " | ".join(cells) + " |")
    return differences


def _accuracies(
    rows: Sequence[Mapping[str, Any]], dataset: str, share: float, who: str
) -> list[float]:
    """By seed."""
    return [
        row[who]["test_accuracy"]
        for row in rows
        if row["dataset"] == dataset and row["share"] == share
    ]


def _cache_dir() -> Path:
    return Settings().supernet_cache_dir.expanduser()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
