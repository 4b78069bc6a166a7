"""`tinyfit adapt`, and what it has in common with `tinyfit submit`: a job's options and result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.command import AddCommand, Answer, given, integers, settings_of

if TYPE_CHECKING:
    from service.contract.requests import JobRequest
    from service.views.evaluation import EvaluationView
    from service.views.results import JobResult
    from service.views.schemas import JobView


def add_adapt(add: AddCommand) -> None:
    adapt = add("adapt", _adapt, "fit a model to a folder or zip, without a server")
    adapt.add_argument(
        "data", type=Path, metavar="DATA", help="folder, zip or tar of labelled images"
    )
    add_job_options(
        adapt, supernet_help="an id that `tinyfit supernets` lists, or a file (the limits choose)"
    )
    adapt.add_argument("--output", type=Path, default=Path("tinyfit-output"), metavar="DIR")


def add_job_options(command: argparse.ArgumentParser, *, supernet_help: str) -> None:
    limit = command.add_mutually_exclusive_group(required=True)
    limit.add_argument("--memory-limit", metavar="SIZE", help="for training: 24MB, 1.5GB, bytes")
    limit.add_argument("--device", metavar="ID", help="whose memory: `tinyfit devices` lists them")
    command.add_argument("--name", default="", help="of the job (the data's)")
    command.add_argument("--supernet", help=supernet_help)
    command.add_argument("--method", help="what is trained (auto)")
    _add_search_options(command)
    command.add_argument(
        "--epochs", type=int, help="of the final training (what the supernet needs)"
    )
    command.add_argument(
        "--adapt-steps", type=int, help="of the supernet's adaptation (what it needs)"
    )
    command.add_argument("--seed", type=int, help="the same seed gives the same result (0)")
    command.add_argument("--batch-size", type=int, help="images per update (8)")
    command.add_argument(
        "--resolutions",
        type=integers,
        metavar="PX,PX",
        help="image sides to choose from (the supernet's own)",
    )
    command.add_argument(
        "--learning-rate", type=float, help="peak rate of the final training (the method's)"
    )
    command.add_argument("--label-smoothing", type=float, help="from 0 to below 1 (0.1)")
    add_data_options(command, "auto")
    command.add_argument(
        "--model-size-limit", metavar="SIZE", help="most bytes of the network's values: 2MB"
    )
    command.add_argument(
        "--inference-memory-limit",
        metavar="SIZE",
        help="most that classifying may take, onnxruntime and Python included: 90MB",
    )
    command.add_argument(
        "--class-weights",
        help="balanced: rare classes are looked at as often; none; auto: where uneven (auto)",
    )
    command.add_argument(
        "--min-crop-scale", type=float, help="smallest area of a training crop (0.5)"
    )
    command.add_argument(
        "--no-refit",
        dest="refit",
        action="store_false",
        default=None,
        help="keep the validation images apart in the final training, too",
    )
    command.add_argument(
        "--no-horizontal-flip",
        dest="horizontal_flip",
        action="store_false",
        default=None,
        help="mirrored images mean something else: text, digits",
    )


def add_data_options(command: argparse.ArgumentParser, usual_fit: str) -> None:
    """How images are taken, for all commands that take some."""
    command.add_argument(
        "--fit",
        help=f"how a picture becomes a square: crop, pad or squash ({usual_fit})",
    )
    command.add_argument(
        "--skip-broken",
        action="store_true",
        default=None,
        help="go on without images that can't be used, and say which",
    )


def _add_search_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trials", type=int, help="candidates to score (16)")
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
    from service.contract.requests import JobRequest, JobSettings

    asked = {
        "dataset": dataset,
        "memory_limit": options.memory_limit,
        "name": options.name,
        "method": options.method,
        "supernet": supernet,
        "priority": getattr(options, "priority", None),  # a queue has it, `adapt` has none
        "webhook": getattr(options, "webhook", None),
        "settings": given(options, JobSettings.model_fields),
    }
    return JobRequest.model_validate(
        {name: value for name, value in asked.items() if value is not None}
    )


def result_text(job: JobView, checkpoint: str) -> str:
    """What came out of a job that succeeded; checkpoint says where the bundle is."""
    from service.console import printable
    from service.views.peaks import peaks_text, trainer_text
    from service.views.sureness import choice_text, gain_text
    from tinytl.description.plan import Plan
    from tinytl.units import format_bytes

    assert job.result is not None
    result = job.result
    notes = "" if result.headline is None else f"\nnote: {printable(result.headline)}"
    if result.gain is not None and result.gain.is_within_noise:
        notes += f"\nnote: {gain_text(result.gain)}"
    if result.choice is not None:
        notes += f"\nnote: {choice_text(result.choice)}"
    return (
        f"test accuracy    {result.test_accuracy:.1%} "
        f"(head-only training: {result.head_only_test_accuracy:.1%})\n"
        f"training peak    {peaks_text(result)}; limit {format_bytes(job.memory_limit_bytes)}\n"
        f"trained by       {trainer_text(result)}\n"
        f"{_held_text(result)}"
        f"supernet         {result.supernet or job.chosen_supernet}\n"
        f"method           {job.method.describe(result.method)}\n"
        f"plan             {Plan.from_dict(result.plan).describe()}\n"
        f"checkpoint       {checkpoint}{notes}"
    )


def _held_text(result: JobResult) -> str:
    """Results of earlier versions say less."""
    from tinytl.units import format_bytes

    if result.model_bytes is None or result.predicted_inference_bytes is None:
        return ""
    return (
        f"model            {format_bytes(result.model_bytes)}; classifying takes "
        f"{format_bytes(result.predicted_inference_bytes)}, predicted, Python and all\n"
    )


def _adapt(options: argparse.Namespace) -> Answer:
    from service.commands.adapting import adapt
    from service.console import Meter

    supernet = options.supernet
    if supernet and Path(supernet).is_file():
        supernet = str(Path(supernet).resolve())
    request = job_request(options, "", supernet)
    job = adapt(options.data, request, options.output, settings_of(options), Meter(sys.stderr))
    bundle = options.output / "model.tinyfit.zip"
    as_json = job.model_dump(mode="json") | {"evaluation": _evaluation_in(bundle)}
    return Answer(as_json, result_text(job, str(bundle)))


def _evaluation_in(bundle: Path) -> dict[str, Any] | None:
    """None where an earlier version wrote the bundle."""
    import json
    import zipfile

    from service.views.evaluation import EvaluationView

    with zipfile.ZipFile(bundle) as archive:
        found = json.loads(archive.read("report.json")).get("evaluation")
    return None if found is None else evaluation_json(EvaluationView.model_validate(found))


def evaluation_json(evaluation: EvaluationView) -> dict[str, Any]:
    """Without the pictures."""
    left_out = {"mistakes": {"__all__": {"image"}}}
    return evaluation.model_dump(mode="json", exclude=left_out)
