import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import tinytl.training.train
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.network import build_network
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import run_step
from tinytl.errors import (
    BundleError,
    CancelledError,
    ConfigError,
    DataError,
    DivergenceError,
    TinyTLError,
)
from tinytl.training.checkpoint import MemoryCheckpoint, read_tensors, write_tensors
from tinytl.training.data import SPLITS, Augmentation, ImageSplit, ImageStore, Sample, ingest
from tinytl.training.train import TrainSettings, correct_images, evaluate, train

_PLAN = Plan.whole(4)
_PRECISIONS = pytest.mark.parametrize(
    "precision",
    [
        {"optimizer_bits": optimizer_bits, "trained_bits": trained_bits}
        for optimizer_bits in (8, 32)
        for trained_bits in (16, 32)
    ],
    ids=lambda precision: "/".join(map(str, precision.values())),
)


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


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_which_images_are_right(make_network, store, batch_size):
    network, split = make_network(), store.split("test")
    logits = network(split.batch(range(len(split)), 48))
    expected = (logits.argmax(1) == split.labels_of(range(len(split)))).tolist()
    assert len(set(expected)) == 2
    options = {"resolution": 48, "batch_size": batch_size}
    assert correct_images(network, split, **options).tolist() == expected
    assert evaluate(network, split, **options) == sum(expected) / len(expected)


def test_the_same_seed_gives_the_same_bits(make_network, store):
    networks = [make_network(), make_network()]
    histories = [_train(network, store) for network in networks]
    _assert_equal(networks[0].state_dict(), networks[1].state_dict())
    assert [h.train_loss for h in histories[0]] == [h.train_loss for h in histories[1]]


@pytest.fixture
def batches(monkeypatch):
    """Every step's batch, and the gradients by name that the optimizer was given for it."""
    seen = []

    def record(network, batch, plan, finish):
        seen.append((batch, {}))
        return run_step(network, batch, plan, finish)

    def collect(optimizer, name, gradient):
        seen[-1][1][name] = gradient

    monkeypatch.setattr(tinytl.training.train, "run_step", record)
    monkeypatch.setattr(Adam, "begin_step", lambda optimizer, rate: None)
    monkeypatch.setattr(Adam, "update", collect)
    return seen


_TWO_STRETCHES = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=2, micro_batch_size=3),
    ),
)


@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
@pytest.mark.parametrize("plan", [Plan.whole(4, 1), _TWO_STRETCHES], ids=["one by one", "two"])
def test_micro_batches_give_the_whole_batchs_gradient(
    make_network, store, batches, plan, dropout_rate
):
    for each in (_PLAN, plan):
        _train(make_network(dropout_rate=dropout_rate), store, epochs=1, plan=each)
    whole, parts = batches[:3], batches[3:]
    assert len(parts) == 3
    for (batch, expected), (same, found) in zip(whole, parts, strict=True):
        assert torch.equal(batch.images, same.images)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


def test_every_image_is_passed_once_an_epoch_with_its_label(make_network, store, batches):
    settings = TrainSettings(
        epochs=1, augmentation=Augmentation(min_crop_scale=1, horizontal_flip=False)
    )
    train(make_network(), store, resolution=48, plan=Plan.whole(5), settings=settings)
    assert [len(batch.labels) for batch, _ in batches] == [5, 5, 2]
    assert {batch.label_smoothing for batch, _ in batches} == {0.1}
    split = store.split("train")
    squares = split.augmented_batch(range(12), 48, settings.augmentation, (0, 0))
    expected = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(squares, split.labels_of(range(12)), strict=True)
    }
    found = [
        (image.numpy().tobytes(), int(label))
        for batch, _ in batches
        for image, label in zip(batch.images, batch.labels, strict=True)
    ]
    assert len(found) == len(expected) == 12
    assert set(found) == expected


