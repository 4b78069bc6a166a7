"""Readers of files against damage whose checksums are right, under sanitizers."""

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

import tinytl.native
from tests.tinytl.native.conftest import make_network
from tests.tinytl.native.test_trainer import CLASSES, PLAN, _with_checksums
from tinytl.description.method import Method
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.formats.program_file import read_program
from tinytl.native.program import ProgramSettings, compile_program

pytestmark = pytest.mark.slow

FLAGS = (
    *("-std=gnu11", "-O1", "-g", "-ffp-contract=off", "-w"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
VALUES = (0, 1, 7, 8, 255, 4096, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, 123_456_789)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    folder = Path(tinytl.native.__file__).with_name("trainer")
    built = tmp_path_factory.mktemp("sanitized") / "trainer"
    sources = sorted(folder.rglob("*.c"))
    command = ["gcc", *FLAGS, "-I", folder, *sources, "-o", built, "-lm"]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def files(tmp_path):
    network = make_network(Method.LITE_RESIDUAL_BIAS)
    content = compile_program(
        network, PLAN, resolution=32, image_size=40, classes=CLASSES, settings=ProgramSettings()
    )
    rng = np.random.default_rng(0)
    images = [
        StoredImage(
            pixels=rng.integers(0, 256, (3, 40, 40), dtype=np.uint8), label=i % 3, split="train"
        )
        for i in range(3)
    ]
    write_image_file(tmp_path / "images", images, CLASSES, image_size=40, max_classes=3)
    (tmp_path / "program").write_bytes(content)
    return tmp_path


def _train(trainer, folder):
    """Whatever it says, it says; a sanitizer's finding has another exit status."""
    done = subprocess.run(
        [trainer, "train", folder / "program", folder / "images", "--epochs", "1", "--fresh",
         "--state", folder / "state"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, 1, 2), done.stderr[-3000:]
    assert "Sanitizer" not in done.stderr
    assert "runtime error" not in done.stderr, done.stderr[-3000:]


def test_a_training_is_clean(sanitized, files):
    _train(sanitized, files)


@pytest.mark.parametrize("seed", range(8))
def test_programs(sanitized, files, seed):
    """Numbers of records and of the header, changed to what they might be and to what not."""
    rng = np.random.default_rng(seed)
    whole = (files / "program").read_bytes()
    found = read_program(whole)
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            kind = rng.integers(4)
            offset, size = (16, 160)
            if kind:
                offset, size = found.sections[("ops", "buffers", "segments")[kind - 1]]
            at = offset + int(rng.integers(size - 4))
            value = VALUES[rng.integers(len(VALUES))]
            width = int(rng.choice([1, 2, 4]))
            content[at : at + width] = struct.pack("<I", value)[:width]
        (files / "program").write_bytes(_with_checksums(content, found))
        _train(sanitized, files)


def test_stores(sanitized, files):
    rng = np.random.default_rng(0)
    whole = (files / "images").read_bytes()
    for number in range(120):
        content = bytearray(whole)
        at = int(rng.integers(24 + 2 * (24 + 3 * 256) + 8))
        content[at] = int(rng.integers(256))
        if number % 2:
            content[20:24] = struct.pack("<I", zlib.crc32(content[:20]))
            content[44:48] = struct.pack("<I", zlib.crc32(content[24:44]))
        (files / "images").write_bytes(content[: len(whole) - int(rng.integers(2)) * number])
        _train(sanitized, files)
