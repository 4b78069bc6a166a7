"""Delivered networks as ONNX: the same probabilities, the same pixels, nothing of tinyfit."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.tinytl.conftest import MOBILENETV3, PROXYLESS
from tinytl.description.config import IMAGENET
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import Network, build_network
from tinytl.errors import BundleError
from tinytl.onnx_export import predict
from tinytl.onnx_export.__main__ import main
from tinytl.onnx_export.export import (
    check_models,
    check_text,
    complete_folder,
    pack_folder,
    write_models,
)
from tinytl.onnx_export.files import MODEL_FILES
from tinytl.onnx_export.footprint import measure_footprint
from tinytl.onnx_export.network import onnx_network
from tinytl.onnx_export.source import read_bundle
from tinytl.training.bundle import save_bundle
from tinytl.training.data import evaluation_view

_PLAN = Plan.whole(4, 2)


@torch.no_grad()
def randomized(network: Network) -> Network:
    """Every norm, bias and lite residual module does something."""
    generator = torch.Generator().manual_seed(1)
    for name, values in [*network.named_parameters(), *network.named_buffers()]:
        if values.dim() == 1:
            if name.endswith(("bias", "mean")):
                values.normal_(0, 0.1, generator=generator)
            else:
                values.uniform_(0.5, 1.5, generator=generator)
    return network


def bundle_of(network: Network, path: Path, plan: Plan = _PLAN, *, resolution: int = 50) -> Path:
    names = [f"class {number}" for number in range(network.config.num_classes)]
    save_bundle(
        path,
        network,
        resolution=resolution,
        image_size=72,
        plan=plan,
        classes=names,
        report={},
        card="",
    )
    return path


def images_of(num_images: int, resolution: int) -> np.ndarray:
    shape = (num_images, 3, resolution, resolution)
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("method", list(Method), ids=str)
@pytest.mark.parametrize("group_norm", [False, True], ids=["batch norm", "group norm"])
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3], ids=["proxyless", "mbv3"])
def test_models_say_what_the_network_says(small_network, tmp_path, supernet, group_norm, method):
    config = small_network(supernet, group_norm=group_norm, lite=method.uses_lite_residual)
    network = randomized(build_network(config, method, generator=torch.Generator().manual_seed(0)))
    source = read_bundle(bundle_of(network, tmp_path / "model.zip"))
    write_models(source, tmp_path)
    images = images_of(4, 50)  # odd maps on the way: 25, 13, 7, 4
    expected = network(torch.from_numpy(images)).softmax(1).numpy()
    for precision, name in MODEL_FILES.items():
        found = predict.run(predict.open_session(tmp_path / name, num_threads=1), images)
        is_rounded = precision == "int8" and method is Method.FULL
        np.testing.assert_allclose(found, expected, atol=0.05 if is_rounded else 2e-6)
    floats, eights = ((tmp_path / name).stat().st_size for name in MODEL_FILES.values())
    assert eights < 0.75 * floats


def test_bfloat16_values_are_widened(small_network, tmp_path):
    network = randomized(build_network(small_network(), Method.LITE_RESIDUAL_BIAS))
    network.store_trained(16)
    source = read_bundle(
        bundle_of(network, tmp_path / "model.zip", replace(_PLAN, trained_bits=16))
    )
    write_models(source, tmp_path)
    images = images_of(3, 50)
    expected = network(torch.from_numpy(images)).softmax(1).numpy()
    found = predict.run(predict.open_session(tmp_path / "model.onnx"), images)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_frozen_weights_stay_in_eight_bits(small_network):
    network = build_network(small_network(), Method.LITE_RESIDUAL_BIAS)
    tensors = {name: values.numpy() for name, values in network.state_dict().items()}
    model = onnx_network(network.config, tensors, resolution=50, precision="int8")
    frozen = [name for name in tensors if name.endswith(".frozen.weight")]
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    widened = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(widened) == len(frozen) > 20
    for name in frozen:
        stored = held[f"{name.removesuffix('.frozen.weight')}.weight.int8"]
        assert stored.data_type == onnx.TensorProto.INT8
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored), tensors[name])


@pytest.mark.parametrize("resolution", [64, 65])
@pytest.mark.parametrize("method", [Method.BIAS, Method.LITE_RESIDUAL_BIAS], ids=str)
def test_padding_and_normalization_of_efficientnet_lite(
    small_network, tmp_path, method, resolution
):
    config = small_network("efficientnet_lite0", lite=method.uses_lite_residual)
    assert config.padding == "same"
    assert config.normalization != IMAGENET
    network = randomized(build_network(config, method, generator=torch.Generator().manual_seed(0)))
    source = read_bundle(bundle_of(network, tmp_path / "model.zip", resolution=resolution))
    write_models(source, tmp_path)
    images = images_of(4, resolution)
    expected = network(torch.from_numpy(images)).softmax(1).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3  # images are told apart
    for name in MODEL_FILES.values():
        found = predict.run(predict.open_session(tmp_path / name, num_threads=1), images)
        np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("image_size", "resolution"), [(96, 48), (96, 80), (97, 48), (48, 48), (40, 56), (224, 160)]
)
def test_images_are_seen_to_the_pixel(tmp_path, image_size, resolution):
    noise = np.random.default_rng(0).integers(256, size=(130, 170, 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(tmp_path / "photo.png", exif=turned)
    photo.resize((900, 700)).save(tmp_path / "large.jpg")  # read at a reduced scale
    photo.convert("P").save(tmp_path / "palette.gif")
    photo.convert("LA").save(tmp_path / "grey.png")
    deep = Image.fromarray((noise[:, :, 0].astype(np.uint16) << 8) + 7)
    deep.save(tmp_path / "deep.png")
    seen = {"image_size": image_size, "resolution": resolution}
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 5
    for path in paths:
        expected = evaluation_view(path, image_size, resolution).numpy()
        np.testing.assert_array_equal(predict.preprocess(path, seen), expected, path.name)


@pytest.fixture
def export(tmp_path, small_network):
    """A folder as users get it."""
    folder = tmp_path / "export"
    folder.mkdir()
    network = build_network(small_network(num_classes=3), Method.BIAS)
    source = read_bundle(bundle_of(network, folder / "model.zip"))
    (folder / "model.zip").unlink()
    write_models(source, folder)
    images = images_of(4, 50)

    def expected():
        yield images, network(torch.from_numpy(images)).softmax(1).numpy()

    complete_folder(source, folder, check_models(folder, expected))
    return folder


def test_checks_are_told(export):
    described = json.loads((export / "model.json").read_text())
    for name in MODEL_FILES.values():
        check = described["models"][name]
        assert (check["num_images"], check["num_same_class"]) == (4, 4)
        assert check["bytes"] == (export / name).stat().st_size
        assert check["footprint"]["process_bytes"] > 20e6
        assert f"{name} (" in (export / "README.md").read_text()


def test_memory_that_can_not_be_measured_is_not_known(tmp_path):
    assert measure_footprint(tmp_path / "none.onnx") is None


def test_a_model_of_other_values_is_told_apart(export):
    def expected():
        yield images_of(4, 50), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]

    check = check_models(export, expected)["float"]
    assert check.num_same_class < 4
    assert check.largest_difference > 0.1
    assert f"on {check.num_same_class} of 4 images" in check_text("float", check)


def test_the_script_needs_three_packages_alone(export, tmp_path):
    folder = shutil.copytree(export, tmp_path / "elsewhere")
    tree = ast.parse((folder / "predict.py").read_text())
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    Image.new("RGB", (90, 60), (200, 10, 10)).save(tmp_path / "red.png")
    (tmp_path / "note.txt").write_text("no image")
    script = [sys.executable, "-I", str(folder / "predict.py"), "--json"]
    images = [str(tmp_path / name) for name in ("red.png", "note.txt")]
    done = subprocess.run([*script, *images], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "note.txt: can't be read as an image" in done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)["probabilities"]
    assert sorted(found) == ["class 0", "class 1", "class 2"]
    assert sum(found.values()) == pytest.approx(1)


def test_the_same_bundle_gives_the_same_zip(small_network, tmp_path):
    bundle = bundle_of(build_network(small_network(), Method.HEAD), tmp_path / "model.zip")
    for name in ("a.zip", "b.zip"):
        assert main(str(bundle), str(tmp_path / name)) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert set(archive.namelist()) == {
            *("model.onnx", "model.int8.onnx", "model.json", "predict.py", "README.md")
        }


def test_exporting_imports_no_torch(small_network, tmp_path):
    bundle = bundle_of(build_network(small_network(), Method.HEAD), tmp_path / "model.zip")
    program = (
        "import sys; from tinytl.onnx_export.__main__ import main; "
        f"main({str(bundle)!r}, {str(tmp_path / 'onnx.zip')!r}); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_bundle_of_a_later_format_is_refused(small_network, tmp_path):
    made = bundle_of(build_network(small_network(), Method.BIAS), tmp_path / "model.zip")
    later = tmp_path / "later.zip"
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(later, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps({**json.loads(content), "format_version": 3}).encode()
            new.writestr(name, content)
    with pytest.raises(BundleError, match="format version 3 is unknown"):
        read_bundle(later)


def test_what_is_no_bundle_is_refused(small_network, tmp_path, capsys):
    (tmp_path / "text.zip").write_text("no bundle")
    with pytest.raises(BundleError, match=r"text\.zip is no bundle"):
        read_bundle(tmp_path / "text.zip")
    assert main(str(tmp_path / "text.zip"), str(tmp_path / "onnx.zip")) == 2
    assert "is no bundle" in capsys.readouterr().err
    assert not (tmp_path / "onnx.zip").exists()
    bundle = bundle_of(build_network(small_network(), Method.HEAD), tmp_path / "model.zip")
    source = read_bundle(bundle)
    tensors = {name: v for name, v in source.tensors.items() if "blocks.3" not in name}
    with pytest.raises(BundleError, match=r"not those of its network"):
        write_models(replace(source, tensors=tensors), tmp_path)
    misshapen = {name: v.reshape(-1)[:8] for name, v in source.tensors.items()}
    with pytest.raises(BundleError, match=r"not those of its network"):
        write_models(replace(source, tensors=misshapen), tmp_path)


def test_a_folder_is_packed_without_dates(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    pack_folder(tmp_path / "in", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        (entry,) = archive.infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
