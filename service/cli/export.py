"""`tinyfit export` and `export-study`: a bundle as ONNX, a search as an Optuna study."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.command import AddCommand, Answer, connected
from service.cli.jobs import find_job

if TYPE_CHECKING:
    from search.space.candidates import SearchSpace
    from search.study.optuna_export import ExportedTrial
    from service.views.schemas import JobView, TrialView
    from tinytl.onnx_export.export import Images, Probabilities

_NUM_CHECKED = 32


def add_export(add: AddCommand) -> None:
    export = add("export", _export, "write a bundle's network as ONNX")
    export.add_argument("bundle", type=Path, metavar="BUNDLE", help="model.tinyfit.zip")
    export.add_argument(
        "--output", type=Path, default=Path("tinyfit-onnx"), metavar="DIR", help="(tinyfit-onnx)"
    )

    study = add("export-study", _export_study, "write a job's search as a study of Optuna's")
    study.add_argument("job", metavar="JOB", help="its id, or how that begins")
    study.add_argument(
        "--storage", required=True, metavar="URL", help="a database: sqlite:///study.db"
    )
    study.add_argument("--name", help="of the study (the job's name and id)")
    study.add_argument("--url", help="of the server (TINYFIT_URL, or http://127.0.0.1:8000)")


def _export(options: argparse.Namespace) -> Answer:
    import tempfile

    from service.errors import InputError
    from tinytl.onnx_export.export import (
        check_models,
        check_text,
        complete_folder,
        write_models,
    )
    from tinytl.onnx_export.source import read_bundle

    source = read_bundle(options.bundle)
    output: Path = options.output
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {str(output)!r} is a file; name a folder")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(source, folder)
        checks = check_models(folder, lambda: _noise(options.bundle))
        complete_folder(source, folder, checks)
        output.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():  # an earlier export gives way; whatever else is there stays
            (output / file.name).write_bytes(file.read_bytes())
    lines = [check_text(precision, check) for precision, check in checks.items()]
    lines.append(f"python {output / 'predict.py'} IMAGE classifies")
    models = {precision: asdict(check) for precision, check in checks.items()}
    return Answer({"output": str(output), "models": models}, "\n".join(lines))


def _noise(bundle: Path) -> Iterable[tuple[Images, Probabilities]]:
    """Random images, as there are no others here, and what the bundle's network says of them."""
    import numpy as np
    import torch

    import tinytl

    model = tinytl.load(bundle)
    shape = (_NUM_CHECKED, 3, model.resolution, model.resolution)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    yield images, model.network(torch.from_numpy(images)).softmax(1).numpy()


def _export_study(options: argparse.Namespace) -> Answer:
    from search.study.optuna_export import export_study
    from service.errors import InputError
    from service.feasibility import search_space
    from service.settings import AUTO_SUPERNET

    with connected(options) as client:
        job = find_job(client, options.job)
        trials = client.trials(job.id)
    name = options.name or f"{job.name} ({job.id[:8]})"
    supernet = job.chosen_supernet or job.supernet
    if supernet == AUTO_SUPERNET:
        raise InputError(f"job {job.id} has not chosen its supernet yet, so nothing is searched")
    space = search_space(supernet, job.settings, job.method)
    attributes = {
        "job": job.id,
        "memory_limit_bytes": job.memory_limit_bytes,
        "mac_limit": job.settings.mac_limit,
        "method": job.method.value,
        "supernet": supernet,
    }
    exported = [_exported(trial, job, space) for trial in trials]
    export_study(options.storage, name, space, exported, attributes)
    num_over = sum(any(excess > 0 for excess in trial.excess) for trial in exported)
    text = f"study {name!r} with {len(exported)} trials"
    if num_over:
        text += f", {num_over} of them over the limits"
    return Answer({"study": name, "trials": len(exported), "infeasible": num_over}, text)


def _exported(trial: TrialView, job: JobView, space: SearchSpace) -> ExportedTrial:
    from dataclasses import replace
    from datetime import timedelta

    from search.space.candidates import Candidate
    from search.study.optuna_export import ExportedTrial

    limit = job.settings.mac_limit
    over_macs = () if limit is None or trial.macs is None else (float(trial.macs - limit),)
    described = trial.model_dump(include={"subnet", "resolution", "lite_residual", "plan"})
    candidate = Candidate.from_dict(described)
    if candidate.lite_residual not in space.lite_residual_sizes:
        # views leave out a size that the method makes no use of, which the space has
        candidate = replace(candidate, lite_residual=space.lite_residual_sizes[0])
    told = {"number", "macs", "lean_plan", "standard_error", "num_images", "reused"}
    # Optuna has times without a zone, in the local one
    finished_at = trial.finished_at.astimezone().replace(tzinfo=None)
    return ExportedTrial(
        candidate=candidate,
        accuracy=trial.validation_accuracy if trial.is_complete else None,
        peak_bytes=trial.lean_peak_bytes,
        excess=(float(trial.lean_peak_bytes - job.memory_limit_bytes), *over_macs),
        started_at=finished_at - timedelta(seconds=trial.seconds),
        finished_at=finished_at,
        attributes=trial.model_dump(mode="json", include=told),
    )
