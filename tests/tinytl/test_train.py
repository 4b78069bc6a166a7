import pytest
import torch

from tinytl.data import Augmentation
from tinytl.errors import BundleError, CancelledError, ConfigError, TinyTLError
from tinytl.network import build_network
from tinytl.plan import Plan
from tinytl.train import TrainSettings, evaluate, train
from tinytl.trainable import Method

_PLAN = Plan(batch_size=4, micro_batch_sizes=(4,))


@pytest.fixture
def make_network(small_network):
    def make(method=Method.LITE_RESIDUAL_BIAS):
        config = small_network(num_classes=2, lite=method.uses_lite_residual)
        return build_network(config, method, generator=torch.Generator().manual_seed(0))

    return make


def _train(network, store, *, plan=_PLAN, epochs=3, **options):
    settings = TrainSettings(
        epochs=epochs, **{k: options.pop(k) for k in ("dropout_rate",) if k in options}
    )
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


@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_give_the_whole_batchs_gradient(
    make_network, store, monkeypatch, micro_batch_size, dropout_rate
):
    gradients = []

    def collect(optimizer):
        parameters = optimizer.param_groups[0]["params"]
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]))

    monkeypatch.setattr(torch.optim.Adam, "step", collect)
    for size in (4, micro_batch_size):
        plan = Plan(batch_size=4, micro_batch_sizes=(size,))
        _train(make_network(), store, epochs=1, dropout_rate=dropout_rate, plan=plan)
    whole, parts = torch.stack(gradients[:3]), torch.stack(gradients[3:])
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


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


def test_cancelling_keeps_the_last_epoch(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    content = checkpoint.read_bytes()
    with pytest.raises(CancelledError):
        _train(make_network(), store, epochs=1, should_stop=lambda: True)
    assert checkpoint.read_bytes() == content


def test_another_runs_checkpoint_is_refused(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    with pytest.raises(BundleError, match="belongs to another run: its settings"):
        _train(make_network(), store, checkpoint=checkpoint, epochs=2)
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
        {"dropout_rate": -0.1},
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
