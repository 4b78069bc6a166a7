"""The stages of a job. Each is idempotent: what an earlier attempt finished is found, not redone,
and what it had begun goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import dropwhile
from pathlib import Path

from search.adaptation.head_only import head_only, pretrained_subnet
from search.space.candidates import Candidate
from search.space.lite_residual_sizes import method_of
from search.space.pricing import macs_of, network_of, price, with_plans
from search.statistics.certainty import paired_gain
from service.datasets.store import unpacked_images
from service.errors import ServiceError
from service.record.db.models import Artifact
from service.record.files.artifacts import BUNDLE, EVALUATION, ONNX
from service.record.fronts import list_front
from service.record.jobs import get_artifact, list_trials
from service.views.front import front_view
from service.work.job.device_stage import publish_program
from service.work.job.evaluation import evaluate, with_pictures
from service.work.job.job_run import JobRun
from service.work.job.onnx_stage import export_onnx, repeatable
from service.work.job.progress import Stage
from service.work.job.report import make_card, make_report
from service.work.job.search_stage import certainty
from service.work.job.train_stage import Trained
from tinytl.accounting.inference_memory import process_bytes
from tinytl.accounting.model_size import model_bytes
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method, PeakMeaning
from tinytl.description.plan import Plan
from tinytl.engine.network import Network
from tinytl.measurement.measure import Measurement, measure_in_fresh_process
from tinytl.native.build import BuildError
from tinytl.native.measure import measure_process
from tinytl.onnx_export.footprint import Footprint
from tinytl.training.bundle import save_bundle
from tinytl.training.data import ImageStore, Sample, split_samples
from tinytl.training.data import ingest as ingest_images
from tinytl.training.train import class_probabilities
from tinytl.units import format_bytes

_IMAGES = "images"
_MEASUREMENT = "measurement"
_EVALUATION_BATCH = 32


def ingest(run: JobRun) -> ImageStore:
    """Decode every image once, at the size that the largest resolution needs."""
    path = run.files.found_folder(_IMAGES)
    if path is None or ImageStore.open(path).squaring != run.squaring:  # of an earlier version
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
                image_size=run.image_size,
                squaring=run.squaring,
                on_progress=lambda done, total: run.progress.report(Stage.INGEST, done, total),
                should_stop=run.should_stop,
            )
        run.files.publish_folder(_IMAGES, path)
        run.log(f"{len(samples)} images decoded")
    return ImageStore.open(path)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Peaks of the chosen training. predicted, measured: those that the limit binds, the latter
    None where the device trainer could not be built; breakdown: the prediction's parts. torch: of
    the torch engine."""

    predicted_bytes: int
    breakdown_bytes: dict[str, int]
    measured_bytes: int | None
    torch: Measurement


def confirm(run: JobRun, store: ImageStore, candidate: Candidate) -> tuple[Candidate, Measured]:
    """The candidate with the fastest plan whose measured peak is within the limit too.

    Predictions are made never to be too low, but processors differ: here the limit is tested by
    training for real, in a fresh process, before anything is trained for long.
    """
    artifact = get_artifact(run.database, run.job.id, _MEASUREMENT)
    if artifact is not None:
        found = Candidate.from_dict(artifact.detail["candidate"])
        if replace(found, plan=candidate.plan) == candidate:  # else an earlier version chose it
            return found, _measured(
                run,
                found,
                store.num_classes,
                Measurement(**artifact.detail["measurement"]),
                artifact.detail.get("process_bytes"),
            )
    run.progress.report(Stage.TRAIN, 0.0, 1.0)
    limit_bytes = run.job.memory_limit_bytes
    network = network_of(run.space.supernet, candidate, run.method, store.num_classes)
    path = run.workplace.path("measurement.json")
    for planned in _confirmable(run, candidate, store.num_classes):
        run.check_stop()
        method = method_of(run.method, planned.lite_residual)
        where = network, method, planned.plan, planned.resolution
        process_bytes = _process_bytes(run, *where, scratch=path.parent)
        of_torch = measure_in_fresh_process(
            *where, scratch=path.parent, image_size=run.image_size, on_step=run.check_stop
        )
        measured = _measured(run, planned, store.num_classes, of_torch, process_bytes)
        run.log(
            f"training with {planned.plan.describe()} takes {_peaks_text(run, measured)}; the "
            f"limit is {format_bytes(limit_bytes)}"
        )
        if (measured.measured_bytes or measured.predicted_bytes) <= limit_bytes:
            detail = {
                "candidate": planned.to_dict(),
                "measurement": asdict(of_torch),
                "process_bytes": process_bytes,
            }
            path.write_text(json.dumps(detail))
            run.files.publish(_MEASUREMENT, path, detail=detail)
            run.progress.report(Stage.TRAIN, run.workload.measured, 1.0)
            return planned, measured
    raise ServiceError(
        f"training takes {_peaks_text(run, measured)} on this machine, above the limit of "
        f"{format_bytes(limit_bytes)}; please report this"
    )


