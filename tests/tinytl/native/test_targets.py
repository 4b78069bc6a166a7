"""The same bits on every machine: other processors are emulated by qemu-user."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.tinytl.native.conftest import make_network
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.native.build import NATIVE, build_trainer
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.program import ProgramSettings, compile_program

PLAN = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=2, micro_batch_size=4),
    ),
    optimizer_bits=8,
    trained_bits=16,
)
EMULATORS = {
    "x86_64-linux-musl": "",
    "x86_64_v3-linux-musl": "",
    "aarch64-linux-musl": "qemu-aarch64",
    "armv7-linux-musleabihf": "qemu-arm",
    "arm-linux-musleabihf": "qemu-arm",
    "riscv64-linux-musl": "qemu-riscv64",
}


@pytest.fixture(params=[False, True], ids=["proxyless", "mobilenetv3"])
def training(request, tmp_path):
    """Trains with a trainer's command; returns the bytes of its state."""
    network = make_network(
        Method.LITE_RESIDUAL_BIAS, mobilenet=request.param, group_norm=request.param,
        dropout_rate=0.2,
    )  # fmt: skip
    network.store_trained(PLAN.trained_bits)
    content = compile_program(
        network,
        PLAN,
        resolution=32,
        image_size=40,
        classes=("a", "b", "c"),
        settings=ProgramSettings(),
    )
    (tmp_path / "program").write_bytes(content)
    rng = np.random.default_rng(0)
    images = [
        StoredImage(
            pixels=rng.integers(0, 256, (3, 40, 40), dtype=np.uint8), label=i % 3, split="train"
        )
        for i in range(6)
    ]
    write_image_file(tmp_path / "images", images, ["a", "b", "c"], image_size=40, max_classes=3)

    def train(*command):
        state = tmp_path / "state"
        state.unlink(missing_ok=True)
        paths = [str(tmp_path / name) for name in ("program", "images")]
        done = subprocess.run(
            [*map(str, command), "train", *paths, "--epochs", "1", "--state", state, "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["epochs"] == 1
        return state.read_bytes()

    return train


def _need(*programs):
    for program in programs:
        if program and shutil.which(program) is None:
            pytest.skip(f"there is no {program}")


def test_another_processor_learns_the_same_bits(training, trainer, monkeypatch):
    _need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    monkeypatch.setenv("CC", "aarch64-linux-gnu-gcc")
    foreign = build_trainer("aarch64-linux-musl", options=("-O1", "-DSTOP_AT_WRITE"))
    assert training("qemu-aarch64", foreign) == training(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("target", EMULATORS)
def test_every_target_learns_the_same_bits(training, target, monkeypatch):
    """Built by zig, against this machine's own compiler."""
    _need(EMULATORS[target], "gcc")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no ziglang: pip install 'tinyfit[device]'")
    monkeypatch.delenv("CC", raising=False)
    built = build_trainer(target)
    assert built.stat().st_size <= 200_000
    monkeypatch.setenv("CC", "gcc")
    command = [EMULATORS[target], built] if EMULATORS[target] else [built]
    assert training(*command) == training(build_trainer(NATIVE))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_every_width_of_vectors_learns_the_same_bits(training, trainer, level, monkeypatch):
    if os.uname().machine != "x86_64":
        pytest.skip("this machine is no x86-64")
    flags = Path("/proc/cpuinfo").read_text()
    if level == "x86-64-v4" and "avx512vl" not in flags:
        pytest.skip("this processor has no AVX-512")
    _need("gcc")
    monkeypatch.setenv("CC", "gcc")
    built = build_trainer("x86_64-linux-musl", options=(f"-march={level}",))
    assert training(built) == training(trainer)
