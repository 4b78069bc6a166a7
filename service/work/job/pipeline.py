"""A job from dataset to bundle: its stages in order."""

from __future__ import annotations

import logging

from service.datasets.store import get_dataset
from service.record.claims import Claim, succeed_job
from service.record.db.database import Database
from service.record.files.artifacts import BUNDLE, Workplace
from service.record.jobs import get_artifact, get_job
from service.settings import Settings
from service.work.job.adapt_stage import adapt
from service.work.job.choose_stage import choose_supernet
from service.work.job.job_run import JobRun
from service.work.job.search_stage import search
from service.work.job.stages import confirm, export, ingest
from service.work.job.train_stage import train
from service.work.processes.lifeline import StopCheck

logger = logging.getLogger(__name__)


def run_job(settings: Settings, database: Database, claim: Claim, should_stop: StopCheck) -> None:
    """Run what is left of the job and write its result.

    Raises CancelledError where should_stop asks for it and LeaseLostError where the job has gone
    to another attempt; whatever was finished before stays.
    """
    job = get_job(database, claim.job_id)
    run = JobRun(
        settings=settings,
        database=database,
        claim=claim,
        job=job,
        dataset=get_dataset(database, job.dataset_id),
        workplace=Workplace(job_dir=settings.jobs_dir / job.id, attempt=claim.attempt),
        should_stop=should_stop,
    )
    bundle = get_artifact(database, job.id, BUNDLE)
    if bundle is None:
        run.files.restore()
        store = ingest(run)
        choose_supernet(run, store)
        adapted = adapt(run, store)
        candidate, measured = confirm(run, store, search(run, store, adapted))
        trained = train(run, store, adapted, candidate)
        bundle = export(run, store, candidate, measured, trained)
    succeed_job(database, claim, bundle.detail)
    logger.info("job %s succeeded", job.id)
