"""What an installation takes on disk: tinyfit with all that it needs, and with an extra.

    python -m benchmarks.service.install_size [--extras ray] [--json]

Installs this checkout with pip into an environment of its own, as the README does, byte code
included, and counts the bytes of all files beyond those of the empty environment. Needs a package
index with a build of torch for CPUs, and some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.shared.machine import describe_machine
from tinytl.units import format_bytes

_ROOT = Path(__file__).resolve().parents[2]
_TORCH = "torch==2.13.0"
_NUM_NAMED = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--extras", nargs="*", default=["ray"], help="each measured too (ray)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name)
        venv.create(environment, with_pip=True)
        empty_bytes = _num_bytes(environment)
        _install(environment, _TORCH)
        _install(environment, str(_ROOT))
        installed = {"tinyfit": _num_bytes(environment) - empty_bytes}
        packages = _largest_packages(environment)
        for extra in options.extras:
            before = _num_bytes(environment)
            _install(environment, f"{_ROOT}[{extra}]")
            installed[f"extra {extra}"] = _num_bytes(environment) - before
    for what, num_bytes in (installed | packages).items():
        print(f"{what:<16} {num_bytes:>13,}   {format_bytes(num_bytes)}")
    if options.json:
        found = {"machine": describe_machine(), "bytes": installed, "largest_packages": packages}
        print(json.dumps(found))


def _install(environment: Path, requirement: str) -> None:
    pip = (str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet")
    subprocess.run(
        [*pip, "--disable-pip-version-check", requirement], check=True, stdout=sys.stderr
    )


def _largest_packages(environment: Path) -> dict[str, int]:
    """Folders among the packages, the largest first."""
    (packages,) = environment.glob("lib/python*/site-packages")
    sizes = {folder.name: _num_bytes(folder) for folder in packages.iterdir() if folder.is_dir()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1])[:_NUM_NAMED])


def _num_bytes(folder: Path) -> int:
    return sum(
        path.stat(follow_symlinks=False).st_size
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    )


if __name__ == "__main__":
    main()
