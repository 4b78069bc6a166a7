"""The search stage: candidates proposed, scored and written down, until one is chosen."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.score import Score
from search.space.candidates import Candidate
from search.space.pricing import fastest_fit, price
from search.statistics.certainty import Choice, Correct, choice_certainty
from search.study.optuna_trials import Finished
from search.study.study import BATCH_SIZE, Proposal, Study
from service.record.claims import add_trial
from service.record.db.database import now
from service.record.db.models import Trial
from service.record.fronts import list_front
from service.record.jobs import list_trials
from service.work.job.job_run import JobRun
from service.work.job.progress import Stage
from service.work.pools.news import Done, News
from service.work.pools.pool import Pool
from service.work.pools.tasks import ScoreTask, Shared
from tinytl.training.data import ImageStore


def search(run: JobRun, store: ImageStore, adapted: AdaptedSupernet) -> Candidate:
    """Score candidates within the limits until there are enough, or time or patience is over; the
    most accurate on validation wins, of equal ones that of the lowest loss, then of least memory.

    The trials table is the truth: the study is rebuilt from it. The candidate has the fastest
    plan that fits.
    """
    _Search(run, store, adapted).run_to_its_end()
    chosen = list_front(run.database, run.job)[-1]
    fit = fastest_fit(
        Candidate.from_dict(chosen.candidate),
        lambda planned: price(run.space, planned, run.method, store.num_classes).total_bytes,
        run.job.memory_limit_bytes,
    )
    assert fit is not None, "what is on the front fits"
    return fit[0]


def certainty(run: JobRun) -> Choice:
    """How sure the choice is among the candidates that the search has scored to the end."""
    chosen = list_front(run.database, run.job)[-1]
    trials = list_trials(run.database, run.job.id, with_correct=True)
    trials = [trial for trial in trials if _is_rival(run, trial)]
    rows = np.stack([unpacked(trial) for trial in trials])
    numbers = [trial.number for trial in trials]
    return choice_certainty(rows, numbers.index(chosen.number), run.options.seed)


class _Search:
    """The study, and what goes beside it: time, rivals, rows."""

    def __init__(self, run: JobRun, store: ImageStore, adapted: AdaptedSupernet) -> None:
        self._run, self._store, self._adapted = run, store, adapted
        trials = list_trials(run.database, run.job.id, with_correct=True)
        own = [trial for trial in trials if not trial.reused]
        self._num_scored = len(own)
        self._seconds = sum(trial.seconds for trial in own)
        self._rivals = [trial for trial in trials if _is_rival(run, trial)]
        self._study = Study(
            run.space,
            run.pricing,
            limit_bytes=run.job.memory_limit_bytes,
            mac_limit=run.options.mac_limit,
            seed=run.options.seed,
            num_images=len(store.split("val")),
            chance=1 / store.num_classes,
            sampler=run.options.sampler,
            finished=[_finished(trial) for trial in trials],
            num_inherited=len(trials) - len(own),
        )

    def run_to_its_end(self) -> None:
        num_before = self._num_scored
        with self._run.pool(Shared(store=self._store, adapted=self._adapted)) as pool:
            while (end := self._end()) is None:
                self._report()
                self._run.check_stop()
                started = time.perf_counter()
                batch = self._study.ask(self._run.options.trials - self._num_scored)
                if not batch:
                    end = "every candidate within the limits is scored"
                    break
                self._score(pool, batch, started)
        if self._num_scored == num_before > 0:  # an earlier attempt has told of its end
            return
        if end and self._num_scored > num_before:
            self._run.log(f"the search ends after {self._num_scored} trials: {end}")
        self._run.progress.report(Stage.SEARCH, 1.0, 1.0)

    def _end(self) -> str | None:
        """Why the search is over, empty where all trials are done; None as long as it goes on.

        Time and patience are looked at between batches only: a search that was interrupted ends
        where it would have ended.
        """
        options = self._run.options
        if self._num_scored >= options.trials:
            return ""
        if self._num_scored % BATCH_SIZE:
            return None
        limit_seconds = options.time_limit_seconds
        if limit_seconds is not None and self._seconds >= limit_seconds:
            return f"its time, {limit_seconds} s, is over"
        if self._num_scored >= options.patience and self._study.stands_still(options.patience):
            return f"none of the last {options.patience} was better than those of no more memory"
        return None

    def _report(self) -> None:
        """By trials or by time, whatever is nearer to its end."""
        options = self._run.options
        share = self._num_scored / options.trials
        if options.time_limit_seconds is not None:
            share = max(share, min(1.0, self._seconds / options.time_limit_seconds))
        self._run.progress.report(Stage.SEARCH, share, 1.0)

    def _score(self, pool: Pool, batch: Sequence[Proposal], started: float) -> None:
        """Score a batch that was asked for since this time, and write each down when it is done.

        The seconds of a trial are those since the one before: they add up to the search's time,
        however many are scored side by side.
        """
        told = time.perf_counter()
        seconds_each = (told - started) / len(batch)

        def on_news(number: int, news: News) -> None:
            nonlocal told
            if isinstance(news, Done):
                assert news.score is not None
                time_now = time.perf_counter()
                self._write_down(batch[number], news.score, seconds_each + time_now - told)
                told = time_now
                self._report()

        pool.run([self._task(proposal) for proposal in batch], on_news)

    def _task(self, proposal: Proposal) -> ScoreTask:
        """It races those of earlier batches, wherever those of its own may be."""
        in_order = sorted(self._rivals, key=lambda rival: rival.number)
        rivals = [
            unpacked(rival)
            for rival in in_order
            if rival.number < proposal.batch_start
            and rival.lean_peak_bytes <= proposal.lean_peak_bytes
        ]
        return ScoreTask(
            candidate=proposal.candidate,
            seed=self._run.options.seed,
            horizontal_flip=self._run.options.horizontal_flip,
            rivals=tuple(rivals) if self._run.options.race else (),
        )

    def _write_down(self, proposal: Proposal, found: Score, seconds: float) -> None:
        run, candidate = self._run, proposal.candidate
        trial = Trial(
            job_id=run.job.id,
            number=proposal.number,
            candidate=candidate.to_dict(),
            predicted_peak_bytes=proposal.peak_bytes,
            lean_peak_bytes=proposal.lean_peak_bytes,
            lean_plan=replace(candidate, plan=proposal.lean_plan).to_dict()["plan"],
            macs=proposal.macs,
            accuracy=found.accuracy,
            loss=found.loss if math.isfinite(found.loss) else None,
            num_images=found.num_images,
            correct=packed(found.correct),
            is_complete=found.is_complete,
            reused=False,
            seconds=seconds,
            attempt=run.claim.attempt,
            finished_at=now(),
        )
        add_trial(run.database, run.claim, trial)
        self._study.tell(
            proposal.number,
            found.accuracy,
            loss=found.loss,
            num_images=found.num_images,
            is_complete=found.is_complete,
        )
        self._num_scored += 1
        self._seconds += trial.seconds
        if found.is_complete:
            self._rivals.append(trial)


def packed(correct: Correct) -> bytes:
    """As a trial's row holds it."""
    return np.packbits(correct).tobytes()


def unpacked(trial: Trial) -> Correct:
    """Which images a trial has right, in the order of looking."""
    assert trial.correct is not None, "trials of earlier versions are not gone on with"
    bits = np.unpackbits(np.frombuffer(trial.correct, np.uint8), count=trial.num_images)
    return bits.astype(np.bool_)


def _is_rival(run: JobRun, trial: Trial) -> bool:
    """Whether the trial could be chosen: it is complete and within the job's limits."""
    mac_limit = run.options.mac_limit
    return (
        trial.is_complete
        and trial.lean_peak_bytes <= run.job.memory_limit_bytes
        and (mac_limit is None or (trial.macs or 0) <= mac_limit)
    )


def _finished(trial: Trial) -> Finished:
    return Finished(
        number=trial.number,
        candidate=Candidate.from_dict(trial.candidate),
        accuracy=trial.accuracy,
        loss=math.inf if trial.loss is None else trial.loss,
        num_images=trial.num_images,
        is_complete=trial.is_complete,
    )
