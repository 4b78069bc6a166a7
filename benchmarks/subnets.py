"""Random subnets of a supernet that is adapted to a dataset, as a job adapts it."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from benchmarks.runs import content_digest, ingest_dataset
from search.adapt import AdaptSettings, adapt
from search.adapted import AdaptedSupernet
from search.registry import DEFAULT_SUPERNET, SupernetFile, locate
from search.space import Candidate, SearchSpace, sample_subnet
from search.supernet import load_supernet
from service.settings import Settings
from tinytl.data import ImageStore
from tinytl.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A dataset (a zip, or a folder of class folders), a supernet and how it is adapted; what
    resolutions the subnets may have, rising, and the batch size that they are trained with.
    """

    dataset: Path
    supernet: str = DEFAULT_SUPERNET
    resolutions: tuple[int, ...] = (48,)
    batch_size: int = 8
    adaptation: AdaptSettings = field(default_factory=AdaptSettings)

    @cached_property
    def supernet_file(self) -> SupernetFile:
        return locate(self.supernet, _cache_dir())

    @cached_property
    def digest(self) -> str:
        """Names everything here by its content: files may change under their names."""
        decisive = {
            "dataset": content_digest(self.dataset),
            "supernet": content_digest(self.supernet_file.path),
            "resolutions": self.resolutions,
            "batch_size": self.batch_size,
            "adaptation": asdict(self.adaptation),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(supernet=self.supernet_file.spec, resolutions=self.resolutions)

    def candidate(self, number: int) -> Candidate:
        """Random subnet number, the same in every setting of a supernet's architecture, at one of
        the resolutions."""
        rng = random.Random(f"subnet {number}")
        subnet = sample_subnet(self.supernet_file.spec, rng)
        candidate = self.space.candidate(subnet, rng.choice(self.resolutions))
        return replace(candidate, plan=Plan.whole(self.batch_size))


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A dataset's images, and the supernet adapted to them in so many seconds of the processor.

    images: where the store lies.
    """

    supernet: AdaptedSupernet
    store: ImageStore
    images: Path
    seconds: float


@contextmanager
def adapted_to(setting: Setting) -> Iterator[Adapted]:
    """The supernet adapted to the dataset; its images are gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        images = ingest_dataset(setting.dataset, setting.resolutions[-1], Path(directory))
        store = ImageStore.open(images)
        supernet = load_supernet(setting.supernet, _cache_dir())
        started = time.process_time()
        adapted = adapt(supernet, store, setting.resolutions, setting.adaptation)
        seconds = time.process_time() - started
        yield Adapted(supernet=adapted, store=store, images=images, seconds=seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison of subnets."""
    adaptation = AdaptSettings()
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--supernet", default=DEFAULT_SUPERNET, help="name or path")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[48])
    parser.add_argument("--batch-size", type=int, default=8, help="of training")
    parser.add_argument("--subnets", type=int, default=20, help="how many")
    parser.add_argument("--adapt-steps", type=int, default=adaptation.steps)
    parser.add_argument("--adapt-learning-rate", type=float, default=adaptation.learning_rate)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def settings_of(arguments: argparse.Namespace) -> list[Setting]:
    """One for each dataset."""
    return [
        Setting(
            dataset=path,
            supernet=arguments.supernet,
            resolutions=tuple(arguments.resolutions),
            batch_size=arguments.batch_size,
            adaptation=AdaptSettings(
                steps=arguments.adapt_steps, learning_rate=arguments.adapt_learning_rate
            ),
        )
        for path in arguments.datasets
    ]


def _cache_dir() -> Path:
    return Settings().supernet_cache_dir.expanduser()
