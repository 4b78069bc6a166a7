"""Builds the device trainer: for this machine, or for another one.

The compiler is what the environment's CC names; else zig, where the `ziglang` wheel is installed,
which builds for every target; else a compiler of this machine's. Programs are kept in a cache, by
their sources and all that the compiler was told.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from tinytl.errors import TinyTLError

NATIVE = "native"
"""The target that this machine is, its own processor and all."""

FLAGS = (
    *("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-unwind-tables"),
    *("-fno-asynchronous-unwind-tables", "-ffunction-sections", "-Wl,--gc-sections", "-w"),
)
"""No contraction: the same bits everywhere. Optimized for size it would be half as fast."""

_BUILD_SECONDS = 600
_CPU_OF_TARGET = {
    "arm-linux-musleabihf": "arm1176jzf_s",  # by default ARMv7, illegal on the first boards
    "armv7-linux-musleabihf": "generic+v7a+vfp3d16-neon",  # NEON has no subnormal numbers
}
_MACHINE_OF_LEVEL = {"x86_64_v3": "x86_64", "armv7": "arm"}
TARGETS = {
    NATIVE: "this machine",
    "x86_64-linux-musl": "x86-64 of any age",
    "x86_64_v3-linux-musl": "x86-64 with AVX2",
    "aarch64-linux-musl": "64-bit ARM: Raspberry Pi 3 and later",
    "armv7-linux-musleabihf": "32-bit ARM with hardware floats: Raspberry Pi 2 and later",
    "arm-linux-musleabihf": "ARMv6 with hardware floats: the first Raspberry Pis, Zero",
    "riscv64-linux-musl": "64-bit RISC-V",
}


class BuildError(TinyTLError):
    """There is no compiler for the target, or it failed."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """A C compiler's command. Only zig's builds for targets by name."""

    command: tuple[str, ...]
    is_zig: bool = False


def find_compiler() -> Compiler:
    """Raises BuildError where there is none."""
    named = os.environ.get("CC", "").strip()
    if named:
        return Compiler(command=tuple(shlex.split(named)), is_zig="zig" in named)
    if importlib.util.find_spec("ziglang") is not None:
        return Compiler(command=(sys.executable, "-m", "ziglang", "cc"), is_zig=True)
    for name in ("gcc", "clang", "cc"):
        found = shutil.which(name)
        if found:
            return Compiler(command=(found,))
    raise BuildError(
        "no C compiler was found: pip install 'tinyfit[device]' brings one that builds for every "
        "target, or name your own with CC"
    )


def builds_what_is_delivered() -> bool:
    """Whether what is built for this machine is what devices get: with musl for a C library, by
    zig. With glibc, which a compiler of one's own may have, the process takes more. Raises
    BuildError where there is no compiler."""
    return find_compiler().is_zig


def build_trainer(target: str = NATIVE, *, options: Sequence[str] = ()) -> Path:
    """The trainer's executable for a target of TARGETS, static. options: more for the compiler.

    Raises BuildError where the compiler that there is does not build for it.
    """
    compiler = find_compiler()
    return _build(compiler, _trainer_options(compiler, target, options))


def built_trainer(target: str) -> Path | None:
    """What build_trainer has made before; None where it would have to build. Raises as it does."""
    compiler = find_compiler()
    path = _path_of(compiler, _trainer_options(compiler, target, ()))
    return path if path.exists() else None


def _trainer_options(compiler: Compiler, target: str, more: Sequence[str]) -> tuple[str, ...]:
    return (*_target_options(compiler, target), "-static", "-s", *more)


def build_library(*, options: Sequence[str] = ()) -> Path:
    """For this machine, to be loaded by tests: everything but main.c."""
    compiler = find_compiler()
    native = _target_options(compiler, NATIVE)
    return _build(compiler, (*native, "-shared", "-fPIC", *options), without=("main.c",))


def _target_options(compiler: Compiler, target: str) -> tuple[str, ...]:
    if target not in TARGETS:
        raise BuildError(f"target must be one of {', '.join(TARGETS)} but got {target!r}")
    if target == NATIVE and compiler.is_zig:
        return ("-target", f"{platform.machine()}-linux-musl", "-mcpu=native")
    if target == NATIVE:
        return ("-march=native",)
    level, _, system = target.partition("-")
    machine = _MACHINE_OF_LEVEL.get(level, level)
    if not compiler.is_zig:
        built_for = _machine(compiler)
        if not built_for.startswith(machine):
            raise BuildError(
                f"the compiler {compiler.command[0]!r} builds for {built_for}, not for "
                f"{target!r}: pip install 'tinyfit[device]' brings one that builds for every "
                f"target, or name your own with CC"
            )
        # of ARM's versions a compiler of one's own knows which it builds for
        return ("-march=x86-64-v3",) if level == "x86_64_v3" else ()
    cpu = "x86_64_v3" if level == "x86_64_v3" else _CPU_OF_TARGET.get(target)
    options = ("-target", f"{machine}-{system}")
    return options if cpu is None else (*options, f"-mcpu={cpu}")


def _build(compiler: Compiler, options: Sequence[str], without: Sequence[str] = ()) -> Path:
    built = _path_of(compiler, options)
    if built.exists():
        return built
    folder = _source_folder()
    sources = sorted(path for path in folder.rglob("*.c") if path.name not in without)
    try:
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
            partial = Path(scratch) / built.name
            command = (*compiler.command, *FLAGS, *options, "-I", str(folder), *map(str, sources))
            _run((*command, "-o", str(partial), "-lm"))
            partial.replace(built)
    except OSError as error:
        raise BuildError(
            f"can't keep what is built in {built.parent}: {error.strerror}; name another folder "
            f"with XDG_CACHE_HOME"
        ) from error
    return built


def _path_of(compiler: Compiler, options: Sequence[str]) -> Path:
    """In the cache: by the sources, and by all that the compiler is told."""
    everything = sorted(
        path for path in _source_folder().rglob("*") if path.suffix in (".c", ".h", ".def")
    )
    digest = hashlib.sha256(repr((compiler, _version(compiler), FLAGS, options)).encode())
    for path in everything:
        digest.update(path.read_bytes())
    return _cache_folder() / digest.hexdigest()[:24] / "tinyfit-trainer"


def _source_folder() -> Path:
    return Path(str(files("tinytl.native").joinpath("trainer")))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
        )
    except OSError as error:
        raise BuildError(f"can't run the compiler {command[0]!r}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"the compiler {command[0]!r} was not done within {_BUILD_SECONDS} s"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        worst = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"the compiler {command[0]!r} failed: {worst}")
    return done.stdout


@cache
def _machine(compiler: Compiler) -> str:
    """What it builds for: x86_64, aarch64, ... zig builds for all."""
    return _run((*compiler.command, "-dumpmachine")).strip().partition("-")[0]


@cache
def _version(compiler: Compiler) -> str:
    return _run((*compiler.command, "--version"))


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tinyfit" / "device"
