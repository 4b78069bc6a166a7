"""The trainer's commands on files: training, stops and damage, added classes, and the way back."""

import json
import os
import resource
import signal
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.errors import BundleError, ConfigError
from tinytl.native.delivery import predicted_process_bytes
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.formats.program_file import VERSION, read_program
from tinytl.native.formats.state_file import read_state
from tinytl.native.importer import import_state
from tinytl.native.program import ProgramSettings, compile_bundle, sha256_of_file
from tinytl.training.bundle import load, save_bundle
from tinytl.training.data import ImageSplit, ImageStore
from tinytl.training.train import TrainSettings, train

CLASSES = ("red", "green", "blue")
SPLITS = ("train",) * 22 + ("val",) * 8
PLAN = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=2, micro_batch_size=4),
    ),
    optimizer_bits=8,
)


@pytest.fixture
def make_bundle(tmp_path, make_network):
    def make(method=Method.BIAS, plan=PLAN, **kind):
        network = make_network(method, **kind)
        network.store_trained(plan.trained_bits)
        save_bundle(
            tmp_path / "model.zip",
            network,
            resolution=32,
            image_size=40,
            plan=plan,
            classes=CLASSES,
            report={},
            card="",
        )
        return tmp_path / "model.zip"

    return make


@pytest.fixture
def make_program(tmp_path, make_bundle):
    def make(method=Method.BIAS, plan=PLAN, settings=None, **kind):
        bundle = make_bundle(method, plan, **kind)
        content = compile_bundle(load(bundle), sha256_of_file(bundle.read_bytes()), settings)
        (tmp_path / "program.tfp").write_bytes(content)
        return tmp_path / "program.tfp"

    return make


@pytest.fixture
def store(tmp_path, images):
    pixels, labels = images
    write_image_file(
        tmp_path / "images.tfi",
        (
            StoredImage(pixels=p, label=int(label), split=split)
            for p, label, split in zip(pixels, labels, SPLITS, strict=True)
        ),
        CLASSES,
        image_size=40,
        max_classes=4,
    )
    return tmp_path / "images.tfi"


