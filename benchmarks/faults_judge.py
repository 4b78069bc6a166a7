"""Reads from the record and the files what became of a run's jobs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from service.record.artifacts import ADAPTED, BUNDLE, artifact_path
from service.record.database import Database
from service.record.events import list_events
from service.record.jobs import find_job, get_artifact, list_attempts, list_jobs, list_trials
from service.record.models import Attempt, Base, Event, EventKind, Job, Status
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
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.problems


def judge(url: str, data_dir: Path, kinds: dict[str, int], sweep: Callable[[], None]) -> Judgement:
    """kinds: the kind of each job that was posted and not deleted; jobs of a kind are to have
    equal bundles."""
    settings = Settings(data_dir=data_dir, database_url=url)
    database = Database(url, patience_seconds=30)
    found = Judgement()
    outcomes: Counter[str] = Counter()
    results: Counter[int] = Counter()
    bundles: dict[int, set[str]] = defaultdict(set)
    trials: dict[int, set[str]] = defaultdict(set)
    expected: set[Path] = set()
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
            path = artifact_path(settings, bundle)
            expected.add(path)
            adapted = get_artifact(database, job.id, ADAPTED)
            if adapted is not None:
                expected.add(artifact_path(settings, adapted))
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
            if sha256 != bundle.sha256:
                found.problems.append(f"job {job.id}: its bundle is {sha256}, not as published")
            assert bundle.kind == BUNDLE
            kind = kinds.get(job.id, -1)
            bundles[kind].add(sha256)
            scored = [
                (trial.number, trial.candidate, trial.accuracy)
                for trial in list_trials(database, job.id)
            ]
            trials[kind].add(json.dumps(scored, sort_keys=True))
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
    found.stray_files_before_sweep = len(_strays(settings, expected))
    sweep()
    strays = _strays(settings, expected)
    found.stray_files = len(strays)
    found.problems += [f"stray: {path.relative_to(data_dir)}" for path in strays]
    return found


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


def _strays(settings: Settings, expected: set[Path]) -> list[Path]:
    """Files, and folders that hold none, that no finished job has use for."""
    strays = []
    for folder in (settings.jobs_dir, settings.incoming_dir):
        for path in folder.rglob("*") if folder.is_dir() else ():
            is_stray = path not in expected if path.is_file() else not any(path.iterdir())
            if is_stray:
                strays.append(path)
    return strays
