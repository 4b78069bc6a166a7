"""How good samplers are at finding the memory-accuracy front with few evaluations.

    python -m benchmarks.search.samplers [--predictor FILE.safetensors] [--dataset DATA.zip]
    [--json]
                                [--plots DIR] [--peers [NAME ...]]

Landscapes: see benchmarks.search.landscapes; without --predictor that of OFA's predictor is left
out. Each has three memory limits, at 25, 50 and 75 % of the way from the smallest candidate's lean
peak to the largest one's. Every searcher has five seeds: random search, Optuna's TPE, NSGA-II and
GP (benchmarks.search.searchers.peers), evolution over a predictor as in OFA and as in LINAS
(benchmarks.search.searchers.evolution), and this project's sampler, asked one by one and in
batches of 4,
as jobs ask it.

Figures are means and standard deviations over the seeds, after so many evaluations and after so
much time, proposing and scoring, in one thread: the best accuracy that fits, and the hypervolume:
the area between the front and the point (limit, accuracy of guessing), as a share of that of the
best front known. That is the whole table's, or what benchmarks.search.best found.

Ours is carried out each time, one by one up to 100 evaluations. The peers always come out the
same and take hours, GP above all (which therefore stops at 100 evaluations), so they are replayed
from benchmarks/search/data/peers.json.gz; --peers, with --predictor, carries them (or those named)
out and writes that anew; what has not been recorded is left out. The record is refused where the
landscapes are not those that it was made on.

Scoring time is measured on --dataset, adapted and scored as a table's candidates are; else it is
the mean of the tables', as recorded there. The last line of --json holds hypervolume_ratio (ours
after 100 evaluations to the best peer's after 250, the least over landscapes and limits),
regret_points (by how much ours is below the best accuracy known after 100, the most over
landscapes that are free of noise), sampler_share (time spent on proposing over time spent on
scoring, in 500 trials by 4) and the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.search.best import BEST, best_of_table
from benchmarks.search.figures import panels_of, rows, summary, tables
from benchmarks.search.landscapes import PREDICTOR, Landscape
from benchmarks.search.plots import draw
from benchmarks.search.problem import Problem
from benchmarks.search.runs import (
    LIMIT_SHARES,
    OURS,
    PEERS,
    TABLES,
    carry_out_all,
    landscape_named,
    runs,
)
from benchmarks.search.searchers.ours import OurSearcher
from benchmarks.search.tables import FOLDER, Table, measure_score_seconds
from benchmarks.search.traces import RECORD, StaleRecordError, Trace, carry_out, load, save
from benchmarks.shared.machine import describe_machine

_SHARE_TRIALS = 500


def main() -> None:
    try:
        _compare(_parse_arguments())
    except StaleRecordError as error:
        sys.exit(f"benchmarks.search.samplers: {error}")


def _compare(arguments: argparse.Namespace) -> None:
    names = [*([PREDICTOR] if arguments.predictor else []), *TABLES]
    landscapes = {name: landscape_named(name, arguments.predictor) for name in names}
    skipped = (
        {} if arguments.predictor else {PREDICTOR: "needs --predictor, OFA's as .safetensors"}
    )
    for name, reason in skipped.items():
        print(f"{name} is skipped: {reason}")

    digests = {name: landscape.digest for name, landscape in landscapes.items()}
    if arguments.peers is None:
        peers = load(RECORD, digests.get)
        print(f"peers: replayed from {RECORD.name}")
    else:
        again = arguments.peers or PEERS
        kept = [] if set(again) == set(PEERS) else load(RECORD, digests.get)
        peers = [trace for trace in kept if trace.searcher not in again]
        peers += carry_out_all(runs(again, names, arguments.predictor), arguments.processes, _say)
        save(peers, digests, describe_machine(), RECORD)
        print(f"peers: {', '.join(again)} carried out, and recorded in {RECORD.name}")
    ours = carry_out_all(runs(OURS, names, arguments.predictor), arguments.processes, _say)

    score_seconds, scored_on = _score_seconds(arguments.dataset)
    facts = {
        (name, share): _facts(landscape, share) | {"score_seconds": score_seconds}
        for name, landscape in landscapes.items()
        for share in LIMIT_SHARES
    }
    panels = panels_of([*peers, *ours], facts)
    for line in tables(panels):
        print(line)
    if arguments.plots:
        draw(panels, arguments.plots)
    proposing = _proposing_seconds(landscapes[names[0]])
    figures: dict[str, Any] = {
        **summary(panels),
        "sampler_share": proposing / (_SHARE_TRIALS * score_seconds),
        "score_seconds": score_seconds,
        "scored_on": scored_on,
        "proposing_seconds": proposing,
    }
    print()
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.json:
        machine = describe_machine()
        print(
            json.dumps(
                {"machine": machine, "skipped": skipped, **figures, "rows": [*rows(panels)]}
            )
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predictor", type=Path, help="OFA's of ImageNet, as .safetensors")
    parser.add_argument("--dataset", type=Path, help="zip or folder to measure scoring time on")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, help="carry these out, or all, and record them"
    )
    parser.add_argument("--processes", type=int, default=2, help="searches side by side")
    parser.add_argument("--plots", type=Path, help="folder that SVGs are written to")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    if arguments.peers is not None and arguments.predictor is None:
        parser.error("--peers needs --predictor: the record is of all landscapes")
    return arguments


def _facts(landscape: Landscape, share: float) -> dict[str, Any]:
    if landscape.name == PREDICTOR:
        if not BEST.exists():
            raise StaleRecordError(f"there is no {BEST.name}: run benchmarks.search.best")
        best = json.loads(BEST.read_text())
        if best["digest"] != landscape.digest:
            raise StaleRecordError(
                f"{BEST.name} is of another landscape: digest {best['digest'][:12]}, but it is "
                f"{landscape.digest[:12]} now; run benchmarks.search.best"
            )
        accuracy, area = (best["limits"][str(share)][k] for k in ("accuracy", "hypervolume"))
    else:
        accuracy, area = best_of_table(landscape, share)
    return {
        "limit_bytes": landscape.limit_bytes(share),
        "best_accuracy": accuracy,
        "best_hypervolume": area,
        "is_noise_free": landscape.num_images is None,
    }


def _score_seconds(dataset: Path | None) -> tuple[float, str]:
    """Processor time of scoring a candidate, and what it was measured on."""
    if dataset is not None:
        return measure_score_seconds(dataset), f"{dataset.stem}, measured now"
    recorded = [Table.read(FOLDER / f"{name}.json").score_seconds for name in TABLES]
    return sum(recorded) / len(recorded), "the tables, as recorded with them"


def _proposing_seconds(landscape: Landscape) -> float:
    problem = Problem(landscape=landscape, limit_share=0.5)
    searcher = OurSearcher(problem, 0, batch_size=4)
    return carry_out(problem, searcher, [_SHARE_TRIALS])[2][0]


def _say(trace: Trace) -> None:
    print(
        f"{trace.landscape} {trace.limit_share:.0%} {trace.searcher} seed {trace.seed}: "
        f"{trace.accuracy[-1]:.4f} in {trace.seconds[-1]:.1f} s",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
