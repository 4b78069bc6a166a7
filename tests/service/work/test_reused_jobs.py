"""Whole jobs one after another, over the same images: what the first found serves the second."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest
from service.contract.status import Status
from service.datasets.store import import_dataset
from service.record.claims import Claim
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.files.artifacts import ADAPTED, remove_leftovers
from service.record.jobs import create_job, delete_job, get_job, list_trials
from service.settings import Settings
from service.work.job.pipeline import run_job
from service.work.sweeping import sweep, tidy_job
from tests.service.support.stores import stored_path

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unmeasured")]

SETTINGS = {"resolutions": [32], "trials": 3, "epochs": 1, "adapt_steps": 3, "batch_size": 4}


def test_a_second_job_begins_with_what_the_first_has_scored(
    settings: Settings,
    database: Database,
    claim: Callable[..., Claim],
    make_zip: Callable[[Mapping[str, bytes]], Path],
    flat_files: dict[str, bytes],
) -> None:
    dataset, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)

    def run(limit: str, **asked: Any) -> Job:
        request = {
            "dataset": dataset.id,
            "memory_limit": limit,
            "supernet": DEFAULT_SUPERNET,
            "settings": SETTINGS | asked,
        }
        job_id = create_job(database, JobRequest.model_validate(request))[0].id
        run_job(settings, database, claim(), lambda: False)
        tidy_job(settings, database, job_id)
        job = get_job(database, job_id)
        assert job.status is Status.SUCCEEDED
        return job

    def adapted(job: Job) -> Path:
        return stored_path(settings, database, job.id, ADAPTED)

    first = run("6MB")
    second = run("2MB", trials=2)
    assert first.result is not None
    assert second.result is not None
    assert (first.result["trials"], first.result["reused_trials"]) == (3, 0)
    assert (second.result["trials"], second.result["reused_trials"]) == (2, 3)
    assert second.result["measured_peak_bytes"] <= 2_000_000
    assert adapted(first).samefile(adapted(second))
    taken, scored = list_trials(database, second.id)[:3], list_trials(database, first.id)
    assert [trial.accuracy for trial in taken] == [trial.accuracy for trial in scored]

    delete_job(database, first.id)
    remove_leftovers(settings, first.id)
    sweep(settings, database)
    assert adapted(second).is_file()
    third = run("2MB", trials=2)
    assert third.result is not None
    assert third.result["reused_trials"] == 5
