"""What a device is sent, and what it takes there: names, memory, a few lines to read. No torch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from tinytl.units import format_bytes

TRAINER_NAME, PROGRAM_NAME, README_NAME = "tinyfit-trainer", "program.tfp", "README.txt"
MOST_TRAINER_BYTES = 200_000
"""No target's executable is larger."""

_PAGE_BYTES = 4096
_STACK_BYTES = 48 * 1024
_LIBRARY_BYTES = 96 * 1024
"""Of the C library: its data, and pages of the files that it reads."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_RUNNABLE, _READABLE = 0o100755 << 16, 0o100644 << 16


def process_bytes(
    arena_bytes: Any, mapped_bytes: Any, trainer_bytes: int = MOST_TRAINER_BYTES
) -> Any:
    """The arena, what is mapped of the program, the executable, the stack and the C library: the
    most that the trainer's whole process is resident with while it trains, evaluates or predicts.
    Of one program, or of an array of them.

    Left out: 8 bytes for each stored image, which number the trainer learns from the store.
    """
    mapped = -(-mapped_bytes // _PAGE_BYTES) * _PAGE_BYTES
    return arena_bytes + mapped + trainer_bytes + _STACK_BYTES + _LIBRARY_BYTES


def readme(target: str, predicted_bytes: int) -> str:
    """Ten lines or so."""
    return f"""\
tinyfit-trainer, for {target}: trains {PROGRAM_NAME} on this device.
It takes at most {format_bytes(predicted_bytes)} of memory, all of its process.

  tinyfit device images PHOTOS --program {PROGRAM_NAME} --output images.tfi   (on a computer)
  ./tinyfit-trainer train {PROGRAM_NAME} images.tfi --epochs 5 --state learned.tfs
  ./tinyfit-trainer predict {PROGRAM_NAME} photo.ppm --state learned.tfs
  ./tinyfit-trainer add {PROGRAM_NAME} images.tfi photo.ppm CLASS

A training that was cut off, by the plug too, goes on when the same command is run again.
To have a bundle of what was learned: tinyfit device import learned.tfs BUNDLE --output NEW
"""


def pack(path: Path, *, trainer: Path, program: Path, text: str) -> None:
    """All of it as a zip, in a folder of its own. Equal files give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in (
            (README_NAME, text.encode(), _READABLE),
            (PROGRAM_NAME, program.read_bytes(), _READABLE),
            (TRAINER_NAME, trainer.read_bytes(), _RUNNABLE),
        ):
            entry = zipfile.ZipInfo(f"tinyfit-device/{name}", _EPOCH)
            entry.external_attr, entry.compress_type = mode, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
