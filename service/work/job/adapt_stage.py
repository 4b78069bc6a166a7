"""The adapt stage: the supernet adapted to the dataset, or taken over from an earlier job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from search.adaptation.adapt import AdaptedSupernet
from search.adaptation.adapt import adapt as adapt_supernet
from search.errors import AdaptationError
from search.space.candidates import Candidate
from search.supernets.registry import locate
from service.record.claims import publish_adapted
from service.record.db.models import Trial
from service.record.files.artifacts import ADAPTED, ADAPTING, TRAINING
from service.record.files.blobs import hash_of
from service.record.reuse import list_adapted, list_scores
from service.work.job.job_run import JobRun
from service.work.job.progress import Stage
from tinytl.training.data import ImageStore

_FILE = "adapted.safetensors"
_KEY_VERSION = 5
"""Goes up when the same settings adapt or score otherwise."""
_MOST_REUSED = 2_000


def adapt(run: JobRun, store: ImageStore) -> AdaptedSupernet:
    """Adapt the whole supernet to the dataset, so that its subnets can be compared; or take over
    what another job has adapted alike, with the scores that are known of it.
    """
    key = adapted_key(run)
    path = run.files.found(ADAPTED, key=key)
    if path is not None:
        return AdaptedSupernet.load(path)
    found = _take_over(run, key) if run.options.reuse else None
    return found or _adapt(run, store, key)


def adapted_key(run: JobRun) -> str:
    """The same for jobs whose adapted supernets, and scores with them, are the same.

    The seed, one of the settings, decides how missing splits are made and how images are ordered.
    """
    supernet = locate(run.supernet_name, run.settings.supernet_cache_dir.expanduser())
    settings = asdict(run.adapt_settings())
    del settings["checkpoint_steps"]
    identity = {
        "version": _KEY_VERSION,
        "dataset": run.dataset.id,
        "supernet": supernet.spec.id,
        "supernet_sha256": hash_of(supernet.path),
        "settings": settings,
        "resolutions": run.space.resolutions,
        "image_size": run.image_size,
        "squaring": asdict(run.squaring),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _adapt(run: JobRun, store: ImageStore, key: str) -> AdaptedSupernet:
    looked = run.workload.looked

    def on_progress(done: int, total: int) -> None:
        run.progress.report(Stage.ADAPT, looked + (1 - looked) * done / total, 1.0)
        run.files.publish_resumable(ADAPTING)

    checkpoint = run.workplace.resumable(ADAPTING)
    go_on = partial(
        adapt_supernet,
        run.supernet,
        store,
        run.space.resolutions,
        run.adapt_settings(),
        checkpoint=checkpoint,
        on_progress=on_progress,
        should_stop=run.should_stop,
    )
    try:
        adapted = go_on()
    except AdaptationError as error:
        if not checkpoint.exists():
            raise
        run.log(f"the adaptation begins anew: {error}")
        checkpoint.unlink()
        adapted = go_on()
    path = run.workplace.path(_FILE)
    adapted.save(path)
    _publish(run, path, key, ())
    run.log(f"supernet adapted in {run.options.adapt_steps_by(run.recipe)} steps")
    return AdaptedSupernet.load(path)


def _take_over(run: JobRun, key: str) -> AdaptedSupernet | None:
    """The supernet that another job has adapted alike, if there is one; as this job's own file,
    so that the other may be deleted at any time, even meanwhile.
    """
    for source in list_adapted(run.database, key):
        path = run.files.take(source)
        if path is None:  # deleted meanwhile, or damaged
            continue
        try:
            adapted = AdaptedSupernet.load(path)
        except AdaptationError:
            continue
        scores = [
            score
            for score in list_scores(run.database, source, limit=_MOST_REUSED)
            if run.pricing.is_within_bounds(Candidate.from_dict(score.candidate))
        ]
        _publish(run, path, key, _as_own(run, scores))
        run.log(
            f"the supernet adapted by job {source.job_id} is used again, and so are "
            f"{len(scores)} scores"
        )
        return adapted
    return None


def _as_own(run: JobRun, scores: Sequence[Trial]) -> list[Trial]:
    """Trials of this job, the first ones, with what is known of these."""
    trials = []
    for number, score in enumerate(scores):
        run.check_stop()
        chosen = Candidate.from_dict(score.candidate)
        lean, lean_peak_bytes = run.pricing.lean(
            run.space.candidate(chosen.subnet, chosen.resolution, chosen.lite_residual),
            run.job.memory_limit_bytes,
        )
        described = lean.to_dict()
        trials.append(
            Trial(
                job_id=run.job.id,
                number=number,
                candidate=described,
                predicted_peak_bytes=lean_peak_bytes,
                lean_peak_bytes=lean_peak_bytes,
                lean_plan=described["plan"],
                macs=score.macs,
                accuracy=score.accuracy,
                loss=score.loss,
                num_images=score.num_images,
                correct=score.correct,
                reused=True,
                seconds=score.seconds,
                attempt=run.claim.attempt,
                finished_at=score.finished_at,
            )
        )
    return trials


def _publish(run: JobRun, path: Path, key: str, trials: Sequence[Trial]) -> None:
    run.files.keep(
        ADAPTED,
        path,
        lambda artifact: publish_adapted(run.database, run.claim, artifact, trials),
        key=key,
    )
    for name in (ADAPTING, *TRAINING):  # a training that had begun was with another one
        run.workplace.forget(name)
