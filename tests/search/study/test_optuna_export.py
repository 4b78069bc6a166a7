"""A search as a study in Optuna's storage."""

import random
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest

from search.errors import SearchError
from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.study.optuna_export import ExportedTrial, export_study

SPACE = SearchSpace(
    supernet=SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35"), resolutions=(32, 48)
)
BEGAN = datetime(2026, 3, 1, 12)


def trials():
    rng = random.Random(0)
    within = ExportedTrial(
        candidate=SPACE.sample(rng),
        accuracy=0.75,
        peak_bytes=4_000_000,
        excess=(-1_000_000.0,),
        started_at=BEGAN,
        finished_at=BEGAN + timedelta(seconds=2),
        attributes={"number": 0},
    )
    over = replace(within, candidate=SPACE.sample(rng), excess=(500_000.0,), peak_bytes=5_500_000)
    given_up = replace(within, candidate=SPACE.sample(rng), accuracy=None)
    return [within, over, given_up]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_optuna_reads_what_was_found(url):
    export_study(url, "mine", SPACE, trials(), {"job": "j1"})
    study = optuna.load_study(study_name="mine", storage=url)
    assert study.user_attrs == {"job": "j1"}
    assert study.metric_names == ["validation accuracy", "training memory (bytes)"]
    within, over, given_up = study.get_trials()
    assert within.values == [0.75, 4_000_000]
    assert SPACE.encode(trials()[0].candidate) == within.params
    assert within.duration == timedelta(seconds=2)
    assert given_up.state is optuna.trial.TrialState.PRUNED
    assert [trial.number for trial in study.best_trials] == [0]
    # as the dashboard reads it, and as Optuna does
    assert [t.system_attrs["constraints"] for t in (within, over)] == [[-1e6], [5e5]]
    assert max(over.constraints.values()) > 0 >= max(within.constraints.values())


def test_a_study_is_written_once(url):
    export_study(url, "mine", SPACE, trials()[:1], {})
    with pytest.raises(SearchError, match="has a study 'mine' already"):
        export_study(url, "mine", SPACE, trials(), {})
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 1
    export_study(url, "another", SPACE, [], {})


def test_nothing_is_left_of_one_that_failed(url, monkeypatch):
    def fail(study, trials):
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "add_trials", fail)
    with pytest.raises(KeyboardInterrupt):
        export_study(url, "mine", SPACE, trials(), {})
    assert optuna.get_all_study_names(url) == []


@pytest.mark.parametrize("bad", ["study.db", "nosuch://host/x", "sqlite:////nowhere/at/all.db"])
def test_what_is_no_database_is_refused(bad):
    with pytest.raises(SearchError, match="storage"):
        export_study(bad, "mine", SPACE, [], {})
