"""Tables of accuracies to search in: every candidate of a small space, scored on one dataset.

    python -m benchmarks.search.tables DATA.zip [DATA.zip ...] [--folder DIR]

The bundled supernet is adapted to the dataset, as a job adapts it, at all resolutions of the
space; with lite residuals of one size, which all candidates have. Then every candidate is scored
as a job scores it (search.adaptation.score).
The space is the depth of each stage, one kernel size and one expand ratio for all blocks, and the
resolution: 4,374 candidates.

A table is a small JSON file that holds how many images each candidate got right, in the order of
itertools.product over the choices, and what it was made of; no image is in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import content_digest, ingest_dataset
from search.adaptation.adapt import AdaptSettings, adapt
from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.score import score
from search.elastic.supernet import load_supernet
from search.space.architecture import Subnet, SupernetSpec
from search.space.candidates import Candidate, SearchSpace
from search.supernets.registry import DEFAULT_SUPERNET, locate
from service.settings import Settings
from tinytl.description.config import LiteResidualSize
from tinytl.training.data import ImageStore

FOLDER = Path(__file__).parent / "data"
RESOLUTIONS = (48, 64)
_NUM_MEASURED = 50
_ADAPTATION = AdaptSettings(lite_residual_sizes=(LiteResidualSize(),))


@dataclass(frozen=True, kw_only=True)
class Table:
    """correct: images of num_images that each candidate of table_choices got right.

    score_seconds: processor time of scoring one candidate, in one thread.
    """

    dataset: str
    dataset_digest: str
    num_classes: int
    num_images: int
    supernet: str
    supernet_digest: str
    adaptation: dict[str, Any]
    choices: dict[str, list[int]]
    score_seconds: float
    machine: dict[str, Any]
    correct: list[int]

    @staticmethod
    def read(path: Path) -> Table:
        return Table(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), separators=(",", ":")) + "\n")


def table_choices(spec: SupernetSpec) -> dict[str, tuple[int, ...]]:
    """What a table's candidates differ in, each choice with its values."""
    return {
        **{f"depth_{i}": stage.depths for i, stage in enumerate(spec.stages)},
        "kernel_size": spec.kernel_sizes,
        "expand_ratio": spec.expand_ratios,
        "resolution": RESOLUTIONS,
    }


def table_candidate(space: SearchSpace, values: tuple[int, ...]) -> Candidate:
    """The candidate with these values of table_choices."""
    *depths, kernel_size, expand_ratio, resolution = values
    num_blocks = space.supernet.num_dynamic_blocks
    subnet = Subnet(
        kernel_sizes=(kernel_size,) * num_blocks,
        expand_ratios=(expand_ratio,) * num_blocks,
        depths=tuple(depths),
    )
    return space.candidate(subnet, resolution)


def make_table(dataset: Path) -> Table:
    """Adapt the bundled supernet to a zip or folder, and score every candidate."""
    with _adapted_to(dataset) as (adapted, store):
        space = SearchSpace(supernet=adapted.spec, resolutions=RESOLUTIONS)
        choices = table_choices(adapted.spec)
        rows = list(itertools.product(*choices.values()))
        correct = []
        started = time.process_time()
        for number, values in enumerate(rows):
            if number % 500 == 0:
                print(f"{dataset.stem}: {number} of {len(rows)}", file=sys.stderr, flush=True)
            correct.append(_count_correct(adapted, table_candidate(space, values), store))
        seconds = time.process_time() - started
        return Table(
            dataset=dataset.stem,
            dataset_digest=content_digest(dataset),
            num_classes=adapted.num_classes,
            num_images=len(store.split("val")),
            supernet=DEFAULT_SUPERNET,
            supernet_digest=content_digest(locate(DEFAULT_SUPERNET, _cache_dir()).path),
            adaptation=asdict(_ADAPTATION),
            choices={name: list(values) for name, values in choices.items()},
            score_seconds=round(seconds / len(rows), 4),
            machine=describe_machine(),
            correct=correct,
        )


def measure_score_seconds(dataset: Path) -> float:
    """Processor time of scoring a candidate, the mean of 50, in one thread."""
    with _adapted_to(dataset) as (adapted, store):
        space = SearchSpace(supernet=adapted.spec, resolutions=RESOLUTIONS)
        rows = list(itertools.product(*table_choices(adapted.spec).values()))
        chosen = random.Random(0).sample(rows, _NUM_MEASURED)
        started = time.process_time()
        for values in chosen:
            _count_correct(adapted, table_candidate(space, values), store)
        return (time.process_time() - started) / _NUM_MEASURED


@contextmanager
def _adapted_to(dataset: Path) -> Iterator[tuple[AdaptedSupernet, ImageStore]]:
    """The bundled supernet, adapted as a job would; the images are gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        store = ImageStore.open(ingest_dataset(dataset, RESOLUTIONS[-1], Path(directory)))
        supernet = load_supernet(DEFAULT_SUPERNET, _cache_dir())
        yield adapt(supernet, store, RESOLUTIONS, _ADAPTATION), store


def _cache_dir() -> Path:
    return Settings().supernet_cache_dir.expanduser()


def _count_correct(adapted: AdaptedSupernet, candidate: Candidate, store: ImageStore) -> int:
    return int(score(adapted, candidate, store).correct.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where tables are written")
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        table = make_table(dataset)
        path = arguments.folder / f"{table.dataset}.json"
        table.write(path)
        shares = [count / table.num_images for count in table.correct]
        print(f"{path}: {min(shares):.3f} to {max(shares):.3f}, {table.score_seconds:.3f} s each")


if __name__ == "__main__":
    main()
