"""Two methods compared on the same datasets with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev, variance


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one method is above another, in the accuracies' unit.

    mean: over datasets, of each dataset's mean over seeds. dataset_error: standard error of that
    mean, from how much datasets differ: a confidence for datasets not seen. The seeds of a
    dataset are not counted as if they were datasets of their own. seed_error: standard error if
    only the seeds were drawn again. None where there are too few to tell. num_above: datasets
    on which it is above.
    """

    mean: float
    dataset_error: float | None
    seed_error: float | None
    num_above: int


def paired_difference(
    ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> Difference:
    """ones less others: for each dataset the accuracies by seed, in the same order."""
    by_dataset = [
        [one - other for one, other in zip(its_ones, its_others, strict=True)]
        for its_ones, its_others in zip(ones, others, strict=True)
    ]
    means = [mean(differences) for differences in by_dataset]
    num_datasets = len(by_dataset)
    dataset_error = seed_error = None
    if num_datasets > 1:
        dataset_error = stdev(means) / math.sqrt(num_datasets)
    if all(len(differences) > 1 for differences in by_dataset):
        of_means = [variance(differences) / len(differences) for differences in by_dataset]
        seed_error = math.sqrt(sum(of_means)) / num_datasets
    return Difference(
        mean=mean(means),
        dataset_error=dataset_error,
        seed_error=seed_error,
        num_above=sum(value > 0 for value in means),
    )
