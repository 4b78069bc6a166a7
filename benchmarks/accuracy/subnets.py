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

from benchmarks.shared.runs import content_digest, ingest_dataset
from search.adaptation.adapt import AdaptSettings, adapt
from search.adaptation.adapted import AdaptedSupernet
from search.elastic.supernet import load_supernet
from search.space.candidates import Candidate, SearchSpace, sample_subnet
from search.space.lite_residual_sizes import NONE_OR_ANY, SIZES
from search.supernets.registry import DEFAULT_SUPERNET, SupernetFile, locate
from service.settings import Settings
from tinytl.description.config import LiteResidualSize
from tinytl.description.plan import Plan
from tinytl.training.data import ImageStore


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A dataset (a zip, or a folder of class folders), a supernet and how it is adapted; what
    resolutions the subnets may have, rising, and the batch size that they are trained with.

    Where the supernet is adapted for subnets without lite residual modules too, each subnet makes
    two candidates: one without and one with.
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
        size = LiteResidualSize()
        return SearchSpace(
            supernet=self.supernet_file.spec,
            resolutions=self.resolutions,
            lite_residual_sizes=(None, size) if self.is_mixed else (size,),
        )

    @property
    def is_mixed(self) -> bool:
        return None in self.adaptation.lite_residual_sizes

    def candidates(self, num_subnets: int) -> list[Candidate]:
        """Of each random subnet those with every size of the space, one after the other."""
        space, found = self.space, []
        for number in range(num_subnets):
            one = self.candidate(number)
            found += [replace(one, lite_residual=size) for size in space.lite_residual_sizes]
        return found

    def candidate(self, number: int) -> Candidate:
        """Random subnet number, the same in every setting of a supernet's architecture, at one of
        the resolutions, with the space's first size of lite residuals."""
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
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="each subnet without and with lite residual modules, as in jobs of method auto",
    )
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
                steps=arguments.adapt_steps,
                learning_rate=arguments.adapt_learning_rate,
                lite_residual_sizes=NONE_OR_ANY if arguments.mixed else SIZES,
            ),
        )
        for path in arguments.datasets
    ]


def _cache_dir() -> Path:
    return Settings().supernet_cache_dir.expanduser()
