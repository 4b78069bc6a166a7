"""`tinyfit pretrain` as a user meets it: real processes, killed; and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from search.elastic.supernet import load_supernet
from search.pretraining.state import CHECKPOINT
from search.supernets.registry import DEFAULT_SUPERNET
from service.cli.main import main
from service.commands.sources import open_sources
from service.errors import DatasetError
from service.settings import Settings
from tests.service.support.processes import descendants, is_alive, wait_for

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]

RESULT = "ofa_proxyless_d234_e346_k357_w0.1_gn_shapes.safetensors"
QUICK = (
    *("--width", "0.1", "--norm", "group", "--epochs", "2", "--resolutions", "16,24"),
    *("--batch-size", "4", "--learning-rate", "0.0003", "--json"),
)
_PATIENCE_SECONDS = 300.0
"""Processes import torch first, beside many others."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in two classes of six images."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    rng = np.random.default_rng(0)
    for name in ("circle", "square"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the photos' undisturbed training is, in one process."""
    output = tmp_path_factory.mktemp("whole")
    assert main(["pretrain", str(photos), *QUICK, "--output", str(output)]) == 0
    return output


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _kill_after_the_first_epoch(arguments: list[str], output: Path) -> None:
    """Start the command as a user does; SIGKILL it, and see that nothing of it is left."""
    process = subprocess.Popen([sys.executable, "-m", "service.cli", *arguments])
    try:
        wait_for((output / CHECKPOINT).exists, _PATIENCE_SECONDS)
        children = descendants(process.pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any(map(is_alive, children)))
    assert not list(output.glob("ofa_*"))


def test_killed_and_started_again_it_ends_the_same_to_the_bit(
    photos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", str(photos), *QUICK, "--output", str(tmp_path)]
    _kill_after_the_first_epoch(arguments, tmp_path)
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "going on after step " in captured.err
    assert (tmp_path / RESULT).read_bytes() == (whole / RESULT).read_bytes()
    assert not list(tmp_path.glob(".tinyfit/images*"))
    answer = json.loads(captured.out.splitlines()[-1])
    assert answer["supernet"] == str(tmp_path / RESULT)
    data = answer["card"]["data"]
    assert (data["num_train_images"], data["num_val_images"]) == (10, 2)


def test_of_a_finished_one_the_same_command_tells_the_result(
    photos: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", str(photos), *QUICK, "--output", str(whole)]
    log = (whole / "log.jsonl").read_bytes()
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["supernet"] == str(whole / RESULT)
    assert [path.name for path in whole.glob("[!.]*.safetensors")] == [RESULT]
    assert main([*arguments, "--seed", "1"]) == 2
    assert "seed 0 there, 1 now" in capsys.readouterr().err
    assert (whole / "log.jsonl").read_bytes() == log


@pytest.mark.slow
def test_two_processes_train_the_supernet_of_one(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    """With group norm, which takes every image by itself. Killed, they end with their parent."""
    arguments = ["pretrain", str(photos), *QUICK, "--output", str(tmp_path), "--processes", "2"]
    _kill_after_the_first_epoch(arguments, tmp_path)
    assert main(arguments) == 0
    trained, expected = load_file(tmp_path / RESULT), load_file(whole / RESULT)
    assert trained.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(trained[key], value, atol=5e-5, rtol=1e-3)


def test_a_batch_norm_start_goes_on_with_group_norm(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ("--epochs", "1", "--resolutions", "16", "--start", DEFAULT_SUPERNET)
    arguments = ["pretrain", str(photos), *recipe, "--norm", "group", "--json"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["norm"] == "group"
    assert card["start"]["architecture"] == DEFAULT_SUPERNET
    assert card["recipe"]["settings"]["start"] == DEFAULT_SUPERNET
    again = ["--start", str(tmp_path / f"{card['architecture']}.safetensors"), "--norm", "batch"]
    assert main(["pretrain", str(photos), *again, "--output", str(tmp_path / "further")]) == 2
    assert "has group norm, which can't become batch norm" in capsys.readouterr().err


def test_efficientnet_lite_becomes_ones_own(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no head and no modules; what comes out has both, and starts jobs."""
    recipe = ("--epochs", "1", "--resolutions", "32", "--start", "efficientnet_lite0", "--json")
    assert main(["pretrain", str(photos), *recipe, "--output", str(tmp_path)]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["architecture"] == "efficientnet_lite0_shapes"
    assert card["start"]["origin"]["package"].startswith("efficientnet-lite0")
    assert [round(255 * value) for value in card["data"]["mean"]] == [127] * 3
    found = load_supernet(tmp_path / "efficientnet_lite0_shapes.safetensors", tmp_path)
    assert (found.num_classes, bool(found.lite_residuals)) == (2, True)
    assert found.spec.statistics == "matched"


def test_a_start_that_was_replaced_under_its_name_is_another_training(
    photos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / RESULT
    shutil.copyfile(whole / RESULT, start)
    recipe = ("--epochs", "1", "--resolutions", "16", "--start", str(start))
    arguments = ["pretrain", str(photos), *recipe, "--output", str(tmp_path / "further")]
    assert main(arguments) == 0
    assert main(arguments) == 0  # it is finished
    weights = load_file(start)
    save_file({key: value * 1.01 for key, value in weights.items()}, start)
    capsys.readouterr()
    assert main(arguments) == 2
    assert "holds another training (start sha256 " in capsys.readouterr().err


def test_a_damaged_start_is_refused_before_images_are_read(
    flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = _write(tmp_path / "shapes", flat_files | {"circle/0.png": b"\x89PNG\r\n\x1a\n"})
    start = tmp_path / RESULT
    start.write_bytes(b"cut off")
    arguments = ["pretrain", str(photos), "--start", str(start)]
    assert main([*arguments, "--output", str(tmp_path / "output")]) == 2
    assert f"supernet file {start} can't be read" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_ctrl_c_says_how_to_go_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"

    def press() -> None:
        wait_for((output / CHECKPOINT).exists, _PATIENCE_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    status = main(["pretrain", str(photos), *QUICK, "--epochs", "90", "--output", str(output)])
    presser.join()
    assert status == 1
    assert capsys.readouterr().err.endswith("stopped; run the same command again to go on\n")


def test_ctrl_c_while_processes_start_is_taken_as_one_later_is(
    photos: Path, tmp_path: Path
) -> None:
    arguments = ["pretrain", str(photos), *QUICK, "--output", str(tmp_path), "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        start_new_session=True,  # as a terminal does, which sends Ctrl-C to all of a group
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(descendants(process.pid)) >= 2, _PATIENCE_SECONDS)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert process.returncode == 1
    assert errors.endswith("stopped; run the same command again to go on\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' does not exist; give a zip, a tar or a folder"),
        (["{photos}", "--width", "9"], "--width must be from 0.1 to 4 but got 9.0"),
        (["{photos}", "--width", "nan"], "--width must be from 0.1 to 4 but got nan"),
        (["{photos}", "--resolutions", "8"], "resolutions must rise, from 16 to 512 pixels"),
        (["{photos}", "--seed", "-1"], "seed must be at least 0 but got -1"),
        (["{photos}", "--batch-size", "99"], "at most the 10 training images but got 99"),
        (["{photos}", "--batch-size", "9", "--processes", "2"], "a multiple of the 2 processes"),
        (["{photos}", "--name", "gn_x"], "not begin with 'gn', but got 'gn_x'"),
        (["{photos}", "--start", "ofa_unknown"], "unknown supernet 'ofa_unknown'"),
        (["{photos}", "--start", "x.pth", "--width", "1"], "'x.pth'; leave out --width"),
        (["{photos}", "{photos}"], "is given twice; give it once"),
        (["{photos}", "--output", "{file}"], "can't write to '{file}'"),
        (["{photos}", "--output", "{photos}/out"], "is in the data folder"),
        (["{photos}/circle"], "'0.png' is not in a class folder"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    arguments: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    filled = [argument.format(photos=photos, file=file) for argument in arguments]
    assert main(["pretrain", "--output", str(tmp_path / "output"), *filled]) == 2
    assert message.format(file=file) in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_an_undecodable_image_is_named(
    flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"circle/0.png": b"\x89PNG\r\n\x1a\n broken"}
    photos = _write(tmp_path / "shapes", flat_files | broken)
    assert main(["pretrain", str(photos), *QUICK, "--output", str(tmp_path / "output")]) == 2
    assert "'circle/0.png' is not an image" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_all_undecodable_images_are_named_or_skipped(
    flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"circle/7.jpg": b"", "square/8.jpg": b"<html>"}
    photos = str(_write(tmp_path / "shapes", flat_files | broken))
    output = tmp_path / "output"
    assert main(["pretrain", photos, *QUICK, "--output", str(output)]) == 2
    told = capsys.readouterr().err
    assert "2 images can't be used: 'circle/7.jpg' is not an image: it is empty" in told
    assert "'square/8.jpg' is not an image but a web page" in told
    assert not output.exists()
    skipping = Settings(skip_broken=True)
    with open_sources([Path(photos)], skipping) as sources:
        sources.leave_out_broken(lambda done, total: None)
        assert len(sources.files) == 12
        assert any("2 images skipped" in note for note in sources.notes())


def test_a_fit_that_there_is_not_is_quoted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(photos), "--fit", "zoom", "--output", str(tmp_path / "x")]) == 2
    assert "--fit must be one of crop, pad, squash but got 'zoom'" in capsys.readouterr().err


def test_sources_are_merged_by_class(tmp_path: Path, make_zip: MakeZip, flat_files: Files) -> None:
    first = make_zip({f"train/{name}": data for name, data in flat_files.items()})
    more = {"train/line/0.png": b"1", "train/line/1.png": b"2", "train/circle/9.png": b"3"}
    others = {"val/circle/0.png": b"4", "classes.json": b"{}"}
    unlabelled = {"test/0.png": b"5", "test/images/0.png": b"6"}
    second = _write(tmp_path / "second", more | others | unlabelled)
    with open_sources([first, second], Settings()) as sources:
        samples = sources.samples(seed=0)
        assert sources.classes == ("circle", "line", "square")
        assert [(s.path.as_posix(), s.label) for s in samples if s.split == "val"] == [
            ("1/val/circle/0.png", 0)
        ]
        assert sum(sample.label == 0 and sample.split == "train" for sample in samples) == 7
        unlabelled_note, note = sources.notes()
        assert "'test/images/0.png') without a label" in unlabelled_note
        assert "'classes.json'" in note
        listing = sources.sha256()
    (second / "train" / "line" / "0.png").write_bytes(b"11")
    with open_sources([first, second], Settings()) as sources:
        assert sources.sha256() != listing


def test_images_are_held_out_of_every_class(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": b"" for name, n in (("a", 2), ("b", 60)) for i in range(n)}
    folder = _write(tmp_path / "data", files)
    with open_sources([folder], Settings()) as sources:
        held_out = [sample for sample in sources.samples(seed=0) if sample.split == "val"]
        assert [sample.label for sample in held_out].count(0) == 1
        assert [sample.label for sample in held_out].count(1) == 6
        assert sources.samples(seed=0) == sources.samples(seed=0)
        assert sources.samples(seed=1) != sources.samples(seed=0)


def test_no_images_and_one_class(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one = _write(tmp_path / "one", {"cat/0.png": b"", "cat/1.png": b""})
    for folder, message in (("empty", "'empty': no images found"), ("one", "only one class")):
        with (
            pytest.raises(DatasetError, match=message),
            open_sources([one if folder == "one" else tmp_path / folder], Settings()),
        ):
            pass
