"""The adapt stage, with a stand-in for the adaptation: what is taken over from other jobs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.errors import AdaptationError
from search.space.architecture import SupernetSpec
from search.space.candidates import Candidate
from search.space.pricing import price
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.status import EventKind
from service.record.claims import Claim, release_job, succeed_job
from service.record.db.database import Database
from service.record.events import list_events
from service.record.files.artifacts import ADAPTED, ADAPTING, remove_leftovers
from service.record.files.blobs import Blobs
from service.record.files.collecting import collect
from service.record.jobs import delete_job, get_artifact, list_trials
from service.settings import Settings
from service.work.job import adapt_stage
from service.work.job.adapt_stage import adapt, adapted_key
from service.work.job.job_run import JobRun
from service.work.job.search_stage import search
from tests.service.support.stores import stored_path
from tests.service.work.job.test_search_stage import logs, rows, stop_after, trials_of
from tests.service.work.runs import Scoring, run_of
from tinytl.errors import CancelledError

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeRun = Callable[..., JobRun]
STORE: Any = None
ADAPTED_SUPERNET: Any = object()
LIMIT, LESS = 5_000_000, 2_000_000
STEPS = f"{SupernetSpec.parse(DEFAULT_SUPERNET).recipe.adapt_steps} steps"


class Adapted:
    """Is what it was adapted with."""

    def __init__(self, words: str) -> None:
        self.words = words

    def save(self, path: Path) -> None:
        path.write_text(self.words)

    @staticmethod
    def load(path: Path) -> "Adapted":
        words = path.read_text()
        if words == "damaged":
            raise AdaptationError("can't be used")
        return Adapted(words)


@pytest.fixture(autouse=True)
def adaptations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that adapted."""
    found: list[str] = []

    def adapt_supernet(
        supernet: object, store: object, resolutions: object, settings: Any, **named: Any
    ) -> Adapted:
        checkpoint = named["checkpoint"]
        if checkpoint.exists() and checkpoint.read_text() == "another's":
            raise AdaptationError("belongs to another adaptation")
        checkpoint.write_text("half done")
        found.append(checkpoint.parts[-3])
        return Adapted(f"{settings.steps} steps")

    monkeypatch.setattr(adapt_stage, "adapt_supernet", adapt_supernet)
    monkeypatch.setattr(adapt_stage, "AdaptedSupernet", Adapted)
    return found


def file_of(run: JobRun) -> Path:
    return stored_path(run.settings, run.database, run.job.id, ADAPTED)


@pytest.fixture
def earlier(make_run: MakeRun, scoring: Scoring) -> JobRun:
    """A job that has scored, some to the end."""
    run = make_run(LIMIT, trials=12, sampler="random")  # which is the quickest
    adapt(run, STORE)
    search(run, scoring.store, ADAPTED_SUPERNET)
    assert not all(trial.is_complete for trial in trials_of(run))
    return run


def test_scores_are_the_first_trials_of_a_later_job(
    make_run: MakeRun, earlier: JobRun, scoring: Scoring, adaptations: list[str]
) -> None:
    later = make_run(LESS, trials=6)
    assert later.job.id not in adaptations
    adapted: Any = adapt(later, STORE)
    assert adapted.words == STEPS
    assert adaptations == [earlier.job.id]
    assert file_of(later).samefile(file_of(earlier))
    complete = [trial for trial in trials_of(earlier) if trial.is_complete]
    taken = trials_of(later)
    assert [trial.number for trial in taken] == list(range(len(complete)))
    assert any(trial.lean_peak_bytes > LESS for trial in taken)
    for trial, source in zip(taken, complete, strict=True):
        assert trial.reused
        assert trial.is_complete
        assert (trial.accuracy, trial.loss) == (source.accuracy, source.loss)
        assert trial.correct == source.correct
        assert (trial.macs, trial.num_images) == (source.macs, source.num_images)
        assert trial.candidate["subnet"] == source.candidate["subnet"]
        candidate = Candidate.from_dict(trial.candidate)
        found = price(later.space, candidate, later.method, 2).total_bytes
        assert found == trial.predicted_peak_bytes == trial.lean_peak_bytes
        assert trial.lean_plan == trial.candidate["plan"]
    assert f"{len(complete)} scores" in logs(later)[-1]
    events = list_events(later.database, later.job.id)
    assert EventKind.TRIAL not in {event.kind for event in events}

    chosen = search(later, scoring.store, ADAPTED_SUPERNET)
    own = [trial for trial in trials_of(later) if not trial.reused]
    assert [trial.number for trial in own] == list(range(len(taken), len(taken) + 6))
    assert price(later.space, chosen, later.method, 2).total_bytes <= LESS
    choices = [_choice(trial.candidate) for trial in trials_of(later)]
    assert len(set(choices)) == len(choices)