def test_dropout_differs_by_epoch_and_keeps_the_mean(make_network, store, batches):
    _train(make_network(Method.HEAD, dropout_rate=0.3), store, epochs=2)
    masks = [batch.keep for batch, _ in batches]
    assert len(masks) == 6
    values = torch.cat(masks)
    torch.testing.assert_close(values.unique(), torch.tensor([0, 1 / 0.7]))
    assert abs(values.mean().item() - 1) < 0.05
    first, second = torch.cat(masks[:3]), torch.cat(masks[3:])
    assert 0.3 < (first != second).float().mean() < 0.55


def test_the_learning_rate_falls_from_its_peak_like_a_cosine(make_network, store, monkeypatch):
    rates = []
    begin_step = Adam.begin_step

    def record(optimizer, rate):
        rates.append(rate)
        begin_step(optimizer, rate)

    monkeypatch.setattr(Adam, "begin_step", record)
    settings = TrainSettings(epochs=4, learning_rate=0.01)
    train(make_network(), store, resolution=48, plan=Plan.whole(2), settings=settings)
    assert len(rates) == 24
    assert rates[0] == pytest.approx(0.005)  # a batch of 2 learns half as fast as one of 8
    assert rates[12] == pytest.approx(0.0025)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.0001


def test_a_loss_that_is_not_finite_is_told(make_network, store):
    network = make_network()
    with torch.no_grad():
        network.classifier.weight.fill_(float("inf"))
    before = _state(network)
    message = "the loss became nan in epoch 0, step 0; try a learning rate below 0.0042"
    with pytest.raises(DivergenceError, match=message):
        _train(network, store)
    _assert_equal(network.state_dict(), before)


@_PRECISIONS
def test_a_killed_run_goes_on_to_the_same_result(make_network, store, tmp_path, precision):
    plan = replace(_TWO_STRETCHES, **precision)
    undisturbed = make_network(dropout_rate=0.2)
    _train(undisturbed, store, plan=plan)
    checkpoint = tmp_path / "training.safetensors"

    def stop(report):
        if report.epoch == 1:
            raise KeyboardInterrupt

    interrupted = make_network(dropout_rate=0.2)
    with pytest.raises(KeyboardInterrupt):
        _train(interrupted, store, plan=plan, checkpoint=checkpoint, on_epoch=stop)
    resumed, seen = make_network(dropout_rate=0.2), []
    history = _train(
        resumed,
        store,
        plan=plan,
        checkpoint=checkpoint,
        on_epoch=lambda report: seen.append(report.epoch),
    )
    assert seen == [2]
    assert [report.epoch for report in history] == [0, 1, 2]
    _assert_equal(undisturbed.state_dict(), resumed.state_dict())
    expected = torch.bfloat16 if precision["trained_bits"] == 16 else torch.float32
    assert resumed.classifier.weight.dtype == expected
    assert resumed.classifier.bias.dtype == torch.float32


@_PRECISIONS
def test_every_precision_learns(make_network, store, precision):
    network = make_network()
    history = _train(network, store, epochs=8, plan=replace(_PLAN, **precision))
    assert history[-1].train_loss < 0.8 * history[0].train_loss
    assert evaluate(network, store.split("test"), resolution=48, batch_size=4) >= 0.75


