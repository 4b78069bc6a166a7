"""The delivered network as ONNX, checked on the job's test images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.work.job.job_run import JobRun
from tinytl.onnx_export.export import (
    Images,
    ModelCheck,
    Probabilities,
    check_models,
    check_text,
    complete_folder,
    pack_folder,
    write_models,
)
from tinytl.onnx_export.files import Precision
from tinytl.onnx_export.source import read_bundle
from tinytl.training.data import ImageStore

_MOST_CHECKED = 512
_BATCH = 16


def export_onnx(
    run: JobRun, store: ImageStore, bundle: Path, probabilities: NDArray[np.float32]
) -> tuple[Path, dict[Precision, ModelCheck]]:
    """The zip of a bundle's export, and how its models compare with the network that it holds:
    probabilities (N, classes), of the whole test split."""
    source = read_bundle(bundle)
    split = store.split("test")
    indices = np.linspace(0, len(split) - 1, min(len(split), _MOST_CHECKED)).astype(int)

    def expected() -> Iterable[tuple[Images, Probabilities]]:
        for start in range(0, len(indices), _BATCH):
            run.check_stop()
            some = [int(index) for index in indices[start : start + _BATCH]]
            yield split.batch(some, source.resolution).numpy(), probabilities[some]

    directory = run.workplace.path("onnx")
    directory.mkdir(exist_ok=True)
    write_models(source, directory)
    checks = check_models(directory, expected, num_threads=torch.get_num_threads())
    complete_folder(source, directory, checks)
    path = run.workplace.path("onnx.zip")
    pack_folder(directory, path)
    for precision, check in checks.items():
        run.log(f"ONNX: {check_text(precision, check)}".rstrip("."))
    return path, checks


def repeatable(check: ModelCheck) -> dict[str, Any]:
    """What is the same whenever the job is run again: a process's memory never is."""
    return {name: value for name, value in asdict(check).items() if name != "footprint"}
