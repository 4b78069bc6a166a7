"""Whole trainings by the device trainer and by the torch engine: the accuracies they come to.

    python -m benchmarks.accuracy.device DATA.zip [DATA.zip ...] [--seeds 2] [--epochs 6] [--json]

DATA holds `name/split/class/image`. The supernet is adapted as a job adapts it, and its middle
subnet is trained at 64 px from the same values by both: the same images in the same order, crops,
mirror images and schedule. Sums are rounded otherwise, so values drift apart as they do from seed
to seed; accuracies are on the test images.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np

from benchmarks.accuracy.subnets import Adapted, Setting, adapted_to
from benchmarks.shared.machine import describe_machine
from search.adaptation.adapt import AdaptSettings
from search.space.candidates import Candidate
from tinytl.description.config import LiteResidualSize
from tinytl.description.plan import Plan
from tinytl.engine.network import Network, build_network
from tinytl.native.build import NATIVE, build_trainer
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.program import ProgramSettings, compile_program
from tinytl.training.data import SPLITS, ImageStore
from tinytl.training.train import TrainSettings, evaluate, train

_RESOLUTION = 64
_BATCH_SIZE = 8
_EVALUATION_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips")
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--adapt-steps", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    print("| images | seed | before | engine | device | engine, s | device, s |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for dataset in arguments.datasets:
        for seed in range(arguments.seeds):
            setting = Setting(
                dataset=dataset,
                resolutions=(_RESOLUTION,),
                adaptation=AdaptSettings(steps=arguments.adapt_steps, seed=seed),
            )
            with adapted_to(setting) as adapted:
                found = compare(adapted, arguments.epochs, seed)
            rows.append({"dataset": dataset.stem, "seed": seed, **found})
            print(line_of(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def compare(adapted: Adapted, epochs: int, seed: int) -> dict[str, float]:
    """Test accuracies before and after, and processor seconds of both trainings."""
    supernet, store = adapted.supernet, adapted.store
    candidate = Candidate(
        subnet=supernet.spec.uniform(5, 4, 3),
        resolution=_RESOLUTION,
        lite_residual=LiteResidualSize(),
        plan=Plan.whole(_BATCH_SIZE),
    )
    config, weights = supernet.subnet_weights(candidate, store)
    network = build_network(config, supernet.method, weights)
    settings = TrainSettings(epochs=epochs, seed=seed)
    before = _accuracy(network, store)
    with tempfile.TemporaryDirectory() as folder:
        by_device = _train_natively(network, store, candidate.plan, settings, Path(folder))
    started = _seconds(resource.RUSAGE_SELF)
    train(network, store, resolution=_RESOLUTION, plan=candidate.plan, settings=settings)
    return {
        "before": before,
        "engine_seconds": _seconds(resource.RUSAGE_SELF) - started,
        "engine": _accuracy(network, store),
        **by_device,
    }


def _accuracy(network: Network, store: ImageStore) -> float:
    test = store.split("test")
    return evaluate(network, test, resolution=_RESOLUTION, batch_size=_EVALUATION_BATCH)


def _train_natively(
    network: Network, store: ImageStore, plan: Plan, settings: TrainSettings, folder: Path
) -> dict[str, float]:
    program, images, state = (folder / name for name in ("program", "images", "state"))
    program.write_bytes(
        compile_program(
            network,
            plan,
            resolution=_RESOLUTION,
            image_size=store.image_size,
            classes=tuple(store.classes),
            settings=ProgramSettings(
                learning_rate=settings.learning_rate,
                label_smoothing=settings.label_smoothing,
                augmentation=settings.augmentation,
                seed=settings.seed,
            ),
            squaring=store.squaring,
        )
    )
    write_image_file(
        images,
        _stored(store),
        store.classes,
        image_size=store.image_size,
        max_classes=len(store.classes),
    )
    trainer = build_trainer(NATIVE)
    started = _seconds(resource.RUSAGE_CHILDREN)
    arguments = ["--epochs", settings.epochs, "--state", state]
    _run([trainer, "train", program, images, *arguments])
    seconds = _seconds(resource.RUSAGE_CHILDREN) - started
    found = _run([trainer, "evaluate", program, images, "--state", state, "--split", "test"])
    return {"device": found["accuracy"], "device_seconds": seconds}


def _stored(store: ImageStore) -> Iterator[StoredImage]:
    for name in SPLITS:
        split = store.split(name)
        for pixels, label in zip(split.all_images(), split.labels, strict=True):
            yield StoredImage(
                pixels=np.ascontiguousarray(pixels.numpy()), label=int(label), split=name
            )


def _run(command: Sequence[object]) -> Any:
    done = subprocess.run(
        [*map(str, command), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def line_of(row: Mapping[str, Any]) -> str:
    shares = " | ".join(f"{100 * row[name]:.1f}" for name in ("before", "engine", "device"))
    return (
        f"| {row['dataset']} | {row['seed']} | {shares} | {row['engine_seconds']:.0f} | "
        f"{row['device_seconds']:.0f} |"
    )


if __name__ == "__main__":
    main()
