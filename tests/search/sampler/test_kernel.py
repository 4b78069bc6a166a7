import numpy as np
import pytest

from search.sampler import kernel
from search.sampler.kernel import Columns, Points, fit

COLUMNS = Columns(
    families=np.array([0, 0, 0, 0, 1, 2, 2]),
    places=np.array([0, 0, 1, 1, 0, 1, 5]),
    steps=np.array([1, 2, 1, 2, 1, 1, 1]),
)


def test_kinship():
    kinship = COLUMNS.kinship
    assert kinship == pytest.approx(kinship.T)
    assert np.linalg.eigvalsh(kinship).min() > -1e-9
    assert (np.diag(kinship) == 1).all()
    assert (kinship[:4, 4:] == 0).all()
    assert kinship[0, 2] > kinship[5, 6] > 0.5 > kinship[0, 3]  # near, far, another step too


def test_the_gradient_is_that_of_the_loss(monkeypatch):
    given = {}

    class Found:
        x = np.zeros(1)

    def minimize(loss, start, **_):
        given.update(loss=loss, start=start)
        return Found

    monkeypatch.setattr(kernel, "minimize", minimize)
    rng = np.random.default_rng(0)
    choices = rng.integers(2, size=(25, 7)).astype(float)
    points = Points(choices - choices.mean(axis=0), rng.normal(size=(25, 2)))
    fit(COLUMNS, points, rng.normal(size=25), rng.uniform(1, 2, 25))
    loss, at = given["loss"], given["start"] + rng.normal(0, 0.3, len(given["start"]))
    found = loss(at)[1]
    steps = 1e-5 * np.eye(len(at))
    expected = [(loss(at + step)[0] - loss(at - step)[0]) / 2e-5 for step in steps]
    assert found == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


def test_scales_tell_a_family_that_matters_from_one_that_does_not():
    rng = np.random.default_rng(1)
    choices = rng.integers(2, size=(80, 7)).astype(float)
    targets = choices[:, :4] @ np.array([1.0, 0.7, -0.5, 1.2])
    targets = (targets - targets.mean()) / targets.std()
    points = Points(choices - choices.mean(axis=0), np.zeros((80, 1)))
    by = kernel.Scales.of(fit(COLUMNS, points, targets, np.ones(80)))
    matters, not_at_all = (by.own + by.shared)[[0, 2]]
    assert matters > 3 * not_at_all
