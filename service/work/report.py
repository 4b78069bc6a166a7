"""What a bundle says about itself: report.json for programs, card.md for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.record.models import Dataset, Job, JsonObject, Trial
from service.results import ChoiceView, FrontView, GainView
from service.schemas import TrialView
from service.sureness import choice_text, gain_text
from service.work.progress import SplitSizes
from tinytl.plan import Plan
from tinytl.units import format_bytes, format_count

_RUN_TO_RUN = ("rss_growth_bytes", "process_peak_bytes", "step_seconds")
"""Of a measurement, what is never the same twice."""


def make_report(
    job: Job,
    dataset: Dataset,
    result: Mapping[str, Any],
    *,
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
            "method": job.method,
            "settings": job.settings,
        },
        "dataset": {"id": dataset.id, "name": dataset.name, "counts": dataset.counts},
        "result": dict(result),
        "memory": _without(measurement, *_RUN_TO_RUN),
        "epochs": [_without(epoch, "seconds") for epoch in epochs],
        "trials": [_plain(trial) for trial in trials],
        "front": front.model_dump(mode="json"),
    }


def make_card(
    job: Job, dataset: Dataset, result: Mapping[str, Any], *, split_sizes: SplitSizes
) -> str:
    """A page for whoever gets the bundle."""
    depth = sum(result["subnet"]["depths"])
    gain = GainView.model_validate(result["gain"])
    choice = ChoiceView.model_validate(result["choice"])
    test, head_only = result["test_accuracy"], result["head_only_test_accuracy"]
    rows = (
        ("Classes", ", ".join(dataset.classes)),
        ("Training images", str(split_sizes.train)),
        ("Test accuracy", f"{test:.1%} (head-only training: {head_only:.1%})"),
        ("Validation accuracy", f"{result['validation_accuracy']:.1%}"),
        ("Memory limit", format_bytes(job.memory_limit_bytes)),
        ("Training peak, measured", format_bytes(result["measured_peak_bytes"])),
        ("Training peak, predicted", format_bytes(result["predicted_peak_bytes"])),
        ("Method", job.method),
        ("Supernet", job.supernet),
        ("Subnet", f"{depth} elastic blocks, input {result['resolution']} px"),
        ("Multiply-accumulates", f"{format_count(result['macs'])} an image"),
        ("Plan", Plan.from_dict(result["plan"]).describe()),
    )
    table = "\n".join(f"| {name} | {value.replace('|', ' ')} |" for name, value in rows)
    return (
        f"# {job.name}\n\n"
        f"An image classifier fitted to the dataset {dataset.name!r} by tinyfit.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"{gain_text(gain, split_sizes.test)} {choice_text(choice)}\n\n"
        "Load it in Python; the network predicts, and goes on training under the same limit:\n\n"
        '```python\nimport tinytl\n\nmodel = tinytl.load("model.tinyfit.zip")\n```\n'
    )


def _plain(trial: Trial) -> JsonObject:
    view = TrialView.of(trial).model_dump(mode="json")
    return _without(view, "finished_at", "seconds")


def _without(members: Mapping[str, Any], *names: str) -> JsonObject:
    return {name: value for name, value in members.items() if name not in names}
