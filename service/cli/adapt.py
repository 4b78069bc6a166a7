"""`tinyfit adapt`, and what it has in common with `tinyfit submit`: a job's options and result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.command import AddCommand, Answer, given, integers, settings_of

if TYPE_CHECKING:
    from service.schemas import JobRequest, JobView


def add_adapt(add: AddCommand) -> None:
    adapt = add("adapt", _adapt, "fit a model to a folder or zip, without a server")
    adapt.add_argument("data", type=Path, metavar="DATA", help="folder or zip of class folders")
    add_job_options(
        adapt, supernet_help="an id that `tinyfit supernets` lists, or a file (the limits choose)"
    )
    adapt.add_argument("--output", type=Path, default=Path("tinyfit-output"), metavar="DIR")


def add_job_options(command: argparse.ArgumentParser, *, supernet_help: str) -> None:
    command.add_argument(
        "--memory-limit", required=True, metavar="SIZE", help="for training: 24MB, 1.5GB, bytes"
    )
    command.add_argument("--name", default="", help="of the job (the data's)")
    command.add_argument("--supernet", help=supernet_help)
    command.add_argument("--method", help="what is trained (lite_residual+bias)")
    _add_search_options(command)
    command.add_argument("--epochs", type=int, help="of the final training (10)")
    command.add_argument("--adapt-steps", type=int, help="of the supernet's adaptation (400)")
    command.add_argument("--seed", type=int, help="the same seed gives the same result (0)")
    command.add_argument("--batch-size", type=int, help="images per update (8)")
    command.add_argument(
        "--resolutions",
        type=integers,
        metavar="PX,PX",
        help="image sides to choose from (48,64,80,96)",
    )
    command.add_argument(
        "--learning-rate", type=float, help="peak rate of the final training (the method's)"
    )
    command.add_argument("--label-smoothing", type=float, help="from 0 to below 1 (0.1)")
    command.add_argument(
        "--min-crop-scale", type=float, help="smallest area of a training crop (0.5)"
    )
    command.add_argument(
        "--no-horizontal-flip",
        dest="horizontal_flip",
        action="store_false",
        default=None,
        help="mirrored images mean something else: text, digits",
    )


def _add_search_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trials", type=int, help="candidates to score (48)")
    command.add_argument(
        "--time-limit",
        dest="time_limit_seconds",
        metavar="TIME",
        help="of the search, which then takes as many trials as it can: 90s, 10m, 1.5h",
    )
    command.add_argument(
        "--mac-limit",
        metavar="COUNT",
        help="most multiply-accumulates of an image's forward pass: 20M, 1.5G",
    )
    command.add_argument(
        "--patience", type=int, help="trials without a better one that end the search (64)"
    )
    command.add_argument(
        "--no-race",
        dest="race",
        action="store_false",
        default=None,
        help="look at every validation image, for hopeless candidates too",
    )
    command.add_argument(
        "--no-reuse",
        dest="reuse",
        action="store_false",
        default=None,
        help="adapt the supernet anew, even if an earlier job has",
    )
    command.add_argument(
        "--sampler", help="who proposes: predictor, tpe, nsga2, gp, random (predictor)"
    )


def job_request(options: argparse.Namespace, dataset: str, supernet: str | None) -> JobRequest:
    """What the options ask for, of a dataset. Raises pydantic's ValidationError."""
    from service.schemas import JobRequest, JobSettings

    asked = {
        "dataset": dataset,
        "memory_limit": options.memory_limit,
        "name": options.name,
        "method": options.method,
        "supernet": supernet,
        "priority": getattr(options, "priority", None),  # a queue has it, `adapt` has none
        "settings": given(options, JobSettings.model_fields),
    }
    return JobRequest.model_validate(
        {name: value for name, value in asked.items() if value is not None}
    )


def result_text(job: JobView, checkpoint: str) -> str:
    """What came out of a job that succeeded; checkpoint says where the bundle is."""
    from service.sureness import choice_text, gain_text
    from tinytl.plan import Plan
    from tinytl.units import format_bytes

    assert job.result is not None
    result = job.result
    notes = ""
    if result.gain is not None and result.gain.is_within_noise:
        notes += f"\nnote: {gain_text(result.gain)}"
    if result.choice is not None:
        notes += f"\nnote: {choice_text(result.choice)}"
    return (
        f"test accuracy    {result.test_accuracy:.1%} "
        f"(head-only training: {result.head_only_test_accuracy:.1%})\n"
        f"training peak    {format_bytes(result.measured_peak_bytes)} measured, "
        f"{format_bytes(result.predicted_peak_bytes)} predicted, "
        f"limit {format_bytes(job.memory_limit_bytes)}\n"
        f"plan             {Plan.from_dict(result.plan).describe()}\n"
        f"checkpoint       {checkpoint}{notes}"
    )


def _adapt(options: argparse.Namespace) -> Answer:
    from service.adapting import adapt
    from service.console import Meter

    supernet = options.supernet
    if supernet and Path(supernet).is_file():
        supernet = str(Path(supernet).resolve())
    request = job_request(options, "", supernet)
    job = adapt(options.data, request, options.output, settings_of(options), Meter(sys.stderr))
    return Answer(
        job.model_dump(mode="json"), result_text(job, str(options.output / "model.tinyfit.zip"))
    )
