import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from search.elastic.supernet import load_supernet
from search.errors import PretrainError
from search.pretraining.images import Crops, TrainingImages
from search.pretraining.output import Note
from search.pretraining.run import pretrain, training_state
from search.pretraining.settings import PretrainSettings, usual_schedule
from search.pretraining.start import initial_supernet
from search.pretraining.state import CHECKPOINT
from search.pretraining.trainer import Trainer
from tinytl.engine.ops.normalize import normalize
from tinytl.errors import CancelledError
from tinytl.training.data import ImageStore, Sample, ingest

BATCH_NORM, GROUP_NORM = "ofa_proxyless_d12_e23_k35_w0.1_x", "ofa_mbv3_d12_e23_k35_w0.1_gn_x"
NOTE = Note(data={"names": ["x"]}, classes=("a", "b"), licence="CC0")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Noise of two colours."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    samples = []
    for index in range(24):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, index % 2] //= 4
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        split = "train" if index < 16 else "val"
        samples.append(Sample(path=path, label=index % 2, split=split))
    ingest(samples, ["a", "b"], folder / "store", image_size=32, splits=("train", "val"))
    return ImageStore.open(folder / "store")


def settings_of(architecture=BATCH_NORM, **changed):
    given = {"resolutions": (24, 32), "epochs": 3, "batch_size": 8, "learning_rate": 0.02}
    return PretrainSettings(architecture=architecture, **(given | changed))


class _StopAfter:
    def __init__(self, num_steps):
        self.num_left = num_steps

    def __call__(self):
        self.num_left -= 1
        return self.num_left < 0


@pytest.fixture(scope="module", params=[BATCH_NORM, GROUP_NORM])
def finished(request, store, tmp_path_factory):
    """The path of a whole training's supernet, and its settings."""
    settings = settings_of(request.param)
    return pretrain(settings, store, tmp_path_factory.mktemp("whole"), NOTE), settings


