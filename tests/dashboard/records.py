"""Fills a database with jobs in every state, through the functions that workers use."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from search.space.candidates import Candidate
from search.space.lite_residual_sizes import method_of
from search.space.pricing import price
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest, JobSettings, MethodChoice
from service.contract.status import Priority
from service.feasibility import search_space
from service.record.claims import (
    Claim,
    add_epoch,
    add_log,
    add_trial,
    claim_job,
    fail_job,
    lose_job,
    publish_artifact,
    release_job,
    set_progress,
)
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Dataset, Job, Trial
from service.record.files.artifacts import DEVICE_PROGRAM
from service.record.jobs import cancel_job, create_job, get_job, pause_job, retry_job
from service.record.presence import mark_seen
from service.settings import Settings
from service.views.evaluation import ClassView, EvaluationView, MistakeView, headline_accuracy
from tests.service.support.delivery import deliver
from tinytl.description.method import Method

_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwAD"
    "AgH/p+vuWQAAAABJRU5ErkJggg=="
)
EVALUATION = EvaluationView(
    headline="91.2% of 34 test images are right, but 90.0% with every class counted alike.",
    headline_accuracy=31 / 34,
    num_images=34,
    accuracy=31 / 34,
    balanced_accuracy=0.9,
    classes=[
        ClassView(name="circle", support=30, recall=28 / 30, precision=28 / 29),
        ClassView(name="square", support=4, recall=0.75, precision=0.6),
        ClassView(name="none", support=0, recall=None, precision=None),
    ],
    confusion=[[28, 2, 0], [1, 3, 0], [0, 0, 0]],
    mistakes=[MistakeView(label="square", predicted="circle", probability=0.97, image=_DOT)],
)
LIMIT_BYTES = 6_000_000
_MAX_LOST_ATTEMPTS = 3
_STAGES = ("ingest", "adapt", "search", "train", "export")


@dataclass(frozen=True, kw_only=True)
class Records:
    """Writes what a worker would have written."""

    settings: Settings
    database: Database

    def worker_is_up(self) -> None:
        mark_seen(self.database, "w1", "board:1")

    def dataset(self) -> str:
        with self.database.writing() as session:
            if session.get(Dataset, "d1") is None:
                session.add(
                    Dataset(
                        id="d1",
                        name="shapes",
                        classes=["circle", "square"],
                        counts={"train": {"circle": 40, "square": 30}},
                        num_images=70,
                        num_bytes=70_000,
                        report={
                            "formats": {"PNG": 70},
                            "smallest_image": [20, 20],
                            "largest_image": [64, 48],
                            "ignored_files": 1,
                            "notes": ["There are no test images."],
                        },
                        created_at=now(),
                    )
                )
        return "d1"

    def queued(
        self,
        name: str = "a job",
        *,
        priority: Priority = Priority.NORMAL,
        supernet: str = DEFAULT_SUPERNET,
        **settings: Any,
    ) -> Job:
        request = JobRequest(
            dataset=self.dataset(),
            memory_limit=LIMIT_BYTES,
            name=name,
            supernet=supernet,
            priority=priority,
            settings=JobSettings(resolutions=(32, 48), epochs=3, **settings),
        )
        return create_job(self.database, request)[0]

    def claim(self, worker: str = "board:1") -> Claim:
        """The oldest job that waits, taken for long."""
        claim = claim_job(
            self.database, worker=worker, lease_seconds=600, max_lost_attempts=_MAX_LOST_ATTEMPTS
        )
        assert claim is not None
        return claim

    def running(self, name: str = "a job", *, trials: int = 0, stage: str = "search") -> Claim:
        self.queued(name)
        claim = self.claim()
        for earlier in _STAGES[: _STAGES.index(stage) + 1]:
            self.progress(claim, earlier, 0.2 * _STAGES.index(earlier))
        self.add_trials(claim, trials)
        return claim

    def progress(self, claim: Claim, stage: str, share: float) -> None:
        set_progress(self.database, claim, stage=stage, progress=share, seconds_left=125.0)

    def add_trials(
        self,
        claim: Claim,
        count: int,
        *,
        num_reused: int = 0,
        num_given_up: int = 0,
        is_old: bool = False,
    ) -> list[Candidate]:
        """Random candidates within the limit, with their true prices; accuracies rise. The first
        ones are an earlier job's, the next ones given up. is_old: as a version without fronts
        had them."""
        job = get_job(self.database, claim.job_id)
        settings = JobSettings.model_validate(job.settings)
        choice = MethodChoice(job.method)
        space = search_space(job.supernet, settings, choice)
        generator = random.Random(0)
        candidates: list[Candidate] = []
        while len(candidates) < count:
            candidate = space.sample(generator)
            peak_bytes = price(space, candidate, choice.method, 2).total_bytes
            if peak_bytes > job.memory_limit_bytes:
                continue
            number = len(candidates)
            candidates.append(candidate)
            is_given_up = num_reused <= number < num_reused + num_given_up
            trial = Trial(
                job_id=job.id,
                number=number,
                candidate=candidate.to_dict(),
                predicted_peak_bytes=peak_bytes,
                lean_peak_bytes=peak_bytes,
                macs=None if is_old else 1_000_000 * (number + 2),
                accuracy=0.5 + 0.4 * number / count,
                num_images=None if is_old else 25 if is_given_up else 100,
                is_complete=not is_given_up,
                reused=number < num_reused,
                seconds=1.0,
                attempt=claim.attempt,
                finished_at=now(),
            )
            add_trial(self.database, claim, trial)
        return candidates

    def add_epochs(self, claim: Claim, training: str, count: int) -> None:
        for epoch in range(count):
            add_epoch(
                self.database,
                claim,
                training=training,
                epoch=epoch,
                num_epochs=3,
                train_loss=1.5 / (epoch + 1),
                val_accuracy=0.7 + 0.1 * epoch,
                seconds=1.0,
            )

    def log(self, claim: Claim, message: str) -> None:
        add_log(self.database, claim, message)

    def succeeded(
        self,
        name: str = "a job",
        *,
        trials: int = 24,
        num_reused: int = 0,
        num_given_up: int = 0,
        is_gain_noise: bool = False,
        num_compared: int | None = 24,
        is_old: bool = False,
        balanced_accuracy: float = 0.9,
        bundle: bytes = b"bundle",
        program_detail: dict[str, int] | None = None,
    ) -> str:
        claim = self.running(name)
        candidate = self.add_trials(
            claim, trials, num_reused=num_reused, num_given_up=num_given_up, is_old=is_old
        )[-1]
        new = {
            "macs": 12_300_000,
            "gain": {
                "points": 0.212,
                "standard_error": 0.034,
                "is_within_noise": is_gain_noise,
            },
            "choice": {
                "num_compared": num_compared,
                "standard_error": 0.03,
                "probability_best": 0.41,
                "num_rivals": 6,
            },
            "peak_meaning": "process",
            "torch_predicted_peak_bytes": 5_200_000,
            "torch_measured_peak_bytes": 5_100_000,
            "trained_by": "native",
            "memory": {
                "breakdown_bytes": {
                    "trained_values": 1_000_000,
                    "optimizer_state": 2_000_000,
                    "step": 1_100_000,
                    "program": 550_000,
                    "trainer": 350_000,
                },
                "storage_peak_bytes": 4_800_000,
            },
            "reused_trials": num_reused,
            "balanced_accuracy": balanced_accuracy,
            "headline": EVALUATION.headline,
            "headline_accuracy": headline_accuracy(0.912, balanced_accuracy),
        }
        self.progress(claim, "train", 0.6)
        self.add_epochs(claim, "tinytl", 3)
        self.add_epochs(claim, "head_only", 3)
        self.progress(claim, "export", 1.0)
        described = candidate.to_dict()
        if program_detail is not None:
            self.add_program(claim, program_detail)
        deliver(
            self.settings,
            self.database,
            claim,
            bundle,
            {
                "method": method_of(Method.LITE_RESIDUAL_BIAS, candidate.lite_residual).value,
                "subnet": described["subnet"],
                "resolution": candidate.resolution,
                "plan": described["plan"],
                "predicted_peak_bytes": 5_000_000,
                "measured_peak_bytes": 4_900_000,
                "validation_accuracy": 0.9,
                "test_accuracy": 0.912,
                "head_only_test_accuracy": 0.7,
                "trials": trials - num_reused,
                "memory": {
                    "breakdown_bytes": {
                        "frozen_weights": 500_000,
                        "trained_values": 1_000_000,
                        "optimizer_state": 2_000_000,
                        "batch": 50_000,
                        "small_tensors": 16_384,
                        "gradients": 0,
                        "kept_activations": 400_000,
                        "passing_activations": 1_000_000,
                        "workspace": 33_616,
                    },
                    "storage_peak_bytes": 4_800_000,
                },
                **({} if is_old else new),
            },
            **({} if is_old else {"evaluation": EVALUATION.model_dump_json().encode()}),
        )
        return claim.job_id

    def add_program(self, claim: Claim, detail: dict[str, int]) -> None:
        artifact = Artifact(
            job_id=claim.job_id,
            kind=DEVICE_PROGRAM,
            path="program.tfp",
            num_bytes=1,
            detail=detail,
            attempt=claim.attempt,
            created_at=now(),
        )
        publish_artifact(self.database, claim, artifact)

    def failed(self, name: str = "a job", error: str = "the disk is full") -> str:
        claim = self.running(name)
        fail_job(self.database, claim, error)
        return claim.job_id

    def paused(self, name: str = "a job") -> str:
        claim = self.running(name, trials=2)
        pause_job(self.database, claim.job_id)
        release_job(self.database, claim)
        return claim.job_id

    def cancelled(self, name: str = "a job") -> str:
        return cancel_job(self.database, self.queued(name).id).id

    def lost(self, claim: Claim) -> None:
        """Its process has died; the job waits again."""
        lose_job(self.database, claim, max_lost_attempts=_MAX_LOST_ATTEMPTS)

    def retried(self, job_id: str) -> None:
        """Somebody else was quicker."""
        retry_job(self.database, job_id)

    def stopped(self, claim: Claim) -> None:
        """The worker's answer to a wish to cancel or pause."""
        release_job(self.database, claim)
