"""The data's choice of a supernet, with a stand-in for the looks: what is written down, when."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.adaptation.probe import Probe
from search.space.candidates import Candidate
from search.space.pricing import with_plans
from search.supernets.registry import DEFAULT_SUPERNET, bundled_supernets
from service.record.jobs import get_job
from service.settings import AUTO_SUPERNET
from service.views.schemas import JobView
from service.work.job import choose_stage
from service.work.job.choose_stage import choose_supernet
from service.work.job.job_run import JobRun
from tinytl.accounting.inference_memory import process_bytes
from tinytl.accounting.model_size import model_bytes
from tinytl.errors import CancelledError
from tinytl.training.train import TrainSettings

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeRun = Callable[..., JobRun]
STORE: Any = None
WIDE = "ofa_proxyless_d234_e346_k357_w0.75_tinyimagenet"
LITE = "efficientnet_lite0"
TOLD = {LITE: (70, 75), WIDE: (66, 80), DEFAULT_SUPERNET: (59, 90)}
"""Of a hundred images with lite residual modules, after one epoch and after four; one less
without."""


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Candidate]]:
    found: list[tuple[str, Candidate]] = []

    def probe(
        supernet: str,
        candidate: Candidate,
        store: object,
        *,
        settings: TrainSettings,
        **named: Any,
    ) -> Probe:
        found.append((supernet, candidate))
        told = TOLD[supernet][settings.epochs > 1] - (candidate.lite_residual is None)
        return Probe(resolution=candidate.resolution, correct=np.arange(100) < told)

    monkeypatch.setattr(choose_stage, "probe", probe)
    monkeypatch.setattr(JobRun, "load_supernet", lambda self, name: name)
    return found


def test_the_one_that_tells_most_is_taken_and_written_down(
    make_run: MakeRun, looks: list[tuple[str, Candidate]]
) -> None:
    """Of those that came close to the best at first: one is too far off to be looked at twice."""
    run = make_run(24_000_000, supernet=AUTO_SUPERNET)
    choose_supernet(run, STORE)
    assert {name for name, _ in looks} == {spec.id for spec in bundled_supernets()}
    assert run.supernet_name == run.space.supernet.id == WIDE
    row = get_job(run.database, run.job.id)
    assert (row.supernet, row.chosen_supernet) == (AUTO_SUPERNET, WIDE)
    view = JobView.of(row)
    assert view.supernet_probes is not None
    best = max(view.supernet_probes, key=lambda found: found.accuracy)
    assert (best.supernet, best.accuracy, best.epochs) == (WIDE, 0.8, 4)
    assert 0.03 < best.standard_error < 0.05
    assert len(view.supernet_probes) == len(looks)
    assert {look.supernet for look in view.supernet_probes if look.epochs > 1} == {LITE, WIDE}


def test_it_is_not_done_again(make_run: MakeRun, looks: list[tuple[str, Candidate]]) -> None:
    run = make_run(24_000_000, supernet=AUTO_SUPERNET)
    choose_supernet(run, STORE)
    count = len(looks)
    run.job = get_job(run.database, run.job.id)  # as another attempt finds it
    choose_supernet(run, STORE)
    assert len(looks) == count


def test_what_is_looked_at_fits_the_limits(
    make_run: MakeRun, looks: list[tuple[str, Candidate]]
) -> None:
    limits = {
        "mac_limit": 40_000_000,
        "model_size_limit": 800_000,
        "inference_memory_limit": 68_000_000,
    }
    run = make_run(6_000_000, supernet=AUTO_SUPERNET, **limits)
    spaces = {space.supernet.id: space for space in run.spaces}
    choose_supernet(run, STORE)
    for name, candidate in looks:
        assert choose_stage.macs_of(spaces[name], candidate, run.method, 2) <= 40_000_000
        network = choose_stage.network_of(spaces[name].supernet, candidate, run.method, 2)
        assert model_bytes(network, run.method) <= 800_000
        assert process_bytes(network, candidate.resolution) <= 68_000_000
        peaks = [
            choose_stage.price(spaces[name], planned, run.method, 2).total_bytes
            for planned in with_plans(candidate)
        ]
        assert min(peaks) <= 6_000_000


def test_a_named_one_is_not_looked_at(
    make_run: MakeRun, looks: list[tuple[str, Candidate]]
) -> None:
    run = make_run(24_000_000)
    assert run.job.supernet != AUTO_SUPERNET
    choose_supernet(run, STORE)
    assert looks == []
    assert get_job(run.database, run.job.id).chosen_supernet is None


def test_a_look_that_was_stopped_leaves_nothing(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **named: object) -> Probe:
        raise CancelledError("stopped")

    monkeypatch.setattr(choose_stage, "probe", stopped)
    run = make_run(24_000_000, supernet=AUTO_SUPERNET)
    with pytest.raises(CancelledError):
        choose_supernet(run, STORE)
    assert get_job(run.database, run.job.id).chosen_supernet is None
