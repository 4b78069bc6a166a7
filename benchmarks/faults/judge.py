"""Reads from the record and the files what became of a run's jobs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from service.contract.status import EventKind, Status
from service.record.db.database import Database
from service.record.db.models import Attempt, Base, Blob, Event, Job
from service.record.events import list_events
from service.record.files.artifacts import BUNDLE
from service.record.files.blobs import OWNER_KEY, Blobs, open_blobs
from service.record.files.collecting import collect
from service.record.jobs import find_job, list_attempts, list_jobs, list_trials
from service.settings import Settings


@dataclass(kw_only=True)
class Judgement:
    """Counts over all jobs; problems are sentences, and none is what is wanted."""

    jobs_in_record: int = 0
    jobs_succeeded: int = 0
    attempts: int = 0
    attempts_by_outcome: dict[str, int] = field(default_factory=dict)
    results_per_job: dict[int, int] = field(default_factory=dict)
    """How often a job was said to have succeeded, and of how many jobs that is true."""
    different_bundles_per_kind: dict[int, int] = field(default_factory=dict)
    orphan_rows: int = 0
    """Of jobs that are gone, and attempts that nobody works on and nobody has closed."""
    stray_files_before_sweep: int = 0
    stray_files: int = 0
    num_objects: int = 0
    """In the artifact store, once the garbage is collected."""
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.problems


def judge(settings: Settings, kinds: dict[str, int], sweep: Callable[[], None]) -> Judgement:
    """settings: of the service. kinds: the kind of each job that was posted and not deleted; jobs
    of a kind are to have equal bundles."""
    database = Database(settings.resolved_database_url, patience_seconds=30)
    found = Judgement()
    outcomes: Counter[str] = Counter()
    results: Counter[int] = Counter()
    bundles: dict[int, set[str]] = defaultdict(set)
    trials: dict[int, set[str]] = defaultdict(set)
    found.stray_files_before_sweep = len(_strays(settings))
    blobs = open_blobs(settings, database)
    try:
        jobs = [job for job, _ in list_jobs(database, limit=100_000)]
        found.jobs_in_record = len(jobs)
        if {job.id for job in jobs} != set(kinds):
            found.problems.append("the jobs in the record are not those that were posted")
        found.orphan_rows = _num_orphan_rows(database)
        if found.orphan_rows:
            found.problems.append(f"{found.orphan_rows} rows belong to no job, or never ended")
        for job in jobs:
            attempts = list_attempts(database, job.id)
            outcomes.update(str(attempt.outcome and attempt.outcome.value) for attempt in attempts)
            found.attempts += len(attempts)
            events = _events(database, job.id)
            results[sum(map(_is_success, events))] += 1
            if [event.number for event in events] != list(range(1, job.num_events + 1)):
                found.problems.append(f"job {job.id}: its events have gaps")
            _check_epochs(found, job, events)
            bundle = find_job(database, job.id)[1]
            if job.status is not Status.SUCCEEDED or bundle is None or not job.result:
                found.problems.append(f"job {job.id} is {job.status.value}: {job.error}")
                continue
            found.jobs_succeeded += 1
            assert bundle.kind == BUNDLE
            sha256 = bundle.sha256 or ""
            if not blobs.is_intact(bundle.blob_sha256 or ""):
                found.problems.append(f"job {job.id}: its bundle is missing or damaged")
            kind = kinds.get(job.id, -1)
            bundles[kind].add(sha256)
            scored = [
                (trial.number, trial.candidate, trial.accuracy)
                for trial in list_trials(database, job.id)
            ]
            trials[kind].add(json.dumps(scored, sort_keys=True))
        sweep()
        collect(blobs, grace_seconds=0)
        found.num_objects = sum(1 for _ in blobs.objects.sizes())
        found.problems += _missing(blobs)
    finally:
        database.close()
    found.attempts_by_outcome = dict(sorted(outcomes.items()))
    found.results_per_job = dict(results)
    found.different_bundles_per_kind = {kind: len(some) for kind, some in sorted(bundles.items())}
    if set(results) != {1}:
        found.problems.append("a job has not succeeded exactly once")
    if any(len(some) != 1 for some in bundles.values()):
        found.problems.append("equal jobs have different bundles")
    if any(len(some) != 1 for some in trials.values()):
        found.problems.append("equal jobs have different trials")
    strays = _strays(settings)
    found.stray_files = len(strays)
    found.problems += [f"stray: {path.relative_to(settings.data_dir)}" for path in strays]
    return found


def _missing(blobs: Blobs) -> list[str]:
    """Of the objects that the record speaks of: those that are not there as it says, and more
    than it speaks of."""
    with blobs.database.reading() as session:
        rows = {blob.key: blob.sha256 for blob in session.scalars(select(Blob))}
    objects = {key for key, _ in blobs.objects.sizes()} - {OWNER_KEY}
    return [
        *(f"object {key} is no blob's" for key in sorted(objects - set(rows))),
        *(
            f"blob {sha256} is missing or damaged"
            for sha256 in rows.values()
            if not blobs.is_intact(sha256)
        ),
    ]


def _num_orphan_rows(database: Database) -> int:
    known = select(Job.id)
    tables = [table for table in Base.metadata.sorted_tables if "job_id" in table.c]
    with database.reading() as session:
        without_job = [
            select(func.count()).select_from(table).where(table.c.job_id.not_in(known))
            for table in tables
        ]
        ended = select(Job.id).where(Job.status != Status.RUNNING)
        still_open = (
            select(func.count())
            .select_from(Attempt)
            .where(Attempt.outcome.is_(None), Attempt.job_id.in_(ended))
        )
        return sum(session.scalars(query).one() for query in (*without_job, still_open))


def _events(database: Database, job_id: str) -> list[Event]:
    found: list[Event] = []
    while some := list_events(database, job_id, after=found[-1].number if found else 0):
        found += some
    return found


def _is_success(event: Event) -> bool:
    return event.kind is EventKind.STATUS and event.detail["status"] == Status.SUCCEEDED


def _check_epochs(found: Judgement, job: Job, events: list[Event]) -> None:
    told = Counter(
        (event.detail["training"], event.detail["epoch"])
        for event in events
        if event.kind is EventKind.EPOCH
    )
    if any(times != 1 for times in told.values()):
        found.problems.append(f"job {job.id}: an epoch was told more than once")


def _strays(settings: Settings) -> list[Path]:
    """What is left in the folders of attempts and uploads, once all jobs have ended."""
    strays = []
    for folder in (settings.jobs_dir, settings.incoming_dir):
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.is_file() or not any(path.iterdir()):
                strays.append(path)
    return strays
