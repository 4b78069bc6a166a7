"""Trainings by the device trainer's process, as jobs do them."""

import numpy as np
import pytest
import torch

from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.errors import BundleError, CancelledError, DivergenceError, TinyTLError
from tinytl.native import training
from tinytl.native.training import is_device_checkpoint, read_training, train_by, trains_alike
from tinytl.training.checkpoint import MemoryCheckpoint
from tinytl.training.data import ImageSplit, ImageStore
from tinytl.training.train import TrainSettings, train

PLAN = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=1, micro_batch_size=2),
    ),
    optimizer_bits=8,
)
SETTINGS = TrainSettings(epochs=3, learning_rate=2e-3, seed=5)


@pytest.fixture
def store(images):
    pixels, labels = images
    train, val = (ImageSplit(pixels[part], labels[part]) for part in (slice(22), slice(22, 30)))
    splits = {"train": train, "val": val}
    return ImageStore(splits, ["a", "b", "c"], 40)


@pytest.fixture
def run(trainer, make_network, store, tmp_path):
    """Trains; returns the epochs that were told."""

    def run(checkpoint, settings=SETTINGS, plan=PLAN, trainer=trainer, **others):
        told = []
        network = make_network(Method.LITE_RESIDUAL_BIAS, dropout_rate=0.2)
        train_by(
            trainer,
            network,
            store,
            resolution=32,
            plan=plan,
            settings=settings,
            checkpoint=checkpoint,
            scratch=tmp_path,
            **{"on_epoch": told.append, **others},
        )
        assert list(tmp_path.iterdir()) == []
        return told

    return run


@pytest.fixture
def make_trainer(tmp_path_factory):
    """Something that is run in the trainer's place."""

    def make(script):
        path = tmp_path_factory.mktemp("trainer") / "trainer.sh"
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
        return path

    return make


def learned(make_network, checkpoint, plan=PLAN):
    network = make_network(Method.LITE_RESIDUAL_BIAS, dropout_rate=0.2)
    found = read_training(network, plan, checkpoint)
    return found, {name: p.detach().clone() for name, p in network.trained_parameters().items()}


def test_it_is_the_engines_training(run, make_network, store):
    checkpoint = MemoryCheckpoint()
    told = run(checkpoint)
    assert is_device_checkpoint(checkpoint)
    found, values = learned(make_network, checkpoint)
    assert found.history == tuple(told)
    assert [report.epoch for report in told] == [0, 1, 2]
    network = make_network(Method.LITE_RESIDUAL_BIAS, dropout_rate=0.2)
    before = {name: p.detach().clone() for name, p in network.trained_parameters().items()}
    history = train(network, store, resolution=32, plan=PLAN, settings=SETTINGS)
    for ours, engines in zip(told, history, strict=True):
        assert ours.train_loss == pytest.approx(engines.train_loss, rel=5e-4, abs=1e-4)
        assert ours.val_accuracy == pytest.approx(engines.val_accuracy, abs=0.13)
    for name, expected in network.trained_parameters().items():
        step = (expected - before[name]).norm()
        assert (values[name] - expected).norm() < 0.1 * step + 1e-6, name


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(run, make_network):
    whole, cut = MemoryCheckpoint(), MemoryCheckpoint()
    told = run(whole)

    class PulledError(Exception):
        pass

    def pull(report):
        if report.epoch == 0:
            raise PulledError

    with pytest.raises(PulledError):
        run(cut, on_epoch=pull)
    resumed = []
    rest = run(MemoryCheckpoint(cut.content), on_resume=resumed.extend)
    again = MemoryCheckpoint(cut.content)
    run(again)
    assert [report.epoch for report in resumed] == [0]
    assert [report.epoch for report in rest] == [1, 2]
    assert [r.train_loss for r in [*resumed, *rest]] == [r.train_loss for r in told]
    expected = learned(make_network, whole)[1]
    for name, values in learned(make_network, again)[1].items():
        assert torch.equal(values, expected[name]), name
    assert run(again, on_resume=lambda history: None) == []  # nothing is left to do


def test_its_process_is_measured(run, make_network):
    checkpoint = MemoryCheckpoint()
    run(checkpoint)
    found, _ = learned(make_network, checkpoint)
    assert 500_000 < found.peak_resident_bytes < 20_000_000


def test_it_stops_when_asked_to(run):
    with pytest.raises(CancelledError):
        run(MemoryCheckpoint(), should_stop=lambda: True)


@pytest.mark.parametrize(
    ("words", "error"),
    [("the loss became nan in epoch 1", DivergenceError), ("the disk is full", TinyTLError)],
)
def test_what_the_trainer_fails_of_is_said(run, make_trainer, words, error):
    with pytest.raises(error, match=words):
        run(MemoryCheckpoint(), trainer=make_trainer(f"echo '{words}' >&2\nexit 1\n"))


def test_checkpoints_of_other_trainings_are_refused(run, make_network, store):
    checkpoint = MemoryCheckpoint()
    run(checkpoint)
    with pytest.raises(BundleError, match="of another training"):
        run(checkpoint, TrainSettings(epochs=4, learning_rate=2e-3, seed=5))
    of_torch = MemoryCheckpoint()
    network = make_network(Method.BIAS)
    train(network, store, resolution=32, plan=PLAN, settings=SETTINGS, checkpoint=of_torch)
    assert not is_device_checkpoint(of_torch)
    with pytest.raises(BundleError, match="no checkpoint of the device trainer"):
        run(of_torch)


def test_a_state_that_is_an_epoch_further_is_left_to_its_own_epoch(run, make_network, monkeypatch):
    """The trainer may have saved again before its line is read."""
    read = training.read_state
    early = []

    def ahead(path):
        state = read(path)
        if state.epochs == 1 and not early:
            early.append(state)
            return type(state)(**{**vars(state), "epochs": 2})
        return state

    monkeypatch.setattr(training, "read_state", ahead)
    checkpoint = MemoryCheckpoint()
    assert len(run(checkpoint)) == 3
    assert early
    monkeypatch.undo()
    assert len(learned(make_network, checkpoint)[0].history) == 3


def test_which_settings_it_knows(store):
    uneven = np.array([0] * 20 + [1, 2])
    pixels = store.split("train").all_images().numpy()
    few = ImageStore(
        {"train": ImageSplit(pixels, uneven), "val": store.split("val")}, ["a", "b", "c"], 40
    )
    assert trains_alike(Method.BIAS, SETTINGS, store)
    assert not trains_alike(Method.FULL, SETTINGS, store)
    assert not trains_alike(Method.BIAS, SETTINGS, few)
    assert trains_alike(Method.BIAS, TrainSettings(class_weights="none"), few)
    assert not trains_alike(Method.BIAS, TrainSettings(seed=1 << 32), store)
    assert not trains_alike(Method.BIAS, TrainSettings(learning_rate=1e9), store)