def test_stopped_and_resumed_it_ends_the_same_to_the_bit(finished, store, tmp_path):
    path, settings = finished
    with pytest.raises(CancelledError):
        pretrain(settings, store, tmp_path, NOTE, should_stop=_StopAfter(3))
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "loss": {}}\n{"step": 5, "lo')
    resumed = pretrain(settings, store, tmp_path, NOTE)
    assert resumed.read_bytes() == path.read_bytes()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_the_card_tells_where_it_was_trained(store, tmp_path):
    """It may be evaluated elsewhere, later."""
    settings = settings_of()
    with pytest.raises(CancelledError):
        pretrain(settings, store, tmp_path, NOTE, should_stop=_StopAfter(6))
    state = training_state(tmp_path, settings, NOTE)
    tensors, done = state.load()
    assert (done.steps, done.device) == (6, "cpu")
    state.save(tensors, replace(done, seconds=441.2, device="cuda"))
    path = pretrain(settings, store, tmp_path, NOTE)
    recipe = json.loads(path.with_suffix(".json").read_text())["recipe"]
    assert (recipe["seconds"], recipe["device"]) == (441, "cuda")


def test_the_supernet_is_whole_and_its_card_tells_of_it(finished, tmp_path):
    path, settings = finished
    loaded = load_supernet(path, tmp_path)
    assert loaded.spec.id == settings.architecture
    assert len(loaded.lite_residuals) == loaded.spec.num_dynamic_blocks
    text = path.with_suffix(".json").read_text()
    card = json.loads(text)
    assert card["recipe"]["settings"]["learning_rate"] == 0.02
    assert card["licence"] == "CC0"
    num_parameters = sum(p.numel() for p in loaded.network.parameters())
    assert card["num_parameters"] == num_parameters
    for variant in ("without_lite_residuals", "with_lite_residuals"):
        found = card["top1_accuracy"][variant]
        assert found["random"]["num_subnets"] == 20
        assert found["random"]["least"] <= found["random"]["mean"] <= found["random"]["most"]
    assert str(path.parent) not in text


def test_another_training_in_the_folder_is_refused(store, tmp_path):
    with pytest.raises(CancelledError):
        pretrain(settings_of(), store, tmp_path, NOTE, should_stop=_StopAfter(1))
    with pytest.raises(PretrainError, match=r"\(seed 0 there, 1 now; names \['x'\] there, \['y'"):
        pretrain(settings_of(seed=1), store, tmp_path, replace(NOTE, data={"names": ["y"]}))
    (tmp_path / CHECKPOINT).write_bytes(b"\x08")
    with pytest.raises(PretrainError, match="is damaged"):
        pretrain(settings_of(), store, tmp_path, NOTE)


def test_a_loss_that_is_not_finite_ends_it(store, tmp_path):
    with pytest.raises(PretrainError, match="diverged near step"):
        pretrain(settings_of(learning_rate=1e9), store, tmp_path, NOTE)
    assert not list(tmp_path.glob("ofa_*"))


def test_a_start_keeps_what_fits(finished, tmp_path):
    path, settings = finished
    start = load_supernet(path, tmp_path)
    head = start.network.classifier.linear.weight.clone()
    stem = start.network.first_conv.conv.weight.clone()
    kept = initial_supernet(replace(settings, seed=5), 2, start, _no_images)
    assert torch.equal(kept.network.classifier.linear.weight, head)
    assert kept.lite_residuals == start.lite_residuals
    other = initial_supernet(replace(settings, lite_residual_share=0.0), 3, start, _no_images)
    assert other.network.classifier.linear.weight.shape[0] == 3
    assert torch.equal(other.network.first_conv.conv.weight, stem)
    assert other.lite_residuals == {}
    wider = replace(settings, architecture="ofa_proxyless_d12_e23_k35_w0.2")
    with pytest.raises(PretrainError, match="another architecture"):
        initial_supernet(wider, 2, start, _no_images)


def _no_images():
    raise AssertionError("nothing is converted")


@pytest.mark.parametrize("finished", [BATCH_NORM], indirect=True)
def test_a_batch_norm_start_becomes_group_norm(finished, tmp_path):
    path, settings = finished
    start = load_supernet(path, tmp_path)
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    architecture = BATCH_NORM.replace("_x", "_gn_x")
    found = initial_supernet(
        replace(settings, architecture=architecture), 2, start, lambda: images
    )
    before, after = start.network, found.network
    assert torch.equal(
        after.blocks[2].conv.depth_conv.conv.conv.weight,
        before.blocks[2].conv.depth_conv.conv.conv.weight,
    )
    assert found.lite_residuals == start.lite_residuals
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in after.modules())
    # every channel of a norm has the mean and deviation that batch norm gives it
    seen = {}
    after.blocks[0].conv.point_linear.bn.register_forward_hook(lambda m, x, y: seen.update(y=y))
    found.forward(found.spec.largest, images)
    norm = before.blocks[0].conv.point_linear.bn
    deviation, mean = torch.std_mean(seen["y"], (0, 2, 3))
    torch.testing.assert_close(mean, norm.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, norm.weight.abs(), rtol=1e-4, atol=1e-4)


def _crops(**changed):
    whole = {"top": 0.0, "left": 0.0, "height": 1.0, "width": 1.0, "brightness": 1.0}
    given = {name: np.array([value]) for name, value in (whole | changed).items()}
    return Crops(mirrored=given.pop("mirrored", np.array([False])), **given)


