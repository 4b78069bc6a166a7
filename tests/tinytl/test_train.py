from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tinytl.data import Augmentation
from tinytl.errors import BundleError, CancelledError, ConfigError, TinyTLError
from tinytl.network import build_network
from tinytl.plan import Plan
from tinytl.train import TrainSettings, evaluate, train
from tinytl.trainable import Method

_PLAN = Plan(batch_size=4, micro_batch_sizes=(4,))


@pytest.fixture
def make_network(small_network):
    def make(method=Method.LITE_RESIDUAL_BIAS, dropout_rate=0.0):
        config = small_network(num_classes=2, lite=method.uses_lite_residual)
        config = replace(config, dropout_rate=dropout_rate)
        return build_network(config, method, generator=torch.Generator().manual_seed(0))

    return make


def _train(network, store, *, plan=_PLAN, epochs=3, **options):
    settings = TrainSettings(epochs=epochs)
    return train(network, store, resolution=48, plan=plan, settings=settings, **options)


def _state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("method", list(Method))
def test_training_learns_and_leaves_frozen_values_alone(make_network, store, method):
    network = make_network(method)
    before = _state(network)
    history = _train(network, store, epochs=8)
    assert history[-1].train_loss < history[0].train_loss
    assert evaluate(network, store.split("test"), resolution=48, batch_size=4) >= 0.75
    trained = network.trained_parameters()
    after = network.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed <= trained.keys()
    assert "classifier.weight" in changed


def test_the_same_seed_gives_the_same_bits(make_network, store):
    networks = [make_network(), make_network()]
    histories = [_train(network, store) for network in networks]
    _assert_equal(networks[0].state_dict(), networks[1].state_dict())
    assert [h.train_loss for h in histories[0]] == [h.train_loss for h in histories[1]]


@pytest.fixture
def gradients(monkeypatch):
    """Every step's gradients, flat; nothing is updated."""
    collected = []

    def collect(optimizer):
        parameters = optimizer.param_groups[0]["params"]
        collected.append(torch.cat([p.grad.flatten() for p in parameters]))

    monkeypatch.setattr(torch.optim.Adam, "step", collect)
    return collected


@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_give_the_whole_batchs_gradient(
    make_network, store, gradients, micro_batch_size, dropout_rate
):
    for size in (4, micro_batch_size):
        plan = Plan(batch_size=4, micro_batch_sizes=(size,))
        _train(make_network(dropout_rate=dropout_rate), store, epochs=1, plan=plan)
    whole, parts = torch.stack(gradients[:3]), torch.stack(gradients[3:])
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_that_of_the_mean_loss(make_network, store, gradients):
    network = make_network()
    settings = TrainSettings(
        epochs=1, augmentation=Augmentation(min_crop_scale=1, horizontal_flip=False)
    )
    whole = Plan(batch_size=12, micro_batch_sizes=(5,))
    train(network, store, resolution=48, plan=whole, settings=settings)
    split = store.split("train")
    squares = split.augmented_batch(range(12), 48, settings.augmentation, (0, 0))
    loss = F.cross_entropy(network(squares), split.labels_of(range(12)), label_smoothing=0.1)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in network.trained_parameters().values()])
    torch.testing.assert_close(gradients[0], expected, rtol=1e-3, atol=1e-5)


def test_dropout_differs_by_epoch_and_keeps_the_mean(make_network, store, monkeypatch):
    masks = []
    network = make_network(Method.HEAD, dropout_rate=0.3)
    forward = network.forward

    def record(images, keep=None):
        if keep is not None:
            masks.append(keep.clone())
        return forward(images, keep)

    monkeypatch.setattr(network, "forward", record)
    _train(network, store, epochs=2)
    assert len(masks) == 6
    values = torch.cat(masks)
    torch.testing.assert_close(values.unique(), torch.tensor([0, 1 / 0.7]))
    assert abs(values.mean().item() - 1) < 0.05
    first, second = torch.cat(masks[:3]), torch.cat(masks[3:])
    assert 0.3 < (first != second).float().mean() < 0.55


