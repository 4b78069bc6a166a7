"""`tinyfit device`: a bundle to a device and back, by commands alone."""

import json
import subprocess

import pytest
from PIL import Image

import tinytl.native.delivery
from service.cli.main import main
from tests.tinytl.native.conftest import make_network
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.training.bundle import load, save_bundle

CLASSES = ("blue", "green", "red")


@pytest.fixture
def bundle(tmp_path):
    save_bundle(
        tmp_path / "model.zip",
        make_network(Method.BIAS),
        resolution=32,
        image_size=40,
        plan=Plan.whole(4),
        classes=CLASSES,
        report={},
        card="",
    )
    return tmp_path / "model.zip"


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for name in CLASSES:
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (50, 44), name).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def tinyfit(capsys):
    def tinyfit(*arguments, status=0):
        assert main([*map(str, arguments), "--json"]) == status
        said = capsys.readouterr()
        return said.err if status else json.loads(said.out.splitlines()[-1])

    return tinyfit


@pytest.fixture(autouse=True)
def _built_once(monkeypatch, trainer):
    monkeypatch.setattr(tinytl.native.delivery, "build_trainer", lambda target: trainer)


def test_there_and_back(tmp_path, tinyfit, bundle, photos):
    made = tinyfit("device", bundle, "--target", "native", "--output", tmp_path / "out")
    assert made.keys() == {
        *("target", "binary", "program", "binary_bytes", "predicted_process_bytes"),
    }
    assert made["target"] == "native"
    store, state = tmp_path / "store", tmp_path / "state"
    packed = tinyfit("device", "images", photos, "--program", made["program"], "--output", store)
    assert packed["images"] == 9
    command = [made["binary"], "train", made["program"], store, "--epochs", "2"]
    done = subprocess.run(
        [*command, "--state", state, "--json"], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["epochs"] == 2
    assert answer["peak_resident_bytes"] <= made["predicted_process_bytes"]
    tinyfit("device", "import", state, bundle, "--output", tmp_path / "new.zip")
    assert load(tmp_path / "new.zip").classes == CLASSES


def test_a_class_that_there_is_no_room_for_is_named(tmp_path, tinyfit, bundle, photos):
    (photos / "train" / "red").rename(photos / "train" / "yellow")
    (photos / "val" / "red").rename(photos / "val" / "yellow")
    made = tinyfit("device", bundle, "--target", "native", "--output", tmp_path / "out")
    arguments = ("device", "images", photos, "--program")
    said = tinyfit(*arguments, made["program"], "--output", tmp_path / "s", status=2)
    assert "'yellow'" in said
    assert "--reserve-classes" in said
    made = tinyfit(
        "device", bundle, "--target", "native", "--output", tmp_path / "out",
        "--reserve-classes", 1,
    )  # fmt: skip
    packed = tinyfit(*arguments, made["program"], "--output", tmp_path / "s")
    assert packed["classes"] == [*CLASSES, "yellow"]


def test_what_is_no_program_is_told(tmp_path, tinyfit, photos):
    (tmp_path / "junk").write_bytes(b"junk")
    said = tinyfit(
        "device", "images", photos, "--program", tmp_path / "junk", "--output", tmp_path / "s",
        status=2,
    )  # fmt: skip
    assert "junk" in said
