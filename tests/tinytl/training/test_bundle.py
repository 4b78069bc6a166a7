import json
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

import tinytl
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.errors import BundleError
from tinytl.squares import FITS, Squaring
from tinytl.training.bundle import save_bundle
from tinytl.training.data import ImageSplit, load_image, to_square
from tinytl.training.train import TrainSettings, train

_PLAN = Plan.whole(4, 2)


@pytest.fixture(params=list(Method), ids=str)
def network(request, small_network):
    config = small_network(num_classes=2, lite=request.param.uses_lite_residual)
    return build_network(config, request.param, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small_bundle(small_network, tmp_path):
    config = small_network(num_classes=2)
    network = build_network(config, Method.LITE_RESIDUAL_BIAS)
    _save(tmp_path / "model.zip", network)
    return tmp_path / "model.zip"


def _save(path, network, plan=_PLAN, squaring=None):
    return save_bundle(
        path,
        network,
        resolution=48,
        image_size=64,
        plan=plan,
        classes=["red", "green"],
        report={"test_accuracy": 0.5},
        card="# A model",
        squaring=squaring,
    )


def test_a_loaded_bundle_predicts_and_goes_on_training(network, store, tmp_path):
    info = _save(tmp_path / "model.zip", network)
    assert info.bytes == (tmp_path / "model.zip").stat().st_size
    bundle = tinytl.load(tmp_path / "model.zip")
    assert (bundle.resolution, bundle.plan, bundle.method) == (48, _PLAN, network.method)
    assert bundle.report == {"test_accuracy": 0.5}
    images = store.split("test").batch(range(4), 48)
    assert torch.equal(bundle.network(images), network(images))
    prediction = bundle.predict(Image.new("RGB", (90, 60), (200, 10, 10)))
    assert prediction.label in {"red", "green"}
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    settings = TrainSettings(epochs=1)
    train(bundle.network, store, resolution=48, plan=bundle.plan, settings=settings)


@pytest.mark.parametrize("optimizer_bits", [8, 32])
def test_bfloat16_weights_go_on_training(small_network, store, tmp_path, optimizer_bits):
    plan = replace(_PLAN, trained_bits=16, optimizer_bits=optimizer_bits)
    network = build_network(small_network(num_classes=2), Method.LITE_RESIDUAL_BIAS)
    settings = TrainSettings(epochs=1)
    train(network, store, resolution=48, plan=plan, settings=settings)
    _save(tmp_path / "model.zip", network, plan)
    bundle = tinytl.load(tmp_path / "model.zip")
    assert bundle.plan == plan
    trained = bundle.network.trained_parameters()
    assert trained.keys() == network.trained_parameters().keys()
    assert {p.dtype for p in trained.values() if p.dim() > 1} == {torch.bfloat16}
    for name, tensor in network.state_dict().items():
        found = bundle.network.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)
    histories = [
        train(each, store, resolution=48, plan=plan, settings=settings)
        for each in (network, bundle.network)
    ]
    assert histories[0][0].train_loss == histories[1][0].train_loss


def test_a_prediction_sees_what_the_test_saw(small_network, store, tmp_path):
    network = build_network(small_network(num_classes=2), Method.BIAS)
    _save(tmp_path / "model.zip", network)
    bundle = tinytl.load(tmp_path / "model.zip")
    noise = np.random.default_rng(0).integers(256, size=(90, 120, 3), dtype=np.uint8)
    seen = torch.from_numpy(to_square(Image.fromarray(noise), 64))[None]
    split = ImageSplit(seen.numpy(), np.zeros(1, np.int64))
    expected = network(split.batch([0], 48)).softmax(1)[0].tolist()
    assert list(bundle.predict(Image.fromarray(noise)).probabilities.values()) == expected


