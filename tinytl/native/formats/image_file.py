"""The store of images on the device (trainer/store.h has its format)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytl.errors import DataError
from tinytl.training.checkpoint import atomic_write
from tinytl.training.data import SPLITS, Split

MAGIC = b"TFIMGS\r\n"
VERSION = 1
CLASS_NAME_BYTES = 256
_PREAMBLE = struct.Struct("<8s3I")
_TABLE = struct.Struct("<Q3I")
_IMAGE = struct.Struct("<H2B")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """pixels: uint8 (3, side, side), as tinytl.training.data has them."""

    pixels: np.ndarray
    label: int
    split: Split


def _with_crc(fields: bytes) -> bytes:
    return fields + _CRC.pack(zlib.crc32(fields))


def write_image_file(
    path: Path,
    images: Iterable[StoredImage],
    classes: Sequence[str],
    *,
    image_size: int,
    max_classes: int,
) -> int:
    """Write a store atomically; returns how many images it has. max_classes: room for names.

    Raises DataError for an image of another size, and for names that are too long.
    """
    if len(classes) > max_classes:
        raise DataError(f"there is room for {max_classes} classes, but there are {len(classes)}")
    names = bytearray(max_classes * CLASS_NAME_BYTES)
    for number, name in enumerate(classes):
        content = name.encode()
        if not 1 <= len(content) < CLASS_NAME_BYTES:
            raise DataError(
                f"the device takes names of classes of up to {CLASS_NAME_BYTES - 1} bytes in "
                f"UTF-8, but {name!r} has {len(content)}"
            )
        at = number * CLASS_NAME_BYTES
        names[at : at + 1 + len(content)] = bytes([len(content)]) + content
    preamble = _with_crc(_PREAMBLE.pack(MAGIC, VERSION, image_size, max_classes))
    table_bytes = _TABLE.size + _CRC.size + len(names)
    count = 0
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(preamble + bytes(2 * table_bytes))
        for image in images:
            if image.pixels.shape != (3, image_size, image_size):
                raise DataError(
                    f"the program's images are {image_size} pixels on a side, but one has the "
                    f"shape {image.pixels.shape}"
                )
            content = _IMAGE.pack(image.label, SPLITS.index(image.split), 0)
            content += np.ascontiguousarray(image.pixels.transpose(1, 2, 0)).tobytes()
            file.write(_CRC.pack(zlib.crc32(content)) + content)
            count += 1
        table = _with_crc(_TABLE.pack(0, count, len(classes), zlib.crc32(names)))
        file.seek(len(preamble))
        file.write(table + names)
    return count
