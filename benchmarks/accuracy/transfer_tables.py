"""What benchmarks.accuracy.transfer makes of its outcomes: the choice of learning rates, and the
tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.shared.paired import Difference, paired_difference
from benchmarks.shared.runs import Outcome
from tinytl.description.method import Method
from tinytl.measurement.measure import Measurement

_OURS = Method.LITE_RESIDUAL_BIAS
_MB = 10**6


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method at a learning rate: its outcomes for each dataset, by seed."""

    method: Method
    learning_rate: float
    outcomes: Mapping[Path, Sequence[Outcome]]

    @property
    def validation_accuracy(self) -> float:
        return self._mean(lambda outcome: outcome.validation_accuracy)

    @property
    def test_accuracy(self) -> float:
        return self._mean(lambda outcome: outcome.test_accuracy)

    @property
    def seconds(self) -> float:
        return self._mean(lambda outcome: outcome.seconds)

    def _mean(self, figure: Callable[[Outcome], float]) -> float:
        return mean(mean(map(figure, found)) for found in self.outcomes.values())

    def test_accuracies(self) -> list[list[float]]:
        return [[outcome.test_accuracy for outcome in found] for found in self.outcomes.values()]

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method.value,
            "learning_rate": self.learning_rate,
            "validation_accuracy": self.validation_accuracy,
            "test_accuracy": self.test_accuracy,
            "seconds": self.seconds,
        }


def best_by_validation(tried: Sequence[Entry]) -> list[Entry]:
    """Of each method the entry of the best mean validation accuracy."""
    best: dict[Method, Entry] = {}
    for entry in tried:
        rival = best.get(entry.method)
        if rival is None or entry.validation_accuracy > rival.validation_accuracy:
            best[entry.method] = entry
    return list(best.values())


def differences_of(entries: Sequence[Entry]) -> dict[Method, Difference]:
    """How far lite_residual+bias is above each other method; empty where it is not among them."""
    by_method = {entry.method: entry.test_accuracies() for entry in entries}
    ours = by_method.pop(_OURS, None)
    if ours is None:
        return {}
    return {method: paired_difference(ours, theirs) for method, theirs in by_method.items()}


def rows_of(
    entry: Entry, memory: Mapping[tuple[Method, Path], Measurement]
) -> list[dict[str, Any]]:
    """A row of the JSON for each dataset."""
    return [
        {
            "dataset": path.stem,
            "method": entry.method.value,
            "learning_rate": entry.learning_rate,
            "num_classes": found[0].num_classes,
            "test_accuracy": mean(outcome.test_accuracy for outcome in found),
            "test_accuracy_by_seed": [outcome.test_accuracy for outcome in found],
            "validation_accuracy_by_seed": [outcome.validation_accuracy for outcome in found],
            "train_loss_by_seed": [outcome.train_loss for outcome in found],
            "seconds": mean(outcome.seconds for outcome in found),
            "measured_peak_bytes": memory[entry.method, path].measured_peak_bytes,
            "predicted_peak_bytes": memory[entry.method, path].predicted_peak_bytes,
        }
        for path, found in entry.outcomes.items()
    ]


def print_accuracies(entries: Sequence[Entry]) -> None:
    print("Test accuracy in percent, mean over seeds\n")
    _print_head("dataset", *(entry.method.value for entry in entries))
    for path in entries[0].outcomes:
        found = [mean(o.test_accuracy for o in entry.outcomes[path]) for entry in entries]
        _print_row(path.stem, *map(_percent, found))
    _print_row("mean", *(_percent(entry.test_accuracy) for entry in entries))


def print_methods(
    entries: Sequence[Entry], memory: Mapping[tuple[Method, Path], Measurement]
) -> None:
    print("\nMeans over datasets and seeds. MB: the largest measured peak of a training (10^6")
    print("bytes), and what was predicted; seconds: processor time of a training, one thread.\n")
    _print_head("method", "learning rate", "validation", "test", "MB", "predicted MB", "seconds")
    for entry in entries:
        largest = max(
            (memory[entry.method, path] for path in entry.outcomes),
            key=lambda measurement: measurement.measured_peak_bytes,
        )
        _print_row(
            entry.method.value,
            f"{entry.learning_rate:g}",
            _percent(entry.validation_accuracy),
            _percent(entry.test_accuracy),
            f"{largest.measured_peak_bytes / _MB:.1f}",
            f"{largest.predicted_peak_bytes / _MB:.1f}",
            f"{entry.seconds:.0f}",
        )


def print_differences(differences: Mapping[Method, Difference], num_datasets: int) -> None:
    print(f"\n{_OURS.value} less the other method, test accuracy in points, paired by dataset and")
    print("seed. Standard error over datasets: how sure for other ones; over seeds: for these.\n")
    _print_head("less", "points", "error over datasets", "error over seeds", "datasets above")
    for method, difference in differences.items():
        errors = (difference.dataset_error, difference.seed_error)
        _print_row(
            method.value,
            f"{100 * difference.mean:+.1f}",
            *("-" if error is None else _percent(error) for error in errors),
            f"{difference.num_above} of {num_datasets}",
        )


def print_rates(tried: Sequence[Entry], taken: Sequence[Entry]) -> None:
    print("\nLearning rates tried; those of the best validation accuracy were taken.\n")
    _print_head("method", "learning rate", "validation", "test", "taken")
    for entry in tried:
        _print_row(
            entry.method.value,
            f"{entry.learning_rate:g}",
            _percent(entry.validation_accuracy),
            _percent(entry.test_accuracy),
            "yes" if entry in taken else "",
        )


def _print_head(*cells: str) -> None:
    _print_row(*cells)
    print("|---" * len(cells) + "|")


def _print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"
