"""Real tasks, with what they share handed over in each way: all find the same."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from search.space.candidates import Candidate
from search.statistics import racing
from service.work.pools import tasks
from service.work.pools.news import Done, Epoch, News, Resumed, Step
from service.work.pools.tasks import Parcel, ScoreTask, Shared, TrainTask, to_arrays
from tests.pretended_gpu import GPU, pretended_gpu
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.engine.network import Network, build_network
from tinytl.native.build import BuildError, find_compiler
from tinytl.native.training import is_device_checkpoint
from tinytl.training.checkpoint import MemoryCheckpoint
from tinytl.training.train import TrainSettings


def sent(parcel: Parcel) -> Shared:
    """As through an object store: arrays apart from the rest, and nobody may write to them."""
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(parcel, protocol=5, buffer_callback=buffers.append)
    opened: Parcel = pickle.loads(packed, buffers=[bytes(buffer) for buffer in buffers])
    return opened.open()


def news_of(task: Any, shared: Shared) -> list[News]:
    told: list[News] = []
    task.run(shared, told.append, lambda: False)
    return told


WAYS = [Parcel.for_this_machine, Parcel.for_any_machine]


@pytest.mark.parametrize("way", WAYS)
def test_a_score_is_the_same_wherever_it_is_found(
    shared: Shared, candidate: Candidate, way: Any
) -> None:
    task = ScoreTask(candidate=candidate, seed=5, horizontal_flip=True, rivals=())
    here, there = news_of(task, shared), news_of(task, sent(way(shared)))
    for told in (here, there):
        assert [type(news) for news in told] == [Done]
    expected, found = (told[-1].score for told in (here, there))  # type: ignore[union-attr]
    assert expected is not None
    assert found is not None
    assert np.array_equal(found.correct, expected.correct)
    assert (found.accuracy, found.num_images) == (expected.accuracy, 12)


def training_of(shared: Shared, candidate: Candidate, settings: TrainSettings) -> TrainTask:
    assert shared.adapted is not None
    config, weights = shared.adapted.subnet_weights(candidate, shared.store)
    return TrainTask(
        config=config,
        method=shared.adapted.method,
        weights=to_arrays(weights),
        candidate=candidate,
        settings=settings,
    )


def needs_compiler() -> None:
    try:
        find_compiler()
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("by_device_trainer", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_training_goes_on_elsewhere_to_the_same_checkpoint(
    shared: Shared, candidate: Candidate, way: Any, by_device_trainer: bool
) -> None:
    if by_device_trainer:
        needs_compiler()
    task = training_of(shared, candidate, TrainSettings(epochs=2, seed=5))
    task = replace(task, by_device_trainer=by_device_trainer)
    here = news_of(task, shared)
    first, last = (news for news in here if isinstance(news, Epoch))
    assert [news for news in here if isinstance(news, Step)][-1] == Step(6, 6)
    left = pickle.loads(pickle.dumps(task)).after(first).after(Step(4, 6))
    there = news_of(left, sent(way(Shared(store=shared.store))))
    assert there[0] == Resumed((first.report,))
    (resumed,) = (news for news in there if isinstance(news, Epoch))
    assert weights_in(resumed.checkpoint) == weights_in(last.checkpoint)
    for checkpoint in (first.checkpoint, last.checkpoint):
        assert is_device_checkpoint(MemoryCheckpoint(checkpoint)) is by_device_trainer


def test_torch_trains_where_the_device_trainer_can_not_be_built(
    shared: Shared, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/no/such/compiler")
    task = training_of(shared, candidate, TrainSettings(epochs=1))
    told = news_of(replace(task, by_device_trainer=True), shared)
    (epoch,) = (news for news in told if isinstance(news, Epoch))
    assert not is_device_checkpoint(MemoryCheckpoint(epoch.checkpoint))


def test_what_torch_has_begun_it_ends(shared: Shared, candidate: Candidate) -> None:
    needs_compiler()
    task = training_of(shared, candidate, TrainSettings(epochs=2, seed=5))
    first, last = (news for news in news_of(task, shared) if isinstance(news, Epoch))
    left = replace(task.after(first), by_device_trainer=True)
    (resumed,) = (news for news in news_of(left, shared) if isinstance(news, Epoch))
    assert weights_in(resumed.checkpoint) == weights_in(last.checkpoint)


def test_both_run_on_the_device_of_what_they_share(
    shared: Shared, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of(shared, candidate, TrainSettings())
    networks: list[Network] = []

    def build(config: NetworkConfig, method: Method, weights: dict[str, torch.Tensor]) -> Network:
        assert {value.device.type for value in weights.values()} == {"cpu"}
        networks.append(build_network(config, method, weights))
        return networks[-1]

    monkeypatch.setattr("search.adaptation.score.build_network", build)
    monkeypatch.setattr(tasks, "train", lambda network, *_, **options: networks.append(network))
    with pretended_gpu():
        there = Parcel.for_this_machine(shared).open(GPU)
        (done,) = news_of(
            ScoreTask(candidate=candidate, seed=5, horizontal_flip=True, rivals=()), there
        )
        news_of(training, there)
    assert [network.device for network in networks] == [GPU, GPU]
    assert isinstance(done, Done)
    assert done.score is not None
    labels = shared.store.split("val").labels[racing.image_order(12, 5)]
    assert np.array_equal(done.score.correct, labels == 0)  # without values, the first class it is


def test_a_training_begins_anew_where_its_checkpoint_can_not_be_read(
    shared: Shared, candidate: Candidate
) -> None:
    task = training_of(shared, candidate, TrainSettings(epochs=1))
    told = news_of(replace(task, checkpoint=b"damaged"), shared)
    kinds = [type(news) for news in told]
    assert kinds == [type(news) for news in news_of(task, shared)]
    assert Resumed not in kinds
    assert kinds[-1] is Done


def weights_in(checkpoint: bytes) -> dict[str, bytes]:
    """Without the header, in which epochs have their seconds."""
    from safetensors.numpy import load

    return {name: value.tobytes() for name, value in load(checkpoint).items()}


def test_images_travel_without_a_copy_and_those_for_the_test_stay(shared: Shared) -> None:
    buffers: list[pickle.PickleBuffer] = []
    parcel = Parcel.for_any_machine(Shared(store=shared.store))
    packed = pickle.dumps(parcel, protocol=5, buffer_callback=buffers.append)
    image_bytes = 3 * 48 * 48
    assert len(packed) < image_bytes
    assert sum(buffer.raw().nbytes for buffer in buffers) >= 24 * image_bytes
    assert sum(buffer.raw().nbytes for buffer in buffers) < 25 * image_bytes
    here = Parcel.for_this_machine(Shared(store=shared.store))
    assert here.images == shared.store.directory
    assert len(pickle.dumps(here)) < image_bytes
