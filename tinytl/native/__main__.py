"""Writes the device program of a bundle, in a process of its own.

python -m tinytl.native model.tinyfit.zip program.tfp [--no-horizontal-flip] [...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinytl.errors import TinyTLError
from tinytl.native.program import ProgramSettings, compile_bundle, sha256_of_file
from tinytl.training.bundle import load
from tinytl.training.data import Augmentation


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tinytl.native")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--min-crop-scale", type=float, default=0.5)
    parser.add_argument("--no-horizontal-flip", dest="horizontal_flip", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        settings = ProgramSettings(
            learning_rate=options.learning_rate,
            label_smoothing=options.label_smoothing,
            augmentation=Augmentation(
                horizontal_flip=options.horizontal_flip, min_crop_scale=options.min_crop_scale
            ),
            seed=options.seed,
        )
        digest = sha256_of_file(options.bundle.read_bytes())
        options.program.write_bytes(compile_bundle(load(options.bundle), digest, settings))
    except TinyTLError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