def test_crops_are_cut_where_they_say(store):
    images = TrainingImages(store.split("train"), torch.device("cpu"))
    image = store.split("train").batch([3], 32)

    def view(resolution, **changed):
        return images.batch(np.array([3]), _crops(**changed), resolution)[0]

    torch.testing.assert_close(view(32), normalize(image))
    torch.testing.assert_close(view(32, mirrored=True), normalize(image).flip(3))
    quarter = view(16, top=0.5, left=0.25, height=0.5, width=0.5)
    torch.testing.assert_close(quarter, normalize(image[:, :, 16:, 8:24]))
    halved = torch.nn.functional.interpolate(
        image.float(), (16, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(view(16), normalize(halved), atol=0.02, rtol=0)


def test_crops_are_drawn_within_their_bounds():
    def draw(**changed):
        given = {"min_crop_scale": 0.3, "horizontal_flip": True, "brightness": 0.2}
        return Crops.draw(2000, np.random.default_rng(0), **(given | changed))

    crops = draw()
    areas = crops.height * crops.width
    assert 0.2 < areas.min() < 0.35
    assert areas.max() > 0.9
    assert (crops.top + crops.height).max() <= 1 + 1e-9
    assert (crops.left + crops.width).max() <= 1 + 1e-9
    assert 0.4 < crops.mirrored.mean() < 0.6
    assert 0.8 <= crops.brightness.min() < 0.81
    assert 1.19 < crops.brightness.max() <= 1.2
    assert not draw(horizontal_flip=False).mirrored.any()
    assert (draw(brightness=0.0).brightness == 1).all()


def test_a_step_learns_the_labels_with_the_largest_the_smallest_and_the_modules(store):
    images = TrainingImages(store.split("train"), torch.device("cpu"))
    chosen = np.array([15, 0, 9])
    assert images.batch(chosen, _crops(), 16)[1].tolist() == [1, 0, 1]
    settings = settings_of(lite_residual_share=1.0, num_random_subnets=0, epochs=40)
    supernet = initial_supernet(settings, 2, None, _no_images)
    before = {
        index: module.final_bn.weight.clone() for index, module in supernet.lite_residuals.items()
    }
    trainer = Trainer(supernet, images, settings)
    losses = [trainer.train_step(step) for step in range(trainer.num_steps)]
    assert losses[0].keys() == {"largest", "smallest"}
    # random guesses lose log 2 = 0.69, and smoothed labels of 0.1 no less than 0.2
    assert sum(loss["largest"].item() for loss in losses[-5:]) / 5 < 0.5
    after = {index: module.final_bn.weight for index, module in supernet.lite_residuals.items()}
    assert all(not torch.equal(after[index], before[index]) for index in before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1 but got 0"),
        ({"resolutions": (8,)}, "resolutions must rise, from 16 to 512"),
        ({"resolutions": (64, 48)}, "resolutions must rise"),
        ({"lite_residual_share": 1.5}, "from 0 to 1 but got 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive but got nan"),
    ],
)
def test_settings_quote_what_is_wrong(changed, message):
    with pytest.raises(PretrainError, match=message):
        settings_of(**changed)


def test_a_batch_must_be_there_and_in_equal_shares():
    with pytest.raises(PretrainError, match="at most the 5 training images but got 8"):
        settings_of().steps_per_epoch(5, 1)
    with pytest.raises(PretrainError, match="a multiple of the 3 processes but got 8"):
        settings_of().steps_per_epoch(100, 3)


@pytest.mark.parametrize("num_images", [3, 100, 800, 56_000])
@pytest.mark.parametrize("num_processes", [1, 3])
def test_the_usual_schedule_fits_the_images(num_images, num_processes):
    found = usual_schedule(num_images, num_processes)
    settings = settings_of(**vars(found))
    num_steps = found.epochs * settings.steps_per_epoch(num_images, num_processes)
    assert num_steps >= 4000
    if num_processes == 1:
        assert found.batch_size == {3: 3, 100: 8, 800: 64, 56_000: 128}[num_images]


def test_long_trainings_are_validated_some_ten_times():
    settings = settings_of(epochs=100)
    validated = [epoch for epoch in range(1, 101) if settings.validates_after(epoch)]
    assert len(validated) == 10
    assert validated[-1] == 100
