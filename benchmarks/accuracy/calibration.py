"""How many training images a subnet's batch norm statistics need before it is scored.

    python -m benchmarks.accuracy.calibration DATA.zip [DATA.zip ...] [--supernet ID]

The supernet is adapted to each dataset as a job does it. Then random subnets are scored on the
validation images as a trial is, with statistics recalibrated on more and more training images.
What few images lose shows in the mean accuracy, and in Kendall's tau-b between the scores and
those with the most images. Seconds are of the processor, in one thread, for cutting one subnet's
weights out with its statistics; scoring it comes on top.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.accuracy.subnets import Adapted, Setting, adapted_to, add_arguments, settings_of
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.rank_correlation import agreement
from tinytl.engine.network import build_network
from tinytl.training.train import evaluate

_NUM_IMAGES = (16, 32, 64, 128, 256, 512)
_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A dataset's subnets, calibrated on so many images: accuracies between 0 and 1."""

    num_images: int
    accuracies: list[float]
    seconds: float


def main() -> None:
    arguments = _parse_arguments()
    rows = []
    for setting in settings_of(arguments):
        with adapted_to(setting) as adapted:
            found = [
                calibrate(setting, adapted, arguments.subnets, num_images)
                for num_images in _NUM_IMAGES
                if num_images <= len(adapted.store.split("train"))
            ]
        rows += [{"dataset": setting.dataset.stem, **row} for row in rows_of(found)]
    _print_table(rows)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def calibrate(setting: Setting, adapted: Adapted, num_subnets: int, num_images: int) -> Calibrated:
    accuracies = []
    seconds = 0.0
    for number in range(num_subnets):
        candidate = setting.candidate(number)
        started = time.process_time()
        config, weights = adapted.supernet.subnet_weights(
            candidate, adapted.store, num_images=num_images
        )
        seconds += time.process_time() - started
        accuracies.append(
            evaluate(
                build_network(config, adapted.supernet.method_of(candidate), weights),
                adapted.store.split("val"),
                resolution=candidate.resolution,
                batch_size=_EVALUATION_BATCH,
            )
        )
    return Calibrated(num_images=num_images, accuracies=accuracies, seconds=seconds / num_subnets)


def rows_of(found: Sequence[Calibrated]) -> list[dict[str, Any]]:
    """A row for each number of images, rising; all are compared with the last."""
    return [
        {
            "num_images": each.num_images,
            "accuracy": mean(each.accuracies),
            "accuracies": each.accuracies,
            "tau": asdict(agreement((each.accuracies, found[-1].accuracies))),
            "seconds": each.seconds,
        }
        for each in found
    ]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    return parser.parse_args()


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    print(
        "Validation accuracy in percent, mean of the subnets; Kendall's tau-b of the scores with"
    )
    print("those of the most images.\n")
    print("| dataset | images | accuracy | tau | seconds a subnet |")
    print("|---" * 5 + "|")
    for row in rows:
        print(
            f"| {row['dataset']} | {row['num_images']} | {100 * row['accuracy']:.1f} "
            f"| {row['tau']['tau']:.2f} | {row['seconds']:.2f} |"
        )


if __name__ == "__main__":
    main()