def _choice(candidate: dict[str, Any]) -> str:
    return repr({name: value for name, value in candidate.items() if name != "plan"})


def test_interrupted_it_takes_over_once_and_goes_on_to_the_same_trials(
    make_run: MakeRun,
    earlier: JobRun,
    scoring: Scoring,
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    reference, first = make_run(LESS, trials=9), make_run(LESS, trials=9)
    for run in (reference, first):
        adapt(run, STORE)
    chosen = search(reference, scoring.store, ADAPTED_SUPERNET)
    num_taken = sum(trial.reused for trial in trials_of(first))
    first.should_stop = stop_after(first, num_taken + 5)
    with pytest.raises(CancelledError):
        search(first, scoring.store, ADAPTED_SUPERNET)
    release_job(database, first.claim)
    second = run_of(settings, database, claim(), first.job.id)
    adapt(second, STORE)  # by now the reference has scored more
    assert sum(trial.reused for trial in trials_of(second)) == num_taken
    assert search(second, scoring.store, ADAPTED_SUPERNET) == chosen
    assert rows(second) == rows(reference)


def test_deleting_either_job_takes_nothing_from_the_other(
    make_run: MakeRun, earlier: JobRun, database: Database, settings: Settings
) -> None:
    later = make_run(LESS)
    adapt(later, STORE)
    num_taken = len(trials_of(later))
    succeed_job(database, earlier.claim, {})
    delete_job(database, earlier.job.id)
    remove_leftovers(settings, earlier.job.id)
    collect(later.files.blobs, grace_seconds=0)
    assert file_of(later).read_text() == STEPS
    assert len(trials_of(later)) == num_taken > 0
    last = make_run(LESS)
    adapt(last, STORE)
    assert len(trials_of(last)) == num_taken
    succeed_job(database, later.claim, {})
    delete_job(database, later.job.id)
    remove_leftovers(settings, later.job.id)
    collect(later.files.blobs, grace_seconds=0)
    assert file_of(last).read_text() == STEPS


@pytest.mark.parametrize("fault", ["deleted", "deleted meanwhile", "damaged"])
def test_what_can_not_be_taken_over_is_adapted(
    make_run: MakeRun,
    earlier: JobRun,
    adaptations: list[str],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    later = make_run(LESS)
    source = file_of(earlier)
    if fault == "deleted":
        source.unlink()
    elif fault == "damaged":
        source.chmod(0o644)
        source.write_text(STEPS[::-1])
    else:
        fetch = Blobs.fetch

        def fetch_late(blobs: Blobs, sha256: str, target: Path) -> None:
            succeed_job(database, earlier.claim, {})
            delete_job(database, earlier.job.id)
            assert collect(blobs, grace_seconds=0).num_blobs == 1
            fetch(blobs, sha256, target)

        monkeypatch.setattr(Blobs, "fetch", fetch_late)
    found: Any = adapt(later, STORE)
    assert found.words == STEPS
    assert file_of(later).read_text() == STEPS
    assert adaptations == [earlier.job.id, later.job.id]
    assert trials_of(later) == []


def test_where_that_is_not_wanted_nothing_is_taken_over(
    make_run: MakeRun, earlier: JobRun, adaptations: list[str]
) -> None:
    later = make_run(LESS, reuse=False)
    adapt(later, STORE)
    assert adaptations == [earlier.job.id, later.job.id]
    assert trials_of(later) == []


def test_what_need_not_be_the_same(make_run: MakeRun, earlier: JobRun) -> None:
    for asked in (
        *({"trials": 3}, {"epochs": 1}, {"race": False}),
        *({"batch_size": 4}, {"mac_limit": "20M"}, {"sampler": "tpe"}),
    ):
        later = make_run(LIMIT, **asked)
        assert adapted_key(later) == adapted_key(earlier), asked
        adapt(later, STORE)
        assert trials_of(later) != [], asked


def test_what_must_be_the_same(make_run: MakeRun, earlier: JobRun) -> None:
    for asked in (
        *({"seed": 1}, {"adapt_steps": 9}, {"resolutions": [48, 64]}),
        *({"label_smoothing": 0.2}, {"horizontal_flip": False}, {"min_crop_scale": 0.7}),
        {"fit": "pad"},
    ):
        later = make_run(LIMIT, **asked)
        assert adapted_key(later) != adapted_key(earlier), asked
        adapt(later, STORE)
        assert trials_of(later) == [], asked


def test_method_and_supernet_must_be_the_same(
    make_run: MakeRun, earlier: JobRun, tmp_path: Path
) -> None:
    keys = {adapted_key(earlier)}
    for method in ("bias", "lite_residual+bias"):
        later = make_run(LIMIT)
        later.job.method = method
        keys.add(adapted_key(later))
    supernet = tmp_path / f"{later.space.supernet.id}.safetensors"
    for content in ("one", "another"):
        supernet.write_text(content)
        other = make_run(LIMIT)
        other.job.supernet = str(supernet)
        keys.add(adapted_key(other))
    assert len(keys) == 5


def test_a_checkpoint_that_can_not_be_gone_on_from_is_given_up(
    make_run: MakeRun, adaptations: list[str]
) -> None:
    run = make_run(LIMIT)
    run.workplace.path(ADAPTING).write_text("another's")
    adapted: Any = adapt(run, STORE)
    assert adapted.words == STEPS
    assert adaptations == [run.job.id]
    assert "the adaptation begins anew: belongs to another adaptation" in logs(run)


def test_another_attempt_uses_what_the_first_has_adapted(
    make_run: MakeRun,
    adaptations: list[str],
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    first = make_run(LIMIT)
    adapt(first, STORE)
    left = [path.name for path in first.workplace.directory.iterdir()]
    assert left == ["adapted.safetensors"]
    release_job(database, first.claim)
    second = run_of(settings, database, claim(), first.job.id)
    adapt(second, STORE)
    assert adaptations == [first.job.id]


def test_what_an_earlier_version_has_adapted_is_adapted_anew(
    make_run: MakeRun,
    earlier: JobRun,
    scoring: Scoring,
    adaptations: list[str],
    database: Database,
    settings: Settings,
    claim: Callable[[], Claim],
) -> None:
    """With the trials and trainings that belong to it."""
    with database.writing() as session:
        artifact = get_artifact(database, earlier.job.id, ADAPTED)
        assert artifact is not None
        artifact.key = artifact.sha256 = None
        session.merge(artifact)
    training = earlier.workplace.path("tinytl.safetensors")
    training.write_text("half done")
    release_job(database, earlier.claim)
    again = run_of(settings, database, claim(), earlier.job.id)
    adapt(again, STORE)
    assert adaptations == [earlier.job.id] * 2
    assert list_trials(database, earlier.job.id) == []
    assert not training.exists()
