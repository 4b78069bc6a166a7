"""The search stage, with scores that are drawn."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest

from search.space.candidates import Candidate
from search.space.pricing import fastest_fit, macs_of, price, smallest_feasible
from search.statistics.certainty import choice_certainty
from search.study import optuna_trials
from search.study.study import BATCH_SIZE
from service.contract import requests
from service.contract.status import EventKind
from service.record.claims import Claim, release_job
from service.record.db.database import Database
from service.record.db.models import Trial
from service.record.events import list_events
from service.record.fronts import list_front
from service.record.jobs import list_trials
from service.settings import Settings
from service.work.job import search_stage
from service.work.job.job_run import JobRun
from service.work.job.progress import Stage
from service.work.job.search_stage import certainty, packed, search, unpacked
from service.work.pools import tasks
from service.work.pools.pool import OnNews
from service.work.pools.tasks import Shared, Task
from tests.service.work.runs import NUM_IMAGES, Scoring, run_of
from tinytl.errors import CancelledError

MakeRun = Callable[..., JobRun]
LIMIT = 5_000_000
ADAPTED: Any = object()


def rows(run: JobRun) -> list[tuple[object, ...]]:
    """All of the trials but when and by whom they were scored."""
    return [
        (
            *(trial.number, trial.candidate, trial.accuracy, trial.loss),
            *(trial.num_images, trial.correct),
            *(trial.predicted_peak_bytes, trial.lean_peak_bytes, trial.lean_plan, trial.macs),
            *(trial.is_complete, trial.reused),
        )
        for trial in trials_of(run)
    ]


def trials_of(run: JobRun) -> list[Trial]:
    return list_trials(run.database, run.job.id, with_correct=True)


def logs(run: JobRun) -> list[str]:
    events = list_events(run.database, run.job.id)
    return [event.detail["message"] for event in events if event.kind is EventKind.LOG]


def stop_after(run: JobRun, num_trials: int) -> Callable[[], bool]:
    return lambda: len(list_trials(run.database, run.job.id)) >= num_trials


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, scoring: Scoring) -> list[float]:
    """The time, in which each score takes ten seconds."""
    now = [100.0]

    def score(*arguments: Any, **named: Any) -> Any:
        now[0] += 10.0
        return scoring(*arguments, **named)

    monkeypatch.setattr(tasks, "score", score)
    monkeypatch.setattr(search_stage.time, "perf_counter", lambda: now[0])
    return now


def test_trials_hold_what_is_known_of_them(make_run: MakeRun, scoring: Scoring) -> None:
    run = make_run(LIMIT, trials=10)
    search(run, scoring.store, ADAPTED)
    trials = trials_of(run)
    assert [trial.number for trial in trials] == list(range(10))
    for trial, scored in zip(trials, scoring.scored, strict=True):
        candidate = Candidate.from_dict(trial.candidate)
        assert candidate == scored
        lean = Candidate.from_dict({**trial.candidate, "plan": trial.lean_plan})
        for planned, peak_bytes in (
            (candidate, trial.predicted_peak_bytes),
            (lean, trial.lean_peak_bytes),
        ):
            assert price(run.space, planned, run.method, 2).total_bytes == peak_bytes <= LIMIT
        assert lean.plan.optimizer_bits == 8
        assert trial.macs == run.pricing.macs(_row(run, candidate))
        assert unpacked(trial).mean() == trial.accuracy
        assert len(unpacked(trial)) == trial.num_images
        assert trial.is_complete is (trial.num_images == NUM_IMAGES)
    told = [e.detail for e in list_events(run.database, run.job.id) if e.kind is EventKind.TRIAL]
    assert [event["lean_peak_bytes"] for event in told] == [t.lean_peak_bytes for t in trials]
    assert logs(run) == []


def _row(run: JobRun, candidate: Candidate) -> Any:
    values = run.space.encode(candidate)
    return np.array([[v.index(values[name]) for name, v in run.space.choices().items()]])


def test_the_most_accurate_wins_with_the_fastest_plan(make_run: MakeRun, scoring: Scoring) -> None:
    run = make_run(LIMIT, trials=12)
    chosen = search(run, scoring.store, ADAPTED)
    complete = [trial for trial in trials_of(run) if trial.is_complete]
    losses = {trial.number: trial.loss for trial in complete if trial.loss is not None}
    best = max(complete, key=lambda trial: (trial.accuracy, -losses[trial.number]))
    candidate = Candidate.from_dict(best.candidate)
    assert replace(chosen, plan=candidate.plan) == candidate
    fit = fastest_fit(
        candidate, lambda one: price(run.space, one, run.method, 2).total_bytes, LIMIT
    )
    assert fit == (chosen, best.predicted_peak_bytes)
    front = list_front(run.database, run.job)
    assert front[-1].number == best.number
    found = certainty(run)
    correct = np.stack([unpacked(trial) for trial in complete])
    assert found == choice_certainty(correct, complete.index(best), run.options.seed)


def test_interrupted_it_goes_on_to_the_same_trials(
    make_run: MakeRun,
    scoring: Scoring,
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    """Twice: between two batches and within one."""
    reference = make_run(LIMIT, trials=18)
    chosen = search(reference, scoring.store, ADAPTED)
    assert not all(trial.is_complete for trial in trials_of(reference))

    run = make_run(LIMIT, trials=18)
    for num_trials in (4, 9):
        run.should_stop = stop_after(run, num_trials)
        with pytest.raises(CancelledError):
            search(run, scoring.store, ADAPTED)
        release_job(database, run.claim)
        run = run_of(settings, database, claim(), run.job.id)
        assert len(trials_of(run)) == num_trials
    assert search(run, scoring.store, ADAPTED) == chosen
    assert rows(run) == rows(reference)
    num_scored = len(scoring.scored)
    assert search(run, scoring.store, ADAPTED) == chosen
    assert len(scoring.scored) == num_scored


class OutOfOrder:
    """A pool in which the tasks given last are done first, until some of them are."""

    def __init__(self, store: Any, *, stop_after: int = 10**9) -> None:
        self._shared, self._left = Shared(store=store, adapted=ADAPTED), stop_after

    def run(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        for number, task in reversed(list(enumerate(tasks))):
            if not self._left:
                raise CancelledError("enough")
            self._left -= 1
            task.run(self._shared, partial(on_news, number), lambda: False)


def test_in_whatever_order_a_batch_is_scored_the_trials_are_the_same(
    make_run: MakeRun,
    scoring: Scoring,
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    """Interrupted as well: then a batch has gaps."""
    reference = make_run(LIMIT, trials=14)
    chosen = search(reference, scoring.store, ADAPTED)
    assert not all(trial.is_complete for trial in trials_of(reference))

    first = make_run(LIMIT, trials=14)
    pool = OutOfOrder(scoring.store, stop_after=5)
    first.__dict__["pool"] = lambda shared: nullcontext(pool)
    with pytest.raises(CancelledError):
        search(first, scoring.store, ADAPTED)
    told = [trial.number for trial in trials_of(first)]
    assert len(told) == 5
    assert told != list(range(5))
    release_job(database, first.claim)
    second = run_of(settings, database, claim(), first.job.id)
    second.__dict__["pool"] = lambda shared: nullcontext(OutOfOrder(scoring.store))
    assert search(second, scoring.store, ADAPTED) == chosen
    assert rows(second) == rows(reference)
    raced = [
        (candidate, [packed(rival) for rival in rivals])
        for candidate, rivals in zip(scoring.scored, scoring.rivals, strict=True)
    ]
    assert dict(raced[:14]) == dict(raced[14:])  # in order: of equal rivals the first counts


def test_time_ends_it_after_the_batch(
    make_run: MakeRun, scoring: Scoring, clock: list[float]
) -> None:
    shares: list[float] = []
    run = make_run(LIMIT, time_limit_seconds=50)
    run.__dict__["progress"].report = lambda stage, done, total: shares.append(done / total)
    assert run.options.trials == 10_000
    search(run, scoring.store, ADAPTED)
    trials = trials_of(run)
    assert [trial.seconds for trial in trials] == [10.0] * 8
    assert logs(run) == ["the search ends after 8 trials: its time, 50 s, is over"]
    assert shares == sorted(shares)
    assert 0.2 in shares
    search(run, scoring.store, ADAPTED)
    assert len(trials_of(run)) == 8
    assert len(logs(run)) == 1


def test_time_goes_on_where_it_was_after_an_interruption(
    make_run: MakeRun,
    scoring: Scoring,
    clock: list[float],
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    first = make_run(LIMIT, time_limit_seconds=50)
    first.should_stop = stop_after(first, 6)
    with pytest.raises(CancelledError):
        search(first, scoring.store, ADAPTED)
    release_job(database, first.claim)
    clock[0] += 1000.0
    second = run_of(settings, database, claim(), first.job.id)
    search(second, scoring.store, ADAPTED)
    assert len(trials_of(second)) == 8


def test_patience_ends_it(make_run: MakeRun, scoring: Scoring) -> None:
    scoring.share = scoring.loss = lambda candidate: 1.0
    run = make_run(LIMIT, trials=200, patience=6)
    search(run, scoring.store, ADAPTED)
    trials = trials_of(run)
    assert 6 <= len(trials) < 200
    assert len(trials) % 4 == 0
    least = min(trials, key=lambda trial: (trial.lean_peak_bytes, trial.number))
    assert least.number < len(trials) - 6
    assert [trial.number for trial in list_front(run.database, run.job)] == [least.number]
    (message,) = logs(run)
    assert f"ends after {len(trials)} trials: none of the last 6 was better" in message


def test_of_equally_accurate_ones_that_of_the_lowest_loss_wins(
    make_run: MakeRun, scoring: Scoring
) -> None:
    scoring.share = lambda candidate: 1.0
    run = make_run(LIMIT, trials=8)
    chosen = search(run, scoring.store, ADAPTED)
    assert scoring.loss(chosen) == min(map(scoring.loss, scoring.scored))


def test_an_output_that_is_no_number_is_no_loss(make_run: MakeRun, scoring: Scoring) -> None:
    scoring.loss = lambda candidate: math.inf
    run = make_run(LIMIT, trials=4)
    search(run, scoring.store, ADAPTED)
    assert {trial.loss for trial in trials_of(run)} == {None}


def test_candidates_that_run_out_end_it(make_run: MakeRun, scoring: Scoring) -> None:
    first = make_run(LIMIT, trials=10)
    smallest, smallest_bytes = smallest_feasible(first.space, first.method, 2)
    fewest = macs_of(first.space, smallest, first.method, 2)  # several take as little memory
    run = make_run(smallest_bytes, trials=10, mac_limit=fewest)
    search(run, scoring.store, ADAPTED)
    (trial,) = trials_of(run)
    assert (trial.lean_peak_bytes, trial.macs) == (smallest_bytes, fewest)
    assert logs(run) == [
        "the search ends after 1 trials: every candidate within the limits is scored"
    ]
    assert certainty(run).num_compared == 1


def test_candidates_race_those_of_earlier_batches_that_take_no_more(
    make_run: MakeRun, scoring: Scoring
) -> None:
    run = make_run(LIMIT, trials=12)
    search(run, scoring.store, ADAPTED)
    trials = trials_of(run)
    assert any(scoring.rivals)
    for trial, rivals in zip(trials, scoring.rivals, strict=True):
        expected = [
            packed(unpacked(other))
            for other in trials[: trial.number // BATCH_SIZE * BATCH_SIZE]
            if other.is_complete and other.lean_peak_bytes <= trial.lean_peak_bytes
        ]
        assert [packed(rival) for rival in rivals] == expected


@pytest.mark.parametrize("horizontal_flip", [True, False])
def test_mirror_images_count_where_they_show_the_same_class(
    make_run: MakeRun, scoring: Scoring, horizontal_flip: bool
) -> None:
    search(make_run(LIMIT, trials=1, horizontal_flip=horizontal_flip), scoring.store, ADAPTED)
    assert scoring.horizontal_flips == {horizontal_flip}


def test_without_a_race_every_image_is_looked_at(make_run: MakeRun, scoring: Scoring) -> None:
    run = make_run(LIMIT, trials=8, race=False)
    search(run, scoring.store, ADAPTED)
    assert not any(scoring.rivals)
    assert {trial.num_images for trial in trials_of(run)} == {NUM_IMAGES}


def test_progress_is_told_after_each_trial(make_run: MakeRun, scoring: Scoring) -> None:
    told: list[tuple[Stage, float]] = []
    run = make_run(LIMIT, trials=5)
    run.__dict__["progress"].report = lambda stage, done, total: told.append((stage, done / total))
    search(run, scoring.store, ADAPTED)
    assert {share for _, share in told} == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert {stage for stage, _ in told} == {Stage.SEARCH}
    told.clear()
    search(run, scoring.store, ADAPTED)  # another attempt, for which nothing is left to do
    assert told == []


def test_jobs_know_the_samplers_that_there_are() -> None:
    assert get_args(requests.SamplerName) == get_args(optuna_trials.SamplerName)


@pytest.mark.parametrize("sampler", get_args(requests.SamplerName))
def test_nothing_is_scored_beyond_the_limits(
    make_run: MakeRun, scoring: Scoring, sampler: str
) -> None:
    run = make_run(LIMIT, trials=10, sampler=sampler, mac_limit="8M")
    search(run, scoring.store, ADAPTED)
    for trial in trials_of(run):
        assert trial.predicted_peak_bytes <= LIMIT
        assert trial.macs is not None
        assert trial.macs <= 8_000_000