@pytest.fixture
def run(trainer, tmp_path):
    """Runs a command of the trainer, with --json; returns its answer, or what it said where its
    exit status is another."""

    def run(*arguments, status=0, stop_after_bytes=None, **options):
        environment = dict(os.environ)
        if stop_after_bytes is not None:
            environment["TINYFIT_STOP_AFTER_BYTES"] = str(stop_after_bytes)
        command = [str(trainer), *map(str, arguments), "--json"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == status, done.stderr
        return done.stderr if status else json.loads(done.stdout.splitlines()[-1])

    return run


def train_arguments(program, store, state, epochs=2):
    return ("train", program, store, "--epochs", epochs, "--state", state)


def test_training_is_that_of_the_engine(run, tmp_path, make_program, store, images):
    """Its images, their order, crops, dropout and schedule, so that the losses are the same."""
    settings = ProgramSettings(learning_rate=2e-3, seed=5)
    program = make_program(Method.LITE_RESIDUAL_BIAS, settings=settings, dropout_rate=0.2)
    answer = run(*train_arguments(program, store, tmp_path / "state"))
    pixels, labels = images
    splits = {"train": slice(22), "val": slice(22, 30), "test": slice(22, 30)}
    split_images = {name: ImageSplit(pixels[part], labels[part]) for name, part in splits.items()}
    network = load(tmp_path / "model.zip").network
    reports = train(
        network,
        ImageStore(split_images, CLASSES, 40),
        resolution=32,
        plan=PLAN,
        settings=TrainSettings(epochs=2, learning_rate=2e-3, seed=5),
    )
    assert answer["epochs"] == 2
    assert answer["train_loss"] == pytest.approx(reports[-1].train_loss, rel=2e-4)
    assert answer["accuracy"] == pytest.approx(reports[-1].val_accuracy, abs=0.13)
    assert answer["accuracy_split"] == "val"
    found = read_program(program.read_bytes())
    assert answer["arena_bytes"] == found.numbers["arena_bytes"]
    trainer_bytes = 1 << 21  # a build for tests is larger
    assert (
        answer["arena_bytes"]
        < answer["peak_resident_bytes"]
        <= predicted_process_bytes(found, trainer_bytes)
    )


@pytest.mark.parametrize("bits", [32, 16])
def test_what_was_learned_becomes_a_bundle_that_predicts_the_same(
    run, tmp_path, make_program, store, images, bits
):
    plan = Plan(batch_size=4, stretches=PLAN.stretches, optimizer_bits=8, trained_bits=bits)
    program = make_program(Method.LITE_RESIDUAL_BIAS, plan)
    state = tmp_path / "state"
    run(*train_arguments(program, store, state))
    import_state(state, tmp_path / "model.zip", tmp_path / "new.zip")
    bundle = load(tmp_path / "new.zip")
    assert bundle.report["device_training"]["epochs"] == 2
    for number in range(3):
        image = Image.fromarray(images[0][number].transpose(1, 2, 0))
        image.save(tmp_path / "image.ppm")
        answer = run("predict", program, tmp_path / "image.ppm", "--state", state)
        expected = bundle.predict(image)
        assert answer["label"] == expected.label
        assert answer["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-4)
    accuracy = run("evaluate", program, store, "--state", state)["accuracy"]
    right = [
        bundle.predict(Image.fromarray(images[0][n].transpose(1, 2, 0))).label
        == CLASSES[images[1][n]]
        for n in range(22, 30)
    ]
    assert accuracy == pytest.approx(np.mean(right))


def test_a_stop_at_any_write_changes_nothing(run, tmp_path, make_program, store):
    program = make_program(Method.HEAD)
    undisturbed = tmp_path / "undisturbed"
    arguments = (*train_arguments(program, store, undisturbed), "--save-every", 2)
    run(*arguments)
    expected = read_state(undisturbed)
    size = len(expected.payload)
    writes = [64]  # the preamble, then payload and slot of the initial state and of each save
    for _ in range(1 + 2 * 3):
        writes += [size, 80]
    stops, done = [], 0
    for number, count in enumerate(writes):
        stops += [done, done + count // 2] if number % 3 else [done + 1, done + count - 1]
        done += count
    for number, stop in enumerate(stops):
        state = tmp_path / f"stopped-{number}"
        again = (*train_arguments(program, store, state), "--save-every", 2)
        run(*again, status=99, stop_after_bytes=stop)
        run(*again)
        assert read_state(state).payload == expected.payload, stop
        assert read_state(state).last_loss == expected.last_loss
    run(*arguments, stop_after_bytes=done)  # that was all: nothing is written any more


def test_images_and_classes_can_be_added_on_the_device(run, tmp_path, make_program, store, images):
    program = make_program(Method.HEAD, settings=ProgramSettings(reserved_classes=1))
    state, photo = tmp_path / "state", tmp_path / "photo.ppm"
    run(*train_arguments(program, store, state, epochs=1))
    Image.fromarray(255 - images[0][0].transpose(1, 2, 0)).save(photo)
    assert run("add", program, store, photo, "black") == {"images": 31, "classes": 4}
    assert run("add", program, store, photo, "red") == {"images": 32, "classes": 4}
    assert "no room for the class 'white'" in run("add", program, store, photo, "white", status=2)
    answer = run(*train_arguments(program, store, state, epochs=3))
    assert answer["epochs"] == 3
    assert run("info", program, "--state", state)["classes"] == [*CLASSES, "black"]
    predicted = run("predict", program, photo, "--state", state)
    assert predicted["probabilities"].keys() == {*CLASSES, "black"}
    import_state(state, tmp_path / "model.zip", tmp_path / "new.zip")
    bundle = load(tmp_path / "new.zip")
    assert bundle.classes == (*CLASSES, "black")
    assert dict(bundle.predict(photo).probabilities) == pytest.approx(
        predicted["probabilities"], abs=1e-4
    )


def test_a_stop_while_an_image_is_added_loses_that_image_at_most(
    run, tmp_path, make_program, store, images
):
    program, photo = make_program(Method.HEAD), tmp_path / "photo.ppm"
    Image.fromarray(images[0][0].transpose(1, 2, 0)).save(photo)
    before = store.read_bytes()
    record, names, table = 8 + 3 * 40**2, 4 * 256, 24
    for stop in (0, 5, record, record + 100, record + names, record + names + table - 1):
        store.write_bytes(before)
        run("add", program, store, photo, "red", status=99, stop_after_bytes=stop)
        assert run("add", program, store, photo, "red")["images"] == 31
    run("evaluate", program, store, "--split", "train")


def test_a_training_that_goes_on_has_to_be_the_same(run, tmp_path, make_program, store):
    program, state = make_program(Method.HEAD), tmp_path / "state"
    slot = read_program(program.read_bytes()).numbers["state_bytes"] + 80
    run(*train_arguments(program, store, state), status=99, stop_after_bytes=64 + 2 * slot - 1)
    wrong = run(*train_arguments(program, store, state, epochs=5), status=2)
    assert "epoch 1 of a run of 2 epochs" in wrong
    assert run(*train_arguments(program, store, state, epochs=1), "--again")["epochs"] == 1
    finished = run(*train_arguments(program, store, state, epochs=1))
    assert finished == run(*train_arguments(program, store, state, epochs=1)) | {
        "peak_resident_bytes": finished["peak_resident_bytes"]
    }


def _damaged(content, at):
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def test_damage_is_told_and_nothing_is_trained(run, tmp_path, make_program, store):
    program, state = make_program(Method.HEAD), tmp_path / "state"
    whole = program.read_bytes()
    sections = read_program(whole).sections.values()
    places = [9, 100, *(offset + size // 2 for offset, size in sections)]
    contents = {"damaged": [_damaged(whole, at) for at in places[1:]]}
    contents["cut off"] = [whole[: len(whole) // 2]]
    contents["no program"] = [b"", b"junk", b"\0" * 1000]
    newer = whole[:8] + struct.pack("<2I", VERSION + 1, 0) + whole[16:]
    contents["another version"] = [newer]
    for words, damaged in contents.items():
        for content in damaged:
            program.write_bytes(content)
            said = run(*train_arguments(program, store, state), status=2)
            assert words in said
            assert said.count("\n") == 1
            assert not state.exists()
    program.write_bytes(whole)
    whole_store = store.read_bytes()
    for at, words in ((3, "no store"), (8, "version"), (20, "damaged"), (-9, "image 29")):
        store.write_bytes(_damaged(whole_store, at % len(whole_store)))
        assert words in run("evaluate", program, store, status=2)
    store.write_bytes(whole_store[:-1])
    assert "cut off" in run("evaluate", program, store, status=2)


def test_a_program_that_reaches_beyond_its_arena_is_refused(
    trainer, tmp_path, make_program, store
):
    """Though its checksums are right."""
    program = make_program(Method.BIAS)
    whole = program.read_bytes()
    found = read_program(whole)
    refused = 0
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        name = ("ops", "buffers", "segments")[rng.integers(3)]
        offset, size = found.sections[name]
        at = offset + 4 * int(rng.integers(size // 4))
        content[at : at + 4] = struct.pack("<I", int(rng.integers(1 << 32)))
        program.write_bytes(_with_checksums(content, found))
        command = [trainer, "train", program, store, "--epochs", "1", "--fresh"]
        done = subprocess.run(
            [*command, "--state", tmp_path / "state"], capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1, 2), (name, at, done.stderr)  # not a signal
        refused += "can't read" in done.stderr
    assert refused > 30


def _with_checksums(content, found):
    sections = list(found.sections.items())
    for number, (_, (offset, size)) in enumerate(sections):
        at = 48 + 12 * number + 8
        content[at : at + 4] = struct.pack("<I", zlib.crc32(content[offset : offset + size]))
    content[12:16] = bytes(4)
    content[12:16] = struct.pack("<I", zlib.crc32(content[:280]))
    return bytes(content)


def test_a_full_disk_is_told(run, tmp_path, make_program, store):
    program, state = make_program(Method.HEAD), tmp_path / "state"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    said = run(*train_arguments(program, store, state), status=1, preexec_fn=limit)
    assert "no room for the" in said
    assert not list(tmp_path.glob("state*"))


def test_images_and_usage_that_do_not_fit_are_refused(run, tmp_path, make_program, store):
    program = make_program(Method.HEAD)
    Image.new("RGB", (41, 40)).save(tmp_path / "wide.ppm")
    assert "41 x 40" in run("predict", program, tmp_path / "wide.ppm", status=2)
    Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
    assert "no binary PPM" in run("predict", program, tmp_path / "image.png", status=2)
    assert "'0'" in run(*train_arguments(program, store, tmp_path / "s", epochs=0), status=2)
    assert "--fast" in run("info", program, "--fast", status=2)
    write_image_file(tmp_path / "other", (), CLASSES, image_size=48, max_classes=3)
    assert "48 pixels" in run("evaluate", program, tmp_path / "other", status=2)


@pytest.mark.parametrize("method", [Method.FULL, Method.NORM_HEAD])
def test_methods_that_change_frozen_values_are_refused_by_name(make_program, method):
    with pytest.raises(ConfigError, match=method.value.replace("+", r"\+")):
        make_program(method, Plan.whole(4))


def test_a_state_of_another_bundle_is_refused(run, tmp_path, make_program, store):
    program, state = make_program(Method.HEAD), tmp_path / "state"
    run(*train_arguments(program, store, state, epochs=1))
    other = make_program(Method.BIAS)
    assert "another program" in run("info", other, "--state", state, status=2)
    with pytest.raises(BundleError, match="SHA-256"):
        import_state(state, tmp_path / "model.zip", tmp_path / "new.zip")
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(BundleError, match="damaged"):
        import_state(state, tmp_path / "model.zip", tmp_path / "new.zip")
