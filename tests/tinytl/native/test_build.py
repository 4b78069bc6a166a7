"""Which compiler builds the trainer, and for what."""

import platform
import shutil
import subprocess

import pytest

from search.space.architecture import SupernetSpec
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.native.build import BuildError, build_trainer, built_trainer
from tinytl.native.measure import measure_process


@pytest.fixture
def own_compiler(monkeypatch):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc on this machine")
    monkeypatch.setenv("CC", "gcc")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_compiler_for_this_machine_is_not_taken_for_another_one(own_compiler, cache):
    foreign = "riscv64-linux-musl"
    machine = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True).stdout
    for ask in (build_trainer, built_trainer):
        with pytest.raises(BuildError, match=f"{machine.split('-')[0]}.*'{foreign}'.*device"):
            ask(foreign)


def test_what_was_built_is_found_again(own_compiler, cache):
    target = f"{platform.machine()}-linux-musl"
    assert built_trainer(target) is None
    made = build_trainer(target, options=("-O0",))
    assert made.is_relative_to(cache)
    assert built_trainer(target) is None  # with other options
    changed = made.stat().st_mtime_ns
    assert build_trainer(target, options=("-O0",)) == made
    assert made.stat().st_mtime_ns == changed


def test_a_cache_that_can_not_be_written_is_named(own_compiler, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="XDG_CACHE_HOME"):
        build_trainer()


def test_an_unknown_target_is_quoted(own_compiler):
    with pytest.raises(BuildError, match="'sparc'"):
        build_trainer("sparc")


def test_a_process_is_measured_only_where_it_is_built_as_devices_get_it(own_compiler):
    spec = SupernetSpec.parse("ofa_proxyless_d23_e34_k35_w0.2")
    network = spec.network_config(spec.smallest, 2)
    with pytest.raises(BuildError, match="another C library"):
        measure_process(network, Method.BIAS, Plan(), 32, image_size=32)
