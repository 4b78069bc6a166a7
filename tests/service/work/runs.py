"""Attempts at jobs without images, and scores that are quick to have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from search.adaptation.score import Score
from search.space.candidates import Candidate
from search.statistics import racing
from search.statistics.certainty import Correct
from service.datasets.store import get_dataset
from service.record.claims import Claim
from service.record.db.database import Database
from service.record.files.artifacts import Workplace
from service.record.jobs import get_job
from service.settings import Settings
from service.work.job.job_run import JobRun

NUM_IMAGES = 50


def run_of(settings: Settings, database: Database, claim: Claim, job_id: str) -> JobRun:
    """An attempt, without images; how far it is goes unheard."""
    job = get_job(database, job_id)
    run = JobRun(
        settings=settings,
        database=database,
        claim=claim,
        job=job,
        dataset=get_dataset(database, job.dataset_id),
        workplace=Workplace(job_dir=settings.jobs_dir / job_id, attempt=claim.attempt),
        should_stop=lambda: False,
    )
    run.__dict__["samples"] = []
    unheard = dict.fromkeys(("report", "resume", "replan"), lambda *arguments: None)
    run.__dict__["progress"] = SimpleNamespace(**unheard)
    return run


@dataclass
class Scoring:
    """Stands in for search.adaptation.score.score: accuracies are drawn, by the choice, without a
    network."""

    num_images: int = NUM_IMAGES
    scored: list[Candidate] = field(default_factory=list)
    rivals: list[Sequence[Correct]] = field(default_factory=list)
    horizontal_flips: set[bool] = field(default_factory=set)
    share: Callable[[Candidate], float] = lambda candidate: 0.3 + 0.4 * _fraction(candidate)
    loss: Callable[[Candidate], float] = lambda candidate: 2 - _fraction(candidate)

    @property
    def store(self) -> Any:
        """What of an image store the search asks for."""
        return SimpleNamespace(num_classes=2, split=lambda name: range(self.num_images))

    def __call__(
        self,
        adapted: object,
        candidate: Candidate,
        store: object,
        *,
        seed: int,
        horizontal_flip: bool,
        rivals: Sequence[Correct],
        should_stop: Callable[[], bool],
    ) -> Score:
        assert all(len(rival) == self.num_images for rival in rivals)
        should_stop()
        self.scored.append(candidate)
        self.rivals.append(rivals)
        self.horizontal_flips.add(horizontal_flip)
        right = np.random.default_rng(round(1e9 * _fraction(candidate))).random(self.num_images)
        correct = right < self.share(candidate)
        seen = correct[racing.image_order(self.num_images, seed)]
        best = max((rival.sum() for rival in rivals), default=0)
        is_complete = bool(seen.sum() >= best)
        if not is_complete:
            seen = seen[: self.num_images // 2]
        return Score(
            accuracy=float(seen.mean()),
            loss=self.loss(candidate),
            num_images=len(seen),
            correct=seen,
            is_complete=is_complete,
        )


def _fraction(candidate: Candidate) -> float:
    """From 0 to 1, the same for the same choice."""
    chosen = {name: value for name, value in candidate.to_dict().items() if name != "plan"}
    return hashlib.sha256(repr(chosen).encode()).digest()[0] / 255
