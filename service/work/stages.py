"""The stages of a job. Each is idempotent: what an earlier attempt finished is found, not redone,
and what it had begun goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import dropwhile

from search.certainty import paired_gain
from search.pricing import macs_of, network_of, price, with_plans
from search.space import Candidate
from service.datasets.store import unpacked_images
from service.errors import ServiceError
from service.front import front_view
from service.record.artifacts import BUNDLE
from service.record.fronts import list_front
from service.record.jobs import get_artifact, list_trials
from service.record.models import Artifact
from service.work.job_run import JobRun
from service.work.progress import Stage
from service.work.report import make_card, make_report
from service.work.search_stage import certainty
from service.work.train_stage import Trained
from tinytl.bundle import save_bundle
from tinytl.data import ImageStore, Sample, split_samples
from tinytl.data import ingest as ingest_images
from tinytl.measure import Measurement, measure_in_fresh_process
from tinytl.train import correct_images
from tinytl.units import format_bytes

_IMAGES = "images"
_MEASUREMENT = "measurement"
_EVALUATION_BATCH = 64


def ingest(run: JobRun) -> ImageStore:
    """Decode every image once, at the size that the largest resolution needs."""
    path = run.files.found_folder(_IMAGES)
    if path is None:
        path = run.workplace.path(_IMAGES)
        with unpacked_images(
            run.dataset, run.settings, run.files.blobs, run.workplace.path("dataset")
        ) as images:
            found = [Sample(path=i.path, label=i.label, split=i.split) for i in images]
            samples = split_samples(found, seed=run.options.seed)
            ingest_images(
                samples,
                run.dataset.classes,
                path,
                image_size=run.space.resolutions[-1],
                on_progress=lambda done, total: run.progress.report(Stage.INGEST, done, total),
                should_stop=run.should_stop,
            )
        run.files.publish_folder(_IMAGES, path)
        run.log(f"{len(samples)} images decoded")
    return ImageStore.open(path)


def confirm(run: JobRun, store: ImageStore, candidate: Candidate) -> tuple[Candidate, Measurement]:
    """The candidate with the fastest plan whose measured peak is within the limit too.

    Predictions are made never to be too low, but processors differ: here the limit is tested by
    training for real, in a fresh process, before anything is trained for long.
    """
    artifact = get_artifact(run.database, run.job.id, _MEASUREMENT)
    if artifact is not None:
        found = Candidate.from_dict(artifact.detail["candidate"])
        if replace(found, plan=candidate.plan) == candidate:  # else an earlier version chose it
            return found, Measurement(**artifact.detail["measurement"])
    run.progress.report(Stage.TRAIN, 0.0, 1.0)
    limit_bytes = run.job.memory_limit_bytes
    network = network_of(run.space.supernet, candidate, run.method, store.num_classes)
    path = run.workplace.path("measurement.json")
    for planned in _confirmable(run, candidate, store.num_classes):
        run.check_stop()
        measured = measure_in_fresh_process(
            network,
            run.method,
            planned.plan,
            planned.resolution,
            scratch=path.parent,
            image_size=run.space.resolutions[-1],
            on_step=run.check_stop,
        )
        run.log(
            f"training with {planned.plan.describe()} takes "
            f"{format_bytes(measured.measured_peak_bytes)} at its peak, "
            f"{format_bytes(measured.predicted_peak_bytes)} were predicted, the limit is "
            f"{format_bytes(limit_bytes)}"
        )
        if measured.measured_peak_bytes <= limit_bytes:
            detail = {"candidate": planned.to_dict(), "measurement": asdict(measured)}
            path.write_text(json.dumps(detail))
            run.files.publish(_MEASUREMENT, path, detail=detail)
            run.progress.report(Stage.TRAIN, run.train_work.measured, 1.0)
            return planned, measured
    raise ServiceError(
        f"training takes {format_bytes(measured.measured_peak_bytes)} on this machine, above the "
        f"limit of {format_bytes(limit_bytes)}, where "
        f"{format_bytes(measured.predicted_peak_bytes)} were predicted; please report this"
    )


def _confirmable(run: JobRun, candidate: Candidate, num_classes: int) -> Iterator[Candidate]:
    """The candidate, then with each slower plan that is priced below all before it."""

    def price_bytes(planned: Candidate) -> int:
        return price(run.space, planned, run.method, num_classes).total_bytes

    yield candidate
    below_bytes = price_bytes(candidate)
    for planned in dropwhile(lambda planned: planned != candidate, with_plans(candidate)):
        peak_bytes = price_bytes(planned)
        if peak_bytes < below_bytes:
            below_bytes = peak_bytes
            yield planned


def export(
    run: JobRun,
    store: ImageStore,
    candidate: Candidate,
    measured: Measurement,
    trained: Trained,
) -> Artifact:
    """Test for the first time and write the bundle; its detail is the job's result."""
    run.check_stop()
    run.progress.report(Stage.EXPORT, 0, 1)
    correct, head_only_correct = (
        correct_images(
            network,
            store.split("test"),
            resolution=candidate.resolution,
            batch_size=_EVALUATION_BATCH,
            should_stop=run.should_stop,
        )
        for network in (trained.network, trained.head_only)
    )
    described = candidate.to_dict()
    trials = list_trials(run.database, run.job.id)
    num_reused = sum(trial.reused for trial in trials)
    result = {
        "subnet": described["subnet"],
        "resolution": candidate.resolution,
        "plan": described["plan"],
        "predicted_peak_bytes": measured.predicted_peak_bytes,
        "measured_peak_bytes": measured.measured_peak_bytes,
        "validation_accuracy": trained.validation_accuracy,
        "test_accuracy": float(correct.mean()),
        "head_only_test_accuracy": float(head_only_correct.mean()),
        "macs": macs_of(run.space, candidate, run.method, store.num_classes),
        "gain": asdict(paired_gain(correct, head_only_correct)),
        "choice": asdict(certainty(run)),
        "trials": len(trials) - num_reused,
        "reused_trials": num_reused,
        "memory": {
            "breakdown_bytes": measured.breakdown_bytes,
            "storage_peak_bytes": measured.storage_peak_bytes,
        },
    }
    report = make_report(
        run.job,
        run.dataset,
        result,
        measurement=asdict(measured),
        epochs=[asdict(epoch) for epoch in trained.history],
        trials=trials,
        front=front_view(
            run.job, list_front(run.database, run.job), num_classes=store.num_classes
        ),
    )
    path = run.workplace.path("model.tinyfit.zip")
    save_bundle(
        path,
        trained.network,
        resolution=candidate.resolution,
        image_size=store.image_size,
        plan=candidate.plan,
        classes=store.classes,
        report=report,
        card=make_card(run.job, run.dataset, result, split_sizes=run.split_sizes),
    )
    bundle = run.files.publish(BUNDLE, path, detail=result)
    run.progress.report(Stage.EXPORT, 1, 1)
    return bundle