def test_the_learning_rate_falls_from_its_peak_like_a_cosine(make_network, store, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def record(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    settings = TrainSettings(epochs=4, learning_rate=0.01)
    plan = Plan(batch_size=2, micro_batch_sizes=(2,))
    train(make_network(), store, resolution=48, plan=plan, settings=settings)
    assert len(rates) == 24
    assert rates[0] == pytest.approx(0.005)  # a batch of 2 learns half as fast as one of 8
    assert rates[12] == pytest.approx(0.0025)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.0001


def test_a_loss_that_is_not_finite_is_told(make_network, store):
    network = make_network()
    with torch.no_grad():
        network.classifier.weight.fill_(float("inf"))
    with pytest.raises(TinyTLError, match="the loss became nan in epoch 0, step 0"):
        _train(network, store)


def test_a_killed_run_goes_on_to_the_same_result(make_network, store, tmp_path):
    undisturbed = make_network()
    _train(undisturbed, store)
    checkpoint = tmp_path / "training.safetensors"

    def stop(report):
        if report.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(make_network(), store, checkpoint=checkpoint, on_epoch=stop)
    resumed, seen = make_network(), []
    history = _train(
        resumed, store, checkpoint=checkpoint, on_epoch=lambda report: seen.append(report.epoch)
    )
    assert seen == [2]
    assert [report.epoch for report in history] == [0, 1, 2]
    _assert_equal(undisturbed.state_dict(), resumed.state_dict())


def test_a_finished_run_is_read_back(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    first, second = make_network(), make_network()
    history = _train(first, store, checkpoint=checkpoint)
    assert _train(second, store, checkpoint=checkpoint) == history
    _assert_equal(first.state_dict(), second.state_dict())
    assert [path.name for path in tmp_path.glob("training*")] == [checkpoint.name]


def test_a_cancelled_run_keeps_its_last_epoch_and_goes_on(make_network, store, tmp_path):
    undisturbed = make_network()
    _train(undisturbed, store)
    checkpoint, steps = tmp_path / "training.safetensors", []
    with pytest.raises(CancelledError):
        _train(
            make_network(),
            store,
            checkpoint=checkpoint,
            on_step=lambda done, total: steps.append((done, total)),
            should_stop=lambda: len(steps) == 4,
        )
    assert steps[-1] == (4, 9)  # in the middle of the second of three epochs
    resumed, epochs = make_network(), []
    _train(
        resumed, store, checkpoint=checkpoint, on_epoch=lambda report: epochs.append(report.epoch)
    )
    assert epochs == [1, 2]
    _assert_equal(undisturbed.state_dict(), resumed.state_dict())


def test_another_runs_checkpoint_is_refused(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    with pytest.raises(BundleError, match="belongs to another run: its settings"):
        _train(make_network(), store, checkpoint=checkpoint, epochs=2)
    with pytest.raises(BundleError, match="belongs to another run: its resolution"):
        train(
            make_network(),
            store,
            resolution=32,
            plan=_PLAN,
            settings=TrainSettings(epochs=1),
            checkpoint=checkpoint,
        )
    other = make_network()
    other.first_conv.frozen.weight += 1
    with pytest.raises(BundleError, match="belongs to another run: its frozen_values"):
        _train(other, store, checkpoint=checkpoint, epochs=1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(BundleError, match="no tensor file of tinyfit"):
        _train(make_network(), store, checkpoint=checkpoint, epochs=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"label_smoothing": 1.0},
        {"seed": -1},
        {"epochs": 2.5},
    ],
)
def test_settings_out_of_range_are_quoted(settings):
    ((name, value),) = settings.items()
    with pytest.raises(TinyTLError, match=f"{name} must be .* got {value}"):
        TrainSettings(**settings)


@pytest.mark.parametrize(
    "plan",
    [{"batch_size": 0}, {"batch_size": 4, "micro_batch_sizes": (5,)}, {"optimizer_bits": 7}],
)
def test_impossible_plans_are_refused(plan):
    with pytest.raises(ConfigError, match="must be"):
        Plan(**plan)


def test_augmentation_settings_are_part_of_a_runs_identity(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    settings = TrainSettings(epochs=1, augmentation=Augmentation(horizontal_flip=False))
    with pytest.raises(BundleError, match="belongs to another run"):
        train(
            make_network(),
            store,
            resolution=48,
            plan=_PLAN,
            settings=settings,
            checkpoint=checkpoint,
        )
