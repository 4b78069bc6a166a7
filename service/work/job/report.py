"""What a bundle says about itself: report.json for programs, card.md for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.contract.requests import JobSettings, MethodChoice
from service.contract.status import JsonObject
from service.record.db.models import Dataset, Job, Trial
from service.views.evaluation import EvaluationView
from service.views.peaks import peaks_text, trainer_text
from service.views.results import ChoiceView, FrontView, GainView, JobResult
from service.views.schemas import TrialView
from service.views.sureness import choice_text, gain_text
from service.work.job.workload import SplitSizes
from tinytl.description.method import Method, PeakMeaning
from tinytl.description.plan import Plan
from tinytl.units import format_bytes, format_count

_RUN_TO_RUN = ("rss_growth_bytes", "process_peak_bytes", "step_seconds")
"""Of a measurement, what is never the same twice."""


def make_report(
    job: Job,
    dataset: Dataset,
    result: Mapping[str, Any],
    *,
    evaluation: EvaluationView,
    measurement: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    trials: Sequence[Trial],
    front: FrontView,
) -> JsonObject:
    """Everything that was asked for, chosen and measured.

    What differs from run to run, ids and times, is left out: the same job gives the same bundle,
    once it has a name (one without is called after its id).
    """
    return {
        "job": {
            "name": job.name,
            "memory_limit_bytes": job.memory_limit_bytes,
            "supernet": job.supernet,
            "chosen_supernet": job.chosen_supernet or job.supernet,
            "supernet_probes": job.supernet_probes,
            "method": job.method,
            "peak_meaning": job.peak_meaning.value,
            "settings": job.settings,
        },
        "dataset": {"id": dataset.id, "name": dataset.name, "counts": dataset.counts},
        "result": _repeatable(result),
        "evaluation": evaluation.model_dump(mode="json"),
        "memory": _without(measurement, *_RUN_TO_RUN),
        "epochs": [_without(epoch, "seconds") for epoch in epochs],
        "trials": [_plain(trial, MethodChoice(job.method)) for trial in trials],
        "front": front.model_dump(mode="json"),
    }


def _repeatable(result: Mapping[str, Any]) -> JsonObject:
    """What a process was resident with differs by pages from run to run: the job's record has it.
    What torch's allocator handed out does not."""
    is_process = result["peak_meaning"] == PeakMeaning.PROCESS
    return {**result, "measured_peak_bytes": None} if is_process else dict(result)


def make_card(
    job: Job,
    dataset: Dataset,
    result: Mapping[str, Any],
    evaluation: EvaluationView,
    *,
    split_sizes: SplitSizes,
) -> str:
    """A page for whoever gets the bundle."""
    depth = sum(result["subnet"]["depths"])
    gain = GainView.model_validate(result["gain"])
    choice = ChoiceView.model_validate(result["choice"])
    view = JobResult.model_validate(_repeatable(result))
    is_refit = JobSettings.recorded(job.settings).refit
    test, head_only = result["test_accuracy"], result["head_only_test_accuracy"]
    rows = (
        ("Classes", ", ".join(dataset.classes)),
        ("Training images", _training_images(split_sizes, is_refit=is_refit)),
        ("Test accuracy", f"{test:.1%} (head-only training: {head_only:.1%})"),
        ("Balanced accuracy", f"{evaluation.balanced_accuracy:.1%}"),
        (
            "Validation accuracy",
            f"{result['validation_accuracy']:.1%}{' (before the training)' * is_refit}",
        ),
        ("Memory limit", format_bytes(job.memory_limit_bytes)),
        ("Training peak", peaks_text(view)),
        ("Trained by", trainer_text(view)),
        ("Method", MethodChoice(job.method).describe(Method(result["method"]))),
        ("Supernet", job.chosen_supernet or job.supernet),
        ("Subnet", f"{depth} elastic blocks, input {result['resolution']} px"),
        ("Model size", format_bytes(result["model_bytes"])),
        (
            "Memory of classifying",
            f"{format_bytes(result['predicted_inference_bytes'])}, predicted: a process with "
            "Python and onnxruntime, of the export in 8 bits",
        ),
        ("Multiply-accumulates", f"{format_count(result['macs'])} an image"),
        ("Plan", Plan.from_dict(result["plan"]).describe()),
    )
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    return (
        f"# {job.name}\n\n"
        f"An image classifier fitted to the dataset {dataset.name!r} by tinyfit.\n\n"
        f"{evaluation.headline}\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"{gain_text(gain, split_sizes.test)} {choice_text(choice)}\n\n"
        "Load it in Python; the network predicts, and goes on training under the same limit:\n\n"
        '```python\nimport tinytl\n\nmodel = tinytl.load("model.tinyfit.zip")\n```\n\n'
        f"{evaluation_text(evaluation)}"
    )


def _training_images(sizes: SplitSizes, *, is_refit: bool) -> str:
    if not is_refit:
        return str(sizes.train)
    return f"{sizes.train + sizes.val}, {sizes.val} of which first chose the network"


def evaluation_text(evaluation: EvaluationView) -> str:
    """Markdown: the classes, how they are taken for each other, and the surest mistakes."""
    rows = [
        f"| {_cell(c.name)} | {c.support} | {_percent(c.recall)} | {_percent(c.precision)} | "
        f"{_taken_for(evaluation, row)} |"
        for row, c in enumerate(evaluation.classes)
    ]
    text = (
        "## Class by class\n\n"
        "Recall: how many images of the class are found. Precision: how many of those told to be "
        "of it are.\n\n"
        "| class | test images | recall | precision | taken for |\n|---|--:|--:|--:|---|\n"
        + "\n".join(rows)
        + "\n"
    )
    if evaluation.mistakes:
        shown = [
            f"| ![]({m.image}) | {_cell(m.label)} | {_cell(m.predicted)}, {m.probability:.0%} |"
            for m in evaluation.mistakes
        ]
        text += (
            "\n## Most confidently wrong\n\n"
            "| image | is labelled | is told to be |\n|---|---|---|\n" + "\n".join(shown) + "\n"
        )
    return text


def _taken_for(evaluation: EvaluationView, row: int) -> str:
    """What images of the class in this row are told to be instead, the most frequent first."""
    if evaluation.confusion is None:
        return ""
    counts = evaluation.confusion[row]
    others = sorted(
        (column for column, count in enumerate(counts) if count and column != row),
        key=lambda column: -counts[column],
    )
    named = [f"{_cell(evaluation.classes[c].name)} {counts[c]}" for c in others]
    return ", ".join(named)


def _cell(text: str) -> str:
    return text.replace("|", " ")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _plain(trial: Trial, choice: MethodChoice) -> JsonObject:
    view = TrialView.of(trial, choice).model_dump(mode="json")
    return _without(view, "finished_at", "seconds")


def _without(members: Mapping[str, Any], *names: str) -> JsonObject:
    return {name: value for name, value in members.items() if name not in names}
