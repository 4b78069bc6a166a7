import numpy as np
import pytest

from search.sampler import inner_loop
from search.sampler.breeding import Breeder, Facts
from search.sampler.front import Staircase
from search.sampler.inner_loop import InnerLoop, Scored
from search.sampler.predictor import Features

COUNTS = [3] * 10
LIMIT = 14.0


def facts(rows):
    """Early choices take memory, late ones multiply-accumulates."""
    weights = np.linspace(2, 0.5, 10)
    return Facts(5 + rows @ weights, 10 + rows @ weights[::-1])


def accuracy(rows):
    return 0.2 + 0.5 * np.tanh(rows @ np.linspace(-0.1, 1, 10) / 8)


@pytest.fixture(scope="module")
def breeder():
    choices = {f"x{i}": tuple(range(count)) for i, count in enumerate(COUNTS)}
    return Breeder(
        choices, facts, limit_bytes=LIMIT, mac_limit=np.inf, canonical=lambda rows: rows
    )


def make_loop(breeder):
    return InnerLoop(
        breeder,
        lambda pool: Features(
            choices=np.concatenate([pool.rows >= 1, pool.rows >= 2], axis=1).astype(float),
            sizes=np.log(np.stack(pool.facts, axis=1)),
        ),
        lambda scored: Staircase(
            scored.pool.facts.peak_bytes, scored.accuracies, limit_bytes=LIMIT, chance=0.1
        ),
        seed=0,
    )


@pytest.fixture(scope="module")
def scored(breeder):
    pool = breeder.feasible(breeder.random(600, np.random.default_rng(5)))
    pool = pool.take(np.random.default_rng(6).permutation(len(pool))[:50])
    return Scored(pool, accuracy(pool.rows), np.ones(50))


def test_finalists_fit_are_new_and_better_than_what_is_scored(breeder, scored):
    _, finalists = make_loop(breeder).finalists(scored)
    assert (finalists.facts.peak_bytes <= LIMIT).all()
    assert not np.isin(finalists.keys, scored.pool.keys).any()
    assert len(np.unique(finalists.keys)) == len(finalists)
    found = accuracy(finalists.rows)
    assert found.max() > scored.accuracies.max()
    assert np.median(found) > np.median(scored.accuracies)


@pytest.mark.parametrize("stops", [[12], [13, 20, 31, 47], [49, 30]])
def test_what_was_looked_for_before_makes_no_difference(breeder, scored, stops):
    """Neither by a search that went step by step nor by one whose scores changed."""
    loop = make_loop(breeder)
    for count in stops:
        loop.finalists(scored.take(np.arange(count)))
    changed = Scored(scored.pool, scored.accuracies[::-1], scored.noise)
    loop.finalists(changed)
    predictor, finalists = loop.finalists(scored)
    other_predictor, others = make_loop(breeder).finalists(scored)
    assert (finalists.rows == others.rows).all()
    assert (predictor.scales == other_predictor.scales).all()


def test_two_scores_are_enough(breeder, scored):
    _, finalists = make_loop(breeder).finalists(scored.take(np.arange(2)))
    assert len(finalists) > 0


def test_late_milestones_follow_from_their_own_scores_alone(breeder, scored, monkeypatch):
    monkeypatch.setattr(inner_loop, "_MAX_CHAINED", 20)
    reached = []
    reach = InnerLoop._reach
    monkeypatch.setattr(
        InnerLoop,
        "_reach",
        lambda loop, first: reached.append(len(first.pool)) or reach(loop, first),
    )
    loop = make_loop(breeder)
    for count in (20, 30):
        loop.finalists(scored.take(np.arange(count)))
    _, finalists = loop.finalists(scored)
    _, others = make_loop(breeder).finalists(scored)
    assert (finalists.rows == others.rows).all()
    assert reached == [12, 16, 27, 46, 46]


def test_scales_and_predictions_of_many_scores_come_from_some(breeder, scored, monkeypatch):
    monkeypatch.setattr(inner_loop, "_MAX_POINTS", 30)
    monkeypatch.setattr(inner_loop, "_MAX_FOR_SCALES", 15)
    fitted = []
    fit = InnerLoop._fit
    monkeypatch.setattr(
        InnerLoop,
        "_fit",
        lambda loop, some, scales: (
            fitted.append((len(some.pool), scales is None)) or fit(loop, some, scales)
        ),
    )
    _, finalists = make_loop(breeder).finalists(scored)
    assert fitted[-3:] == [(15, True), (30, False), (30, False)]
    assert accuracy(finalists.rows).max() > scored.accuracies.max()
