import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from search.sampler.breeding import Breeder, Facts
from search.sampler.front import Staircase
from search.sampler.sampler import PredictorSampler, _families

CHOICES = {f"x{i}": (1, 2, 4) for i in range(12)} | {"mode": ("plain", "wide")}
DISTRIBUTIONS = {name: CategoricalDistribution(values) for name, values in CHOICES.items()}
EFFECTS = np.linspace(-0.1, 1, 13)
LIMIT = 20.0


def facts(rows):
    """Early choices take memory, late ones multiply-accumulates."""
    weights = np.linspace(2, 0.5, 13)
    return Facts(5 + rows @ weights, 10 + rows @ weights[::-1])


def accuracy(rows):
    return 0.2 + 0.5 * np.tanh(rows @ EFFECTS / 8)


def make_study(**options):
    sampler = PredictorSampler(CHOICES, facts, **{"limit_bytes": LIMIT, "seed": 1, **options})
    return optuna.create_study(direction="maximize", sampler=sampler)


def row_of(trial):
    return np.array([values.index(trial.params[name]) for name, values in CHOICES.items()])


def run(study, num_trials, batch=4):
    """Rows in the order of asking."""
    while len(study.trials) < num_trials:
        asked = [study.ask(DISTRIBUTIONS) for _ in range(batch)]
        for trial in asked:
            study.tell(trial, float(accuracy(row_of(trial)[None])[0]))
    return np.array([row_of(trial) for trial in study.trials[:num_trials]])


@pytest.fixture(scope="module")
def rows():
    return run(make_study(), 40)


def test_only_feasible_and_none_twice(rows):
    assert (facts(rows).peak_bytes <= LIMIT).all()
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_ends_of_the_front_come_first(rows):
    assert rows[0].tolist() == [0] * 13
    macs = facts(rows).macs
    assert macs[1] > 0.9 * macs.max()


def test_better_than_random_in_a_fraction_of_the_trials(rows):
    rng = np.random.default_rng(0)
    random_rows = rng.integers([3] * 12 + [2], size=(20000, 13))
    random_rows = random_rows[facts(random_rows).peak_bytes <= LIMIT]
    assert len(random_rows) > 1000
    assert accuracy(rows).max() > accuracy(random_rows).max()

    def hypervolume(found):
        stairs = Staircase(facts(found).peak_bytes, accuracy(found), limit_bytes=LIMIT, chance=0.1)
        return stairs.hypervolume()

    assert hypervolume(rows) > hypervolume(random_rows[:1000])


def test_second_limit():
    rows = run(make_study(mac_limit=17.0), 24)
    assert (facts(rows).macs <= 17).all()
    assert (facts(rows).peak_bytes <= LIMIT).all()


def test_same_seed_same_trials(rows):
    assert (run(make_study(), 20) == rows[:20]).all()
    assert (run(make_study(seed=2), 20) != rows[:20]).any()


def test_a_rebuilt_study_goes_on_as_the_first(rows):
    study = make_study()
    for row in rows[:24]:
        params = {name: values[i] for (name, values), i in zip(CHOICES.items(), row, strict=True)}
        value = float(accuracy(row[None])[0])
        study.add_trial(create_trial(params=params, distributions=DISTRIBUTIONS, value=value))
    assert (run(study, 40) == rows).all()


def test_pending_trials_are_taken_into_account():
    study = make_study()
    run(study, 16)
    asked = [row_of(study.ask(DISTRIBUTIONS)) for _ in range(8)]
    assert len(np.unique(asked, axis=0)) == 8


def test_failed_trials_are_passed_over():
    study = make_study()
    run(study, 12)
    study.tell(study.ask(DISTRIBUTIONS), state=TrialState.FAIL)
    assert len(run(study, 20)) == 20


def test_a_space_that_runs_out():
    choices = {"a": (1, 2), "b": (1, 2)}
    distributions = {name: CategoricalDistribution(values) for name, values in choices.items()}
    sampler = PredictorSampler(
        choices,
        lambda rows: Facts(1.0 + rows.sum(axis=1), 1.0 + rows.sum(axis=1)),
        limit_bytes=2.5,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found = []
    for _ in range(5):
        trial = study.ask(distributions)
        found.append(tuple(trial.params.values()))
        study.tell(trial, 0.5)
    assert set(found) == {(1, 1), (1, 2), (2, 1)}


def test_canonical_rows_are_one_candidate():
    def canonical(rows):
        rows = rows.copy()
        rows[rows[:, 0] == 0, 1:3] = 0
        return rows

    rows = run(make_study(canonical=canonical), 24)
    assert (canonical(rows) == rows).all()


def test_other_parameters_are_refused():
    study = make_study()
    with pytest.raises(ValueError, match="'other'"):
        study.ask().suggest_int("other", 0, 1)


def test_children_take_after_their_parents():
    breeder = Breeder(
        CHOICES, facts, limit_bytes=LIMIT, mac_limit=np.inf, canonical=lambda rows: rows
    )
    parents = np.zeros((2, 13), dtype=np.intp)
    children = breeder.children(parents, 500, np.random.default_rng(0))
    changes = (children != 0).sum(axis=1)
    assert 0.5 < changes.mean() < 3
    assert breeder.feasible(np.full((3, 13), 1)).rows.shape == (0, 13)


def test_parameters_that_differ_in_their_last_number_are_of_one_family():
    names = ("kernel_size_0", "kernel_size_12", "depth_1", "resolution", "lite_residual")
    families, places = _families(names)
    assert families[0] == families[1]
    assert len(set(families.tolist())) == 4
    assert places.tolist() == [0, 12, 1, 0, 0]
