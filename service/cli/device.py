"""`tinyfit device`, `tinyfit device images` and `tinyfit device import`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.command import AddCommand, Answer

if TYPE_CHECKING:
    import numpy as np

    from service.datasets.containers.container import Container
    from service.settings import Settings
    from tinytl.native.formats.program_file import ProgramFile
    from tinytl.squares import Squaring

_WITHIN = ("images", "import")


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments whose first one names the command: `device images` and `device import` are
    commands of their own. A bundle of such a name is ./images."""
    if len(arguments) > 1 and arguments[0] == "device" and arguments[1] in _WITHIN:
        return [" ".join(arguments[:2]), *arguments[2:]]
    return list(arguments)


def add_device(add: AddCommand) -> None:
    device = add("device", _deliver, "the trainer of a bundle, built for a device")
    device.add_argument("bundle", type=Path, metavar="BUNDLE")
    device.add_argument(
        "--target",
        required=True,
        help="what it runs on: native (this machine), x86_64-linux-musl, x86_64_v3-linux-musl, "
        "aarch64-linux-musl, armv7-linux-musleabihf, arm-linux-musleabihf, riscv64-linux-musl",
    )
    device.add_argument("--output", type=Path, required=True, metavar="DIR")
    device.add_argument(
        "--reserve-classes",
        type=int,
        default=0,
        metavar="N",
        help="room for as many classes to be added on the device (0)",
    )
    device.add_argument("--learning-rate", type=float, help="at its peak (the method's own)")
    device.add_argument(
        "--no-horizontal-flip",
        dest="horizontal_flip",
        action="store_false",
        help="mirrored images mean something else: text, digits",
    )
    device.add_argument("--seed", type=int, default=0, help="of the device's trainings (0)")

    images = add("device images", _pack, "pack class folders for the device")
    images.add_argument("folder", type=Path, metavar="FOLDER")
    images.add_argument("--program", type=Path, required=True)
    images.add_argument("--output", type=Path, required=True, metavar="STORE")

    back = add("device import", _import, "make a bundle of what a device has learned")
    back.add_argument("state", type=Path, metavar="STATE")
    back.add_argument("bundle", type=Path, metavar="BUNDLE", help="that the program was made of")
    back.add_argument("--output", type=Path, required=True, metavar="NEW")


def _deliver(options: argparse.Namespace) -> Answer:
    from tinytl.native.delivery import deliver
    from tinytl.native.program import ProgramSettings
    from tinytl.training.data import Augmentation
    from tinytl.units import format_bytes

    settings = ProgramSettings(
        learning_rate=options.learning_rate,
        augmentation=Augmentation(horizontal_flip=options.horizontal_flip),
        seed=options.seed,
        reserved_classes=options.reserve_classes,
    )
    made = deliver(options.bundle, options.target, options.output, settings)
    answer = {
        "target": made.target,
        "binary": str(made.trainer),
        "program": str(made.program),
        "binary_bytes": made.trainer_bytes,
        "predicted_process_bytes": made.predicted_process_bytes,
    }
    text = (
        f"{'trainer':<18}{made.trainer} ({format_bytes(made.trainer_bytes)})\n"
        f"{'program':<18}{made.program}\n"
        f"{'memory, at most':<18}{format_bytes(made.predicted_process_bytes)}, the whole process"
    )
    return Answer(answer, text)


def _pack(options: argparse.Namespace) -> Answer:
    from service.datasets.containers.container import open_container
    from service.datasets.formats.recognize import place
    from service.datasets.layout import join
    from service.settings import Settings
    from tinytl.native.formats.image_file import StoredImage, write_image_file
    from tinytl.training.data import SPLITS

    program = _read_program(options.program)
    settings = Settings()
    with open_container(options.folder, settings) as source:
        (layout,) = join([place(source)], min_images_per_class=1)
        classes = _in_program_order(layout.classes, program)
        size = program.numbers["image_size"]
        images = (
            StoredImage(
                pixels=_square(source, file.path, size, program.squaring, settings),
                label=classes.index(file.class_name),
                split=file.split,
            )
            for file in sorted(layout.files, key=lambda file: SPLITS.index(file.split))
        )
        count = write_image_file(
            options.output,
            images,
            classes,
            image_size=size,
            max_classes=program.numbers["max_classes"],
        )
    num_bytes = options.output.stat().st_size
    answer = {"store": str(options.output), "images": count, "classes": classes}
    return Answer(answer, f"{options.output}: {count} images of {size} px, {num_bytes} bytes")


def _read_program(path: Path) -> ProgramFile:
    from tinytl.errors import BundleError
    from tinytl.native.formats.program_file import read_program

    try:
        return read_program(path.read_bytes())
    except BundleError as error:
        raise BundleError(f"{path.name}: {error}") from error


def _in_program_order(found: Sequence[str], program: ProgramFile) -> list[str]:
    """The program's classes, then those that it does not know yet."""
    from tinytl.errors import DataError

    new = [name for name in found if name not in program.classes]
    room = program.numbers["max_classes"] - len(program.classes)
    if len(new) > room:
        raise DataError(
            f"the program does not know the class {new[room]!r}, only {', '.join(program.classes)}"
            + (f", and has room for {room} more" if room else "; --reserve-classes makes room")
        )
    return [*program.classes, *new]


def _square(
    source: Container, path: str, size: int, squaring: Squaring, settings: Settings
) -> np.ndarray:
    from service.datasets.images import opened_image
    from tinytl.squares import to_square

    with source.open(path) as stream:
        data = stream.read(settings.max_image_bytes + 1)
    with opened_image(data, path, settings, side=size) as (_, image):
        return to_square(image, size, squaring)


def _import(options: argparse.Namespace) -> Answer:
    from tinytl.native.importer import import_state
    from tinytl.units import format_bytes

    state, made = import_state(options.state, options.bundle, options.output)
    answer = {"bundle": str(options.output), "bytes": made.bytes, "sha256": made.sha256}
    return Answer(answer, f"{options.output} ({format_bytes(made.bytes)}, {state.epochs} epochs)")
