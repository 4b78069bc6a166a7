"""`tinyfit pretrain`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.cli.adapt import add_data_options
from service.cli.command import AddCommand, Answer, count, given, integers, settings_of

_SETTINGS = (
    *("epochs", "resolutions", "batch_size", "learning_rate", "num_random_subnets", "seed"),
    *("weight_decay", "lite_residual_share", "label_smoothing", "min_crop_scale"),
    "horizontal_flip",
)
_ARCHITECTURE = ("family", "width")


def add_pretrain(add: AddCommand) -> None:
    pretrain = add("pretrain", _pretrain, "train a supernet of your own, for jobs to start from")
    pretrain.add_argument(
        "data",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="folders, zips or tars of labelled images",
    )
    pretrain.add_argument("--output", type=Path, default=Path("tinyfit-supernet"), metavar="DIR")
    pretrain.add_argument("--name", help="ends the supernet's id (the first DATA's name)")
    _add_architecture(pretrain)
    _add_recipe(pretrain)
    pretrain.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help="that share the work: one for each GPU, or on the CPU (a GPU each, or 1)",
    )
    pretrain.add_argument("--licence", metavar="TEXT", help="of the weights, for the card")


def _add_architecture(pretrain: argparse.ArgumentParser) -> None:
    pretrain.add_argument(
        "--family", choices=("proxyless", "mobilenetv3"), help="of networks (proxyless)"
    )
    pretrain.add_argument("--width", type=float, help="of all layers, from 0.1 to 4 (0.35)")
    pretrain.add_argument(
        "--norm",
        choices=("batch", "group"),
        help="batch norm, or group norm with weight standardization (batch, or the start's)",
    )
    pretrain.add_argument(
        "--start",
        metavar="SUPERNET",
        help="begin with the weights of this one, an id that `tinyfit supernets` lists or a file, "
        "whose architecture is kept, but for a norm asked for (random weights)",
    )


def _add_recipe(pretrain: argparse.ArgumentParser) -> None:
    pretrain.add_argument(
        "--epochs", type=count, help="passes over the images (30, or enough for 4000 steps)"
    )
    pretrain.add_argument(
        "--resolutions", type=integers, metavar="PX,PX", help="image sides, in turns (48,64)"
    )
    pretrain.add_argument(
        "--batch-size", type=count, help="images per step (128; less where there are few images)"
    )
    pretrain.add_argument(
        "--learning-rate", type=float, help="peak rate (0.1 for a batch of 128, in proportion)"
    )
    pretrain.add_argument("--weight-decay", type=float, help="of convolutions and head (4e-5)")
    pretrain.add_argument(
        "--num-random-subnets",
        type=int,
        metavar="N",
        help="trained each step beside the largest and the smallest (1)",
    )
    pretrain.add_argument(
        "--lite-residual-share",
        type=float,
        metavar="SHARE",
        help="of subnets that train with lite residual modules; 0 makes none (0.75)",
    )
    pretrain.add_argument("--label-smoothing", type=float, help="from 0 to below 1 (0.1)")
    pretrain.add_argument(
        "--min-crop-scale", type=float, help="smallest area of a training crop (0.35)"
    )
    pretrain.add_argument(
        "--no-horizontal-flip",
        dest="horizontal_flip",
        action="store_false",
        default=None,
        help="mirrored images mean something else: text, digits",
    )
    add_data_options(pretrain, "crop")
    pretrain.add_argument("--seed", type=int, help="the same seed gives the same result (0)")


def _pretrain(options: argparse.Namespace) -> Answer:
    from service.commands.pretraining import PretrainRequest, pretrain
    from service.console import Meter
    from service.errors import InputError
    from tinytl.squares import FITS

    if options.fit is not None and options.fit not in FITS:
        raise InputError(f"--fit must be one of {', '.join(FITS)} but got {options.fit!r}")
    asked = given(options, ("name", "norm", "start", "licence", "fit", *_ARCHITECTURE))
    if options.start is not None and (doubled := asked.keys() & _ARCHITECTURE):
        raise InputError(
            f"--start keeps the architecture of {options.start!r}; leave out "
            f"{' and '.join(f'--{name}' for name in sorted(doubled))}"
        )
    request = PretrainRequest(
        data=options.data,
        output=options.output,
        num_processes=options.processes,
        settings=given(options, _SETTINGS),
        **asked,
    )
    path = pretrain(request, settings_of(options), Meter(sys.stderr))
    card = json.loads(path.with_suffix(".json").read_text())
    return Answer({"supernet": str(path), "card": card}, _result_text(path, card))


def _result_text(path: Path, card: Mapping[str, Any]) -> str:
    """What came out, for people."""
    from service.console import format_seconds
    from tinytl.units import format_bytes

    lines = [f"{'supernet':<26}{path} ({format_bytes(path.stat().st_size)})"]
    for variant in ("without_lite_residuals", "with_lite_residuals"):
        found = card["top1_accuracy"].get(variant)
        if found is not None:
            spread = found["random"]
            lines.append(
                f"{variant.replace('_', ' '):<26}largest {found['largest']:.1%}, middle "
                f"{found['middle']:.1%}, smallest {found['smallest']:.1%}; "
                f"{spread['num_subnets']} random {spread['mean']:.1%} "
                f"\N{PLUS-MINUS SIGN} {100 * spread['standard_deviation']:.1f}"
            )
    lines.append(f"{'time':<26}{format_seconds(card['recipe']['seconds'])}")
    lines.append(f"{'to use it':<26}tinyfit adapt PHOTOS --memory-limit SIZE --supernet {path}")
    return "\n".join(lines)