def test_another_precisions_checkpoint_is_refused(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    for precision in ({"optimizer_bits": 8}, {"trained_bits": 16}):
        with pytest.raises(BundleError, match="belongs to another run: its plan"):
            _train(
                make_network(),
                store,
                checkpoint=checkpoint,
                epochs=1,
                plan=replace(_PLAN, **precision),
            )


def test_a_finished_run_is_read_back(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    first, second = make_network(), make_network()
    history = _train(first, store, checkpoint=checkpoint)
    assert _train(second, store, checkpoint=checkpoint) == history
    _assert_equal(first.state_dict(), second.state_dict())
    assert [path.name for path in tmp_path.glob("training*")] == [checkpoint.name]


def test_a_run_goes_on_from_a_checkpoint_in_memory(make_network, store, tmp_path):
    undisturbed, path = make_network(), tmp_path / "training.safetensors"
    history = _train(undisturbed, store, checkpoint=path)
    contents, checkpoint = [], MemoryCheckpoint()
    _train(
        make_network(),
        store,
        checkpoint=checkpoint,
        on_epoch=lambda report: contents.append(checkpoint.content),
    )
    resumed, told = make_network(), []
    again = MemoryCheckpoint(contents[0])
    _train(resumed, store, checkpoint=again, on_resume=lambda history: told.extend(history))
    assert [report.epoch for report in told] == [0]
    assert len(contents) == len(history)
    _assert_equal(undisturbed.state_dict(), resumed.state_dict())


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
    resumed, saved, epochs = make_network(), [], []
    _train(
        resumed,
        store,
        checkpoint=checkpoint,
        on_resume=saved.extend,
        on_epoch=lambda report: epochs.append(report.epoch),
    )
    assert [report.epoch for report in saved] == [0]
    assert epochs == [1, 2]
    _assert_equal(undisturbed.state_dict(), resumed.state_dict())


def _store(directory, counts, classes=("red", "green")):
    """Grey images, so many of each split."""
    samples = [
        Sample(path=directory / f"{split}{number}.png", label=number % len(classes), split=split)
        for split, count in counts.items()
        for number in range(count)
    ]
    grey = np.full((3, 48, 48), 128, dtype=np.uint8)
    ingest(samples, classes, directory, image_size=48, splits=list(counts), decode=lambda *_: grey)
    return ImageStore.open(directory)


def test_a_store_that_is_none_for_the_network_is_refused(make_network, tmp_path):
    three = _store(tmp_path / "three", {"train": 6, "val": 3}, ("red", "green", "blue"))
    with pytest.raises(DataError, match="of 3 classes, but the network tells 2 apart"):
        _train(make_network(), three, epochs=1)
    with pytest.raises(DataError, match="the val split, but the store has none"):
        _train(make_network(), _store(tmp_path / "train", {"train": 6}), epochs=1)


def _with_another(store, split, *, pixel=None, label=None):
    """The store with another last image of a split: its first pixel, or its label."""
    images = store.split(split).all_images().numpy().copy()
    labels = store.split(split).labels.copy()
    if pixel is not None:
        images[-1, 0, 0, 0] = pixel
    if label is not None:
        labels[-1] = label
    splits = {name: store.split(name) for name in SPLITS} | {split: ImageSplit(images, labels)}
    return ImageStore(splits, store.classes, store.image_size)


@pytest.mark.parametrize("label", [2, -1])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_of_no_class_is_refused(label, split, make_network, store):
    other = _with_another(store, split, label=label)
    with pytest.raises(DataError, match=rf"labels of the {split} split .*{label}.* 2 classes"):
        _train(make_network(), other, epochs=1)


@pytest.mark.parametrize("value", ["pixel", "label"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_checkpoint_of_other_images_is_refused(value, split, make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    history = _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    of_split = store.split(split)
    pixel, label = int(of_split.all_images()[-1, 0, 0, 0]), int(of_split.labels[-1])
    others = {"pixel": {"pixel": pixel ^ 1}, "label": {"label": 1 - label}}
    other = _with_another(store, split, **others[value])
    with pytest.raises(BundleError, match="belongs to another run: its image_values"):
        _train(make_network(), other, checkpoint=checkpoint, epochs=1)
    assert _train(make_network(), store, checkpoint=checkpoint, epochs=1) == history


def _without(header, name):
    return {key: value for key, value in header.items() if key != name}


def test_a_checkpoint_of_a_version_that_noted_less_goes_on(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    history = _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    tensors, header = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, _without(header, "image_values"))
    assert _train(make_network(), store, checkpoint=checkpoint, epochs=1) == history
    write_tensors(checkpoint, tensors, _without(header, "settings"))
    with pytest.raises(BundleError, match="its settings is None, not"):
        _train(make_network(), store, checkpoint=checkpoint, epochs=1)


def test_a_checkpoint_of_a_version_that_did_not_balance_classes(make_network, store, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    history = _train(make_network(), store, checkpoint=checkpoint, epochs=1)
    tensors, header = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, _without(header, "balanced"))
    assert _train(make_network(), store, checkpoint=checkpoint, epochs=1) == history
    settings = TrainSettings(epochs=1, class_weights="balanced")
    with pytest.raises(BundleError, match="belongs to another run: its balanced is False"):
        train(
            make_network(),
            store,
            resolution=48,
            plan=_PLAN,
            settings=settings,
            checkpoint=checkpoint,
        )


def test_uneven_classes_are_looked_at_as_often(make_network, store, monkeypatch):
    uneven = store.split("train")
    rare = np.flatnonzero(uneven.labels == 1)[:2]
    kept = np.sort(np.concatenate([np.flatnonzero(uneven.labels == 0), rare]))
    few = ImageSplit(uneven.all_images().numpy()[kept], uneven.labels[kept])
    splits = {"train": few, "val": store.split("val"), "test": store.split("test")}
    seen = []
    original = ImageSplit.labels_of

    def labels_of(split, indices):
        if split is few:
            seen.extend(indices)
        return original(split, indices)

    monkeypatch.setattr(ImageSplit, "labels_of", labels_of)
    shares = {}
    for kind in ("none", "auto"):
        seen.clear()
        train(
            make_network(),
            ImageStore(splits, store.classes, store.image_size),
            resolution=48,
            plan=_PLAN,
            settings=TrainSettings(epochs=1, class_weights=kind),
        )
        assert len(seen) == len(few)
        shares[kind] = np.bincount(few.labels[seen]) / len(seen)
    assert shares["none"][1] == 2 / len(few)
    assert shares["auto"][1] == pytest.approx(0.5, abs=0.5 / len(few) + 1e-9)


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
    ("plan", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1 but got 0"),
        ({"batch_size": 4.0}, "batch_size must be an integer of at least 1 but got 4.0"),
        ({"batch_size": 4}, "micro-batch size must be at most the batch size 4 but got 8"),
        ({"stretches": ()}, "first stretch must start at stage 0"),
        ({"stretches": [(1, 8)]}, "first stretch must start at stage 0"),
        ({"stretches": [(0, 0)]}, "micro-batch size must be an integer of at least 1 but got 0"),
        ({"stretches": [(0, 8), (0, 8)]}, "must start after stage 0, .* but got 0"),
        ({"stretches": [(0, 8), (2, 8), (1, 8)]}, "must start after stage 2, .* but got 1"),
        ({"stretches": [(0, 8, 1)]}, "recomputes must be a bool but got 1"),
        ({"stretches": [(0, 8), (1, 8, True)]}, "last stretch has nothing to recompute"),
        ({"optimizer_bits": 7}, "optimizer_bits must be 8 or 32 but got 7"),
        ({"trained_bits": 8}, "trained_bits must be 16 or 32 but got 8"),
    ],
)
def test_impossible_plans_are_refused(plan, message):
    keys = ("from_stage", "micro_batch_size", "recomputes")
    stretches = [dict(zip(keys, each, strict=False)) for each in plan.get("stretches", [(0, 8)])]
    with pytest.raises(ConfigError, match=message):
        Plan.from_dict({**plan, "stretches": stretches})


@pytest.mark.parametrize("data", [None, {}, {"stretches": 3}, {"stretches": [{"size": 1}]}])
def test_what_is_no_plan_is_told(data):
    with pytest.raises(ConfigError, match="not a training plan"):
        Plan.from_dict(data)


def test_a_plan_goes_through_json():
    plan = replace(_TWO_STRETCHES, optimizer_bits=8, trained_bits=16)
    assert Plan.from_dict(json.loads(json.dumps(asdict(plan)))) == plan
    assert (plan.evaluation_batch_size, Plan.whole(8, 3).evaluation_batch_size) == (1, 3)


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