def _process_bytes(
    run: JobRun,
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    scratch: Path,
) -> int | None:
    """Measured, of the device trainer's process; None where peaks are torch's, or where it can't
    be built."""
    if run.job.peak_meaning is PeakMeaning.TORCH:
        return None
    try:
        return measure_process(
            network,
            method,
            plan,
            resolution,
            image_size=run.image_size,
            scratch=scratch,
            should_stop=run.should_stop,
        )
    except BuildError as error:
        run.log(f"the device trainer's process can't be measured: {error}")
        return None


def _measured(
    run: JobRun,
    candidate: Candidate,
    num_classes: int,
    of_torch: Measurement,
    process_bytes: int | None,
) -> Measured:
    if run.job.peak_meaning is PeakMeaning.TORCH:
        return Measured(
            predicted_bytes=of_torch.predicted_peak_bytes,
            breakdown_bytes=of_torch.breakdown_bytes,
            measured_bytes=of_torch.measured_peak_bytes,
            torch=of_torch,
        )
    predicted = price(run.space, candidate, run.method, num_classes)
    return Measured(
        predicted_bytes=predicted.total_bytes,
        breakdown_bytes=predicted.breakdown,
        measured_bytes=process_bytes,
        torch=of_torch,
    )


def _peaks_text(run: JobRun, measured: Measured) -> str:
    """What a training takes, measured and predicted."""
    predicted, meaning = format_bytes(measured.predicted_bytes), run.job.peak_meaning.describe()
    if measured.measured_bytes is None:
        return f"{predicted} at its peak {meaning}, by prediction"
    return (
        f"{format_bytes(measured.measured_bytes)} at its peak {meaning}, where {predicted} were "
        f"predicted"
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


def _validation_accuracy(run: JobRun, trained: Trained) -> float:
    if trained.validation_accuracy is not None:
        return trained.validation_accuracy
    return list_front(run.database, run.job)[-1].accuracy


def export(
    run: JobRun,
    store: ImageStore,
    candidate: Candidate,
    measured: Measured,
    trained: Trained,
) -> Artifact:
    """Test for the first time and write the bundle; its detail is the job's result."""
    run.check_stop()
    run.progress.report(Stage.EXPORT, 0, 1)
    test = store.split("test")
    probabilities, of_head_only = (
        class_probabilities(
            network,
            test,
            resolution=candidate.resolution,
            batch_size=_EVALUATION_BATCH,
            should_stop=run.should_stop,
        )
        for network in (trained.network, _head_only(run, store, candidate, trained))
    )
    correct = probabilities.argmax(1) == test.labels
    head_only_correct = of_head_only.argmax(1) == test.labels
    evaluation, pictures = evaluate(test, store.classes, probabilities)
    save = partial(
        save_bundle,
        network=trained.network,
        resolution=candidate.resolution,
        image_size=store.image_size,
        squaring=store.squaring,
        plan=candidate.plan,
        classes=store.classes,
    )
    draft = run.workplace.path("draft.tinyfit.zip")
    save(draft, report={}, card="")
    onnx, checks = export_onnx(run, store, draft, probabilities)
    predicted_inference_bytes = process_bytes(trained.network.config, candidate.resolution)
    _tell_inference(run, checks["int8"].footprint, predicted_inference_bytes)
    described = candidate.to_dict()
    trials = list_trials(run.database, run.job.id)
    num_reused = sum(trial.reused for trial in trials)
    result = {
        "supernet": run.supernet_name,
        "method": trained.network.method.value,
        "subnet": described["subnet"],
        "resolution": candidate.resolution,
        "plan": described["plan"],
        "peak_meaning": run.job.peak_meaning.value,
        "predicted_peak_bytes": measured.predicted_bytes,
        "measured_peak_bytes": measured.measured_bytes
        and (trained.process_peak_bytes or measured.measured_bytes),
        "torch_predicted_peak_bytes": measured.torch.predicted_peak_bytes,
        "torch_measured_peak_bytes": measured.torch.measured_peak_bytes,
        "trained_by": trained.trained_by,
        "validation_accuracy": _validation_accuracy(run, trained),
        "test_accuracy": float(correct.mean()),
        "balanced_accuracy": evaluation.balanced_accuracy,
        "headline": evaluation.headline,
        "headline_accuracy": evaluation.headline_accuracy,
        "head_only_test_accuracy": float(head_only_correct.mean()),
        "model_bytes": model_bytes(trained.network.config, trained.network.method),
        "predicted_inference_bytes": predicted_inference_bytes,
        "macs": macs_of(run.space, candidate, run.method, store.num_classes),
        "gain": asdict(paired_gain(correct, head_only_correct)),
        "choice": asdict(certainty(run)),
        "trials": len(trials) - num_reused,
        "reused_trials": num_reused,
        "memory": {
            "breakdown_bytes": measured.breakdown_bytes,
            "storage_peak_bytes": measured.torch.storage_peak_bytes,
        },
        "onnx": {precision: repeatable(check) for precision, check in checks.items()},
    }
    report = make_report(
        run.job,
        run.dataset,
        result,
        evaluation=evaluation,
        measurement=asdict(measured.torch),
        epochs=[asdict(epoch) for epoch in trained.history],
        trials=trials,
        front=front_view(
            run.job, list_front(run.database, run.job), num_classes=store.num_classes
        ),
    )
    path = run.workplace.path("model.tinyfit.zip")
    card = make_card(run.job, run.dataset, result, evaluation, split_sizes=run.split_sizes)
    save(path, report=report, card=card, attachments=pictures)
    shown = run.workplace.path("evaluation.json")
    shown.write_text(json.dumps(with_pictures(evaluation, pictures)))
    run.files.publish(EVALUATION, shown)
    run.files.publish(ONNX, onnx)
    publish_program(run, path)
    bundle = run.files.publish(BUNDLE, path, detail=result)
    run.progress.report(Stage.EXPORT, 1, 1)
    return bundle


def _head_only(run: JobRun, store: ImageStore, candidate: Candidate, trained: Trained) -> Network:
    """The subnet as pretrained, with a head that is fitted: what the training started from, or
    what it may be compared with."""
    weights = trained.start
    if run.recipe.starts_adapted:
        weights = pretrained_subnet(
            run.supernet,
            candidate,
            store,
            splits=run.trained_splits,
            seed=run.options.seed,
            should_stop=run.should_stop,
        )
    return head_only(run.space.supernet, candidate, weights, store.num_classes)


def _tell_inference(run: JobRun, measured: Footprint | None, predicted_bytes: int) -> None:
    """In the job's log: what a process took is never the same twice, so results don't have it."""
    if measured is None:
        return
    limit_bytes = run.options.inference_memory_limit
    limit = "" if limit_bytes is None else f", the limit is {format_bytes(limit_bytes)}"
    run.log(
        f"classifying with the model in 8 bits takes {format_bytes(measured.process_bytes)} here, "
        f"{format_bytes(predicted_bytes)} were predicted{limit}"
    )
