"""The train stage, over real images, in more than one attempt."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.head_only import pretrained_subnet
from search.space.candidates import Candidate
from search.space.lite_residual_sizes import NONE_OR_ANY
from search.supernets.registry import DEFAULT_SUPERNET
from service.record.claims import Claim, release_job
from service.record.db.database import Database
from service.settings import Settings
from service.work.job.job_run import JobRun
from service.work.job.train_stage import train
from service.work.pools.tasks import Shared
from tests.service.work.runs import run_of
from tinytl.description.method import Method
from tinytl.engine.network import Network
from tinytl.training.train import DEFAULT_LEARNING_RATES


def test_a_training_goes_on_where_statistics_come_out_otherwise(
    make_run: Callable[..., JobRun],
    settings: Settings,
    database: Database,
    claim: Callable[[], Claim],
    shared: Shared,
    candidate: Candidate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they do on another processor, or with another number of threads."""
    assert shared.adapted is not None
    first = make_run(epochs=1, resolutions=(32,))
    trained = train(first, shared.store, shared.adapted, candidate)
    release_job(database, first.claim)

    cut = AdaptedSupernet.subnet_weights

    def otherwise(self: AdaptedSupernet, *arguments: Any) -> Any:
        config, weights = cut(self, *arguments)
        return config, {name: 1.01 * value for name, value in weights.items()}

    monkeypatch.setattr(AdaptedSupernet, "subnet_weights", otherwise)
    second = run_of(settings, database, claim(), first.job.id)
    second.files.restore()
    again = train(second, shared.store, shared.adapted, candidate)
    assert again.history == trained.history  # with its seconds: nothing was trained again
    assert_same(again.network, trained.network)


def test_without_lite_residuals_biases_alone_are_trained(
    make_run: Callable[..., JobRun], shared: Shared, candidate: Candidate
) -> None:
    assert shared.adapted is not None
    adapted = AdaptedSupernet(
        shared.adapted.supernet,
        shared.adapted.lite_residuals,
        method=Method.LITE_RESIDUAL_BIAS,
        lite_residual_sizes=NONE_OR_ANY,
    )
    run = make_run(epochs=1, resolutions=(32,))
    trained = train(run, shared.store, adapted, replace(candidate, lite_residual=None))
    assert trained.network.method is Method.BIAS
    assert not trained.network.config.has_lite_residual


def test_features_that_are_good_as_they_are_are_trained_from(
    make_run: Callable[..., JobRun], shared: Shared
) -> None:
    """Not from what adaptation, by which candidates are compared, has made of them."""
    run = make_run(epochs=1, resolutions=(32,), supernet="efficientnet_lite0")
    adapted = AdaptedSupernet.fresh(
        run.supernet,
        shared.store.num_classes,
        method=run.method,
        lite_residual_sizes=run.space.lite_residual_sizes,
    )
    for parameter in adapted.trained_parameters().values():
        parameter.add_(0.1)
    candidate = run.space.candidate(run.space.supernet.smallest, 32, None)
    trained = train(run, shared.store, adapted, candidate)
    expected = pretrained_subnet(
        run.supernet,
        candidate,
        shared.store,
        method=adapted.method_of(candidate),
        splits=("train", "val"),
    )
    assert trained.start.keys() == expected.keys()
    for name, value in trained.start.items():
        assert torch.equal(value, expected[name]), name
    moved = trained.network.state_dict()
    assert not torch.equal(moved["classifier.bias"], expected["classifier.linear.bias"])


@pytest.mark.parametrize(
    ("supernet", "asked", "rate"),
    [
        (DEFAULT_SUPERNET, None, DEFAULT_LEARNING_RATES[Method.LITE_RESIDUAL_BIAS]),
        ("efficientnet_lite0", None, 2e-3),
        ("efficientnet_lite0", 0.01, 0.01),
    ],
)
def test_a_supernet_may_ask_for_less_than_the_method_s_own_rate(
    make_run: Callable[..., JobRun], supernet: str, asked: float | None, rate: float
) -> None:
    run = make_run(supernet=supernet, learning_rate=asked)
    assert run.final_settings(Method.LITE_RESIDUAL_BIAS).learning_rate == rate


def assert_same(one: Network, other: Network) -> None:
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name])
