"""Which batch norm statistics carry a supernet's subnets: shipped, recalibrated or matched.

    python -m benchmarks.accuracy.statistics DATA.zip [DATA.zip ...] [--supernet ID]
        [--resolution 96] [--seeds 1] [--results FILE] [--json]

Shipped ones are the supernet's own; recalibrated and matched ones are found on 128 training images
(search.elastic.supernet, search.elastic.matching). Nothing is trained: the features of each
subnet, its frozen weights in 8 bits, are judged by ridge regression on one-hot labels of the
training and validation images, its strength chosen by leaving out one image at a time; and that by
the test images. The seed draws the random subnets. What is finished is kept in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import torch
from torch import Tensor

from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import content_digest, digest_of, ingest_dataset
from search.adaptation.adapted import CALIBRATION_IMAGES, calibration_batches
from search.elastic.matching import match, targets_of
from search.elastic.supernet import Supernet, load_supernet_file
from search.space.architecture import Subnet, SupernetSpec
from search.space.candidates import sample_subnet
from search.supernets.registry import locate
from service.settings import Settings
from tinytl.description.method import Method
from tinytl.engine.network import Network, build_network
from tinytl.training.data import ImageSplit, ImageStore

KINDS = ("shipped", "recalibrated", "matched")
_NUM_RANDOM = 2
_BATCH = 64
_STRENGTHS = [10.0**power for power in range(-2, 6)]
"""Of the ridge, over the mean eigenvalue of the features' products."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A dataset's images at a resolution, and the subnets of a supernet that a seed draws."""

    dataset: Path
    supernet: str
    resolution: int
    seed: int

    def key(self) -> str:
        decisive = [
            content_digest(self.dataset),
            content_digest(locate(self.supernet, _cache_directory()).path),
        ]
        words = f"{self.dataset.stem} {self.supernet} {self.resolution} {self.seed}"
        return f"{words} {digest_of(decisive)[:12]}"


def main() -> None:
    arguments = _parse_arguments()
    kept = ResultsFile(arguments.results)
    cases = [
        Case(
            dataset=dataset,
            supernet=arguments.supernet,
            resolution=arguments.resolution,
            seed=seed,
        )
        for seed in range(arguments.seeds)
        for dataset in arguments.datasets
    ]
    for case in cases:
        if case.key() not in kept:
            kept.put(case.key(), accuracies_of(case))
            print(f"{case.key()}: {kept[case.key()]}", flush=True)
    rows = _rows(cases, kept)
    _print_table(rows)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def accuracies_of(case: Case) -> dict[str, dict[str, float]]:
    """By the subnet's name and the kind of statistics: test accuracy, 0 to 1."""
    supernet = load_supernet_file(locate(case.supernet, _cache_directory()))
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        store = ImageStore.open(ingest_dataset(case.dataset, case.resolution, Path(directory)))
        batches = list(_batches(supernet.spec, store, case.resolution))
        targets = targets_of(supernet, batches)
        for name, subnet in subnets_of(supernet.spec, case.seed).items():
            found[name] = {}
            for kind in KINDS:
                if kind == "matched":
                    weights = match(supernet, subnet, batches, targets)
                    network = _built(supernet, subnet, weights)
                elif kind == "recalibrated":
                    before = {k: v.clone() for k, v in supernet.network.state_dict().items()}
                    supernet.recalibrate(subnet, batches)
                    network = _built(supernet, subnet, {})
                    torch.nn.Module.load_state_dict(supernet.network, before)
                else:
                    network = _built(supernet, subnet, {})
                found[name][kind] = probe(network, store, case.resolution)
    return found


def subnets_of(spec: SupernetSpec, seed: int) -> dict[str, Subnet]:
    """The full network; with one of its dimensions cut down, step by step; random ones."""
    kernel_sizes, expand_ratios, depths = spec.kernel_sizes, spec.expand_ratios, spec.depths
    largest = (kernel_sizes[-1], expand_ratios[-1], depths[-1])
    named = {"full": spec.uniform(*largest)}
    for depth in reversed(depths[:-1]):
        named[f"depth {depth}"] = spec.uniform(*largest[:2], depth)
    for kernel_size in reversed(kernel_sizes[:-1]):
        named[f"kernel {kernel_size}"] = spec.uniform(kernel_size, *largest[1:])
    for expand_ratio in reversed(expand_ratios[:-1]):
        named[f"expand {expand_ratio}"] = spec.uniform(largest[0], expand_ratio, largest[2])
    rng = random.Random(seed)
    for number in range(_NUM_RANDOM):
        named[f"random {number + 1}"] = sample_subnet(spec, rng)
    return named


