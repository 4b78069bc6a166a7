"""The train stage, over real images, in more than one attempt."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from search.adapted import AdaptedSupernet
from search.space import Candidate
from service.record.claims import Claim, release_job
from service.record.database import Database
from service.settings import Settings
from service.work.job_run import JobRun
from service.work.pools.tasks import Shared
from service.work.train_stage import train
from tests.service.work.runs import run_of
from tinytl.network import Network


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
    assert_same(again.head_only, trained.head_only)


def assert_same(one: Network, other: Network) -> None:
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name])
