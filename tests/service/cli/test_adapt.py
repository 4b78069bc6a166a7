"""What a job's options ask for, and how its result reads."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from service.api.document.examples import JOB
from service.cli.adapt import add_job_options, job_request, result_text
from service.contract.requests import JobRequest, JobSettings
from service.views.schemas import JobView
from tinytl.description.plan import Plan

RESULT: dict[str, Any] = {
    "method": "bias",
    "subnet": {},
    "resolution": 48,
    "plan": asdict(Plan.whole(8)),
    "predicted_peak_bytes": 20_000_000,
    "measured_peak_bytes": 19_000_000,
    "validation_accuracy": 0.9,
    "test_accuracy": 0.876,
    "head_only_test_accuracy": 0.86,
    "trials": 20,
}


def request(*arguments: str) -> JobRequest:
    parser = argparse.ArgumentParser()
    add_job_options(parser, supernet_help="")
    return job_request(parser.parse_args(["--memory-limit", "24MB", *arguments]), "d1", None)


def text(**changes: Any) -> str:
    return result_text(JobView.model_validate(JOB | {"result": RESULT | changes}), "here")


def test_options_of_the_search() -> None:
    assert request().settings == JobSettings()
    settings = request(
        *("--time-limit", "10m", "--mac-limit", "20M", "--patience", "9"),
        *("--sampler", "tpe", "--no-race", "--no-reuse"),
    ).settings
    assert (settings.time_limit_seconds, settings.trials) == (600, 10_000)
    assert (settings.mac_limit, settings.patience, settings.sampler) == (20_000_000, 9, "tpe")
    assert (settings.race, settings.reuse) == (False, False)
    assert request("--time-limit", "90", "--trials", "7").settings.trials == 7


def test_a_gain_is_questioned_where_it_is_within_noise() -> None:
    gain = {"points": 0.016, "standard_error": 0.03, "is_within_noise": True}
    noise = text(gain=gain).splitlines()[-1]
    assert noise == (
        "note: The gain over head-only training is +1.6 points on the test images, with a "
        "standard error of 3.0: that is within noise, there may be none."
    )
    assert "note:" not in text(gain=gain | {"is_within_noise": False})


def test_a_choice_says_how_sure_it_is() -> None:
    choice = {
        "num_compared": 24,
        "standard_error": 0.02,
        "probability_best": 0.41,
        "num_rivals": 6,
    }
    (note,) = [line for line in text(choice=choice).splitlines() if "note" in line]
    assert note.startswith("note: Of 24 candidates within the limits")
    assert note.endswith("6 others may be as good.")


def test_a_result_of_an_earlier_version_has_no_notes() -> None:
    assert text().splitlines()[-1] == "checkpoint       here"