def test_a_file_is_read_as_the_files_of_the_test_were(small_network, tmp_path):
    """Large JPEGs at a reduced scale."""
    network = build_network(small_network(num_classes=2), Method.BIAS)
    _save(tmp_path / "model.zip", network)
    bundle = tinytl.load(tmp_path / "model.zip")
    noise = np.random.default_rng(0).integers(256, size=(600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    seen = load_image(tmp_path / "photo.jpg", 64)[None]
    assert (seen[0] != to_square(Image.open(tmp_path / "photo.jpg"), 64)).any()
    split = ImageSplit(seen, np.zeros(1, np.int64))
    expected = network(split.batch([0], 48)).softmax(1)[0].tolist()
    found = bundle.predict(tmp_path / "photo.jpg")
    assert list(found.probabilities.values()) == expected


@pytest.mark.parametrize("fit", FITS)
def test_a_bundle_makes_squares_as_its_training_did(small_network, tmp_path, fit):
    network = build_network(small_network(num_classes=2), Method.BIAS)
    _save(tmp_path / "model.zip", network, squaring=Squaring(fit=fit))
    bundle = tinytl.load(tmp_path / "model.zip")
    assert bundle.squaring == Squaring(fit=fit)
    noise = np.random.default_rng(0).integers(256, size=(60, 120, 3), dtype=np.uint8)
    seen = to_square(Image.fromarray(noise), 64, Squaring(fit=fit))[None]
    split = ImageSplit(seen, np.zeros(1, np.int64))
    expected = network(split.batch([0], 48)).softmax(1)[0].tolist()
    assert list(bundle.predict(Image.fromarray(noise)).probabilities.values()) == expected
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:  # earlier readers would crop
        version = json.loads(archive.read("config.json"))["format_version"]
    assert version == (1 if fit == "crop" else 2)


def test_a_bundle_of_an_earlier_version_goes_on_as_it_was(small_bundle):
    """It crops, and drops what is transparent; one of a fit that is not known is refused."""

    def rewrite(**changes):
        with zipfile.ZipFile(small_bundle) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(entries["config.json"])
        for name, value in changes.items():
            config["preprocessing"][name] = value
            if value is None:
                del config["preprocessing"][name]
        entries["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(small_bundle, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    rewrite(fit=None, transparency=None)
    assert tinytl.load(small_bundle).squaring == Squaring(fit="crop", transparency="dropped")
    rewrite(fit="zoom")
    with pytest.raises(BundleError, match="fit must be one of crop, pad, squash but got 'zoom'"):
        tinytl.load(small_bundle)


def test_what_load_would_refuse_is_not_written(small_network, tmp_path):
    network = build_network(small_network(num_classes=3), Method.BIAS)
    with pytest.raises(BundleError, match="3 different names"):
        _save(tmp_path / "model.zip", network)
    network = build_network(small_network(num_classes=2), Method.LITE_RESIDUAL_BIAS)
    with pytest.raises(BundleError, match=r"store_trained\(16\)"):
        _save(tmp_path / "model.zip", network, replace(_PLAN, trained_bits=16))
    network.store_trained(16)
    with pytest.raises(BundleError, match=r"store_trained\(32\)"):
        _save(tmp_path / "model.zip", network)
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_padding_and_normalization_of_its_own(lite0, store, tmp_path):
    """It has a format version that earlier readers refuse."""
    network = build_network(lite0(num_classes=2), Method.BIAS)
    _save(tmp_path / "model.zip", network)
    bundle = tinytl.load(tmp_path / "model.zip")
    assert bundle.network.config == network.config
    images = store.split("test").batch(range(4), 48)
    assert torch.equal(bundle.network(images), network(images))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        config = json.loads(archive.read("config.json"))
    assert config["format_version"] == 2
    assert config["preprocessing"]["mean"] == [127 / 255] * 3
    assert config["preprocessing"]["std"] == [128 / 255] * 3


def test_equal_input_gives_equal_bytes(network, tmp_path):
    infos = [_save(tmp_path / name, network) for name in ("a.zip", "b.zip")]
    assert infos[0] == infos[1]
    assert sorted(path.name for path in tmp_path.glob("*.zip*")) == ["a.zip", "b.zip"]


def _rewrite(path, change):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _with_config(**changes):
    def change(entries):
        config = json.loads(entries["config.json"]) | changes
        entries["config.json"] = json.dumps(config).encode()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("model.safetensors"), "no bundle of tinyfit"),
        (lambda e: e.update({"model.safetensors": b"\x80\x04 pickled"}), "no bundle of tinyfit"),
        (lambda e: e.update({"config.json": b"[]"}), "no bundle of tinyfit"),
        (_with_config(format_version=99), "format version 99"),
        (_with_config(method="magic"), "'magic'"),
        (_with_config(weight_bits=32), "tensors are not those"),
        (_with_config(weight_bits=4), "8 or 32 but got 4"),
        (_with_config(classes=["red"]), "2 different names"),
        (_with_config(classes=["red", "red"]), "2 different names"),
        (
            _with_config(preprocessing={"resolution": 48, "mean": [0.5, 0.5, 0.5]}),
            r"has the mean \[0.5, 0.5, 0.5\], but the network \[0.485",
        ),
        (_with_config(preprocessing={"resolution": "48"}), "resolution must be from 1"),
        (_with_config(plan={"batch_size": 4.5, "stretches": [{"micro_batch_size": 1}]}), "4.5"),
        (_with_config(plan={**asdict(_PLAN), "trained_bits": 16}), "tensors are not those"),
        (_with_config(plan=None), "not a training plan"),
    ],
)
def test_damaged_bundles_are_refused(small_bundle, change, message):
    _rewrite(small_bundle, change)
    with pytest.raises(BundleError, match=message):
        tinytl.load(small_bundle)


def test_a_network_far_larger_than_the_file_is_refused_before_it_is_made(small_bundle):
    def change(entries):
        config = json.loads(entries["config.json"])
        config["network"]["feature_mix_layer"]["out_channels"] = 65_536
        config["network"]["classifier"]["out_features"] = 100_000_000
        entries["config.json"] = json.dumps(config).encode()

    _rewrite(small_bundle, change)
    with pytest.raises(BundleError, match="tensors are not those"):
        tinytl.load(small_bundle)


def test_compressed_entries_are_refused(small_bundle):
    with zipfile.ZipFile(small_bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(small_bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match="must be stored as it is"):
        tinytl.load(small_bundle)


def test_a_missing_or_cut_file_is_refused(small_bundle, tmp_path):
    with pytest.raises(BundleError, match=r"absent\.zip"):
        tinytl.load(tmp_path / "absent.zip")
    small_bundle.write_bytes(small_bundle.read_bytes()[:-200])
    with pytest.raises(BundleError, match="no bundle of tinyfit"):
        tinytl.load(small_bundle)


def test_importing_the_package_does_not_import_torch():
    script = (
        "import sys, tinytl, tinytl.accounting.memory, tinytl.accounting.published; "
        "import tinytl.description.method, tinytl.description.ofa_format, tinytl.units; "
        "import tinytl.description.plan; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