def _batches(spec: SupernetSpec, store: ImageStore, resolution: int) -> Iterator[Tensor]:
    device = torch.device("cpu")
    return calibration_batches(store, resolution, CALIBRATION_IMAGES, spec.normalization, device)


def _built(supernet: Supernet, subnet: Subnet, norms: dict[str, Tensor]) -> Network:
    config, weights = supernet.extract(subnet)
    if supernet.num_classes == 0:
        config = supernet.spec.network_config(subnet, 2)
        weights["classifier.linear.weight"] = torch.zeros(2, config.feature_mix.out_channels)
        weights["classifier.linear.bias"] = torch.zeros(2)
    return build_network(config, Method.HEAD, {**weights, **norms})


def probe(network: Network, store: ImageStore, resolution: int) -> float:
    """Test accuracy of ridge regression on the network's features."""
    known = [store.split("train"), store.split("val")]
    x = torch.cat([_features(network, split, resolution) for split in known])
    labels = torch.cat([split.labels_of(range(len(split))) for split in known])
    test = store.split("test")
    test_x = _features(network, test, resolution)
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    x, test_x = ((each - centre) / scale for each in (x, test_x))
    y = torch.nn.functional.one_hot(labels, store.num_classes).double()
    offset = y.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(x @ x.T)
    rotated = vectors.T @ (y - offset)
    best, best_strength = -1, 0.0
    for strength in _STRENGTHS:
        share = eigenvalues / (eigenvalues + strength * eigenvalues.mean())
        leverage = (vectors**2 @ share)[:, None]
        fitted = vectors @ (share[:, None] * rotated)
        left_out = y - (y - offset - fitted) / (1 - leverage).clamp(min=1e-6)
        right = int((left_out.argmax(1) == labels).sum())
        if right > best:
            best, best_strength = right, strength
    damped = eigenvalues + best_strength * eigenvalues.mean()
    answers = test_x @ (x.T @ (vectors @ (rotated / damped[:, None]))) + offset
    right = answers.argmax(1) == test.labels_of(range(len(test)))
    return float(right.double().mean())


@torch.no_grad()
def _features(network: Network, split: ImageSplit, resolution: int) -> Tensor:
    """(N, F)."""
    found = []
    for start in range(0, len(split), _BATCH):
        x = split.batch(range(start, min(start + _BATCH, len(split))), resolution)
        for part in network.parts:
            x = part.forward(x)
        found.append(x)
    return torch.cat(found).double()


def _rows(cases: list[Case], kept: ResultsFile) -> list[dict[str, object]]:
    """Percent by dataset, subnet and kind, the mean of the seeds; random subnets together."""
    by: defaultdict[tuple[str, str], defaultdict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for case in cases:
        for name, of_kinds in kept[case.key()].items():
            for kind, accuracy in of_kinds.items():
                subnet = "random" if name.startswith("random") else name
                for dataset in (case.dataset.stem, "mean"):
                    by[dataset, subnet][kind].append(100 * accuracy)
    return [
        {
            "dataset": dataset,
            "subnet": subnet,
            **{kind: round(mean(values), 2) for kind, values in of_kinds.items()},
            "gain_error": _error(of_kinds["matched"], of_kinds["recalibrated"]),
        }
        for (dataset, subnet), of_kinds in by.items()
    ]


def _error(ones: list[float], others: list[float]) -> float | None:
    """Standard error of the mean difference."""
    differences = [one - other for one, other in zip(ones, others, strict=True)]
    return None if len(differences) < 2 else round(stdev(differences) / len(differences) ** 0.5, 2)


def _print_table(rows: list[dict[str, object]]) -> None:
    print(f"| dataset | subnet | {' | '.join(KINDS)} | matched less recalibrated, error |")
    print("|---" * (len(KINDS) + 3) + "|")
    for row in sorted(rows, key=lambda row: row["dataset"] != "mean"):
        values = " | ".join(f"{row[kind]:.1f}" for kind in KINDS)
        print(f"| {row['dataset']} | {row['subnet']} | {values} | {row['gain_error']} |")


def _cache_directory() -> Path:
    return Settings().supernet_cache_dir.expanduser()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--supernet", default="efficientnet_lite0", help="name or path")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--results", type=Path, default=Path("build/statistics.json"))
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
