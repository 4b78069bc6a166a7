"""The stages of a job. Each is idempotent: what an earlier attempt finished is found, not redone,
and what it had begun goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import dropwhile

from search.adapted import AdaptedSupernet
from search.certainty import paired_gain
from search.pricing import network_of, price, with_plans
from search.space import Candidate
from service.datasets.store import unpacked_images
from service.errors import ServiceError
from service.feasibility import macs_of
from service.front import front_view
from service.record.artifacts import BUNDLE
from service.record.fronts import list_front
from service.record.jobs import get_artifact, list_trials
from service.record.models import Artifact
from service.work.job_run import JobRun
from service.work.progress import Stage
from service.work.report import make_card, make_report
from service.work.search_stage import certainty
from tinytl.bundle import save_bundle
from tinytl.data import ImageStore, Sample, split_samples
from tinytl.data import ingest as ingest_images
from tinytl.measure import Measurement, measure_in_fresh_process
from tinytl.network import Network, build_network
from tinytl.train import EpochReport, correct_images
from tinytl.train import train as train_network
from tinytl.trainable import Method
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
    for planned in _confirmable(run, candidate, store.num_classes):
        run.check_stop()
        measured = measure_in_fresh_process(
            network,
            run.method,
            planned.plan,
            planned.resolution,
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
            path = run.workplace.path("measurement.json")
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network to deliver, and the same subnet with only its head trained, to compare."""

    network: Network
    validation_accuracy: float
    history: tuple[EpochReport, ...]
    head_only: Network


def train(
    run: JobRun, store: ImageStore, adapted: AdaptedSupernet, candidate: Candidate
) -> Trained:
    """Train the chosen subnet as the device would, and the head-only one as long."""
    config, weights = adapted.subnet_weights(candidate, store)
    network = build_network(config, run.method, weights)
    work = run.train_work
    share = (work.measured, work.trained)
    history = _train_one(run, store, network, candidate, "tinytl", share=share)

    plain = AdaptedSupernet.fresh(
        run.supernet, store.num_classes, method=Method.HEAD, seed=run.options.seed
    )
    config, weights = plain.subnet_weights(candidate, store)
    head_only = build_network(config, Method.HEAD, weights)
    _train_one(run, store, head_only, candidate, "head_only", share=(work.trained, 1.0))
    return Trained(
        network=network,
        validation_accuracy=history[-1].val_accuracy,
        history=history,
        head_only=head_only,
    )


def _train_one(
    run: JobRun,
    store: ImageStore,
    network: Network,
    candidate: Candidate,
    name: str,
    *,
    share: tuple[float, float],
) -> tuple[EpochReport, ...]:
    """Train with a checkpoint per epoch; a finished training is read back from its last one.

    share: where this training begins and ends in the stage's progress.
    """
    start, end = share

    def on_epoch(report: EpochReport) -> None:
        run.tell_epoch(name, report)

    def on_resume(history: Sequence[EpochReport]) -> None:
        for report in history:  # saved by an attempt that died before it told of it
            run.tell_epoch(name, report)

    def on_step(done: int, total: int) -> None:
        run.progress.report(Stage.TRAIN, start + (end - start) * done / total, 1.0)

    return train_network(
        network,
        store,
        resolution=candidate.resolution,
        plan=candidate.plan,
        settings=run.train_settings(),
        checkpoint=run.workplace.resumable(f"{name}.safetensors"),
        on_epoch=on_epoch,
        on_resume=on_resume,
        on_step=on_step,
        should_stop=run.should_stop,
    )


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
        "macs": macs_of(candidate, run.space, run.method, store.num_classes),
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
        plan=candidate.plan,
        classes=store.classes,
        report=report,
        card=make_card(run.job, run.dataset, result, num_test_images=len(correct)),
    )
    bundle = run.files.publish(BUNDLE, path, detail=result)
    run.progress.report(Stage.EXPORT, 1, 1)
    return bundle
