"""What a device has learned: the trainer's state file (trainer/state.h has its format)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from tinytl.errors import BundleError

MAGIC = b"TFSTAT\r\n"
VERSION = 1
_PREAMBLE = struct.Struct("<8s2I32s4I")
_SLOT = struct.Struct("<Q8I4d2I")
_CLASS_NAME_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class _Slot:
    sequence: int
    payload: bytes
    num_classes: int
    epochs: int
    last_loss: float
    last_accuracy: float


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """The newer of a state's slots that is whole.

    payload: the arena's beginning, as tinytl.native.unroll.parameters lays it out.
    reserved_classes: that there was room for, of which added_classes have been made use of.
    epochs: that have been finished, of all runs.
    """

    bundle_sha256: bytes
    payload: bytes
    reserved_classes: int
    added_classes: tuple[str, ...]
    epochs: int
    last_loss: float
    last_accuracy: float


def read_state(path: Path) -> DeviceState:
    """Raises BundleError where it is damaged, or none."""
    content = path.read_bytes()
    name = path.name
    if len(content) < _PREAMBLE.size or content[:8] != MAGIC:
        raise BundleError(f"{name} is no state of the device trainer")
    _, version, _, sha256, num_classes, max_classes, size, crc = _PREAMBLE.unpack_from(content)
    if version != VERSION:
        raise BundleError(
            f"{name} is a state of version {version}; this version of tinyfit reads {VERSION}"
        )
    slots = [
        _read_slot(content, _PREAMBLE.size + copy * (_SLOT.size + size), size) for copy in range(2)
    ]
    whole = [slot for slot in slots if slot is not None]
    if not whole or zlib.crc32(content[: _PREAMBLE.size - 4]) != crc:
        raise BundleError(f"{name} is damaged")
    newest = max(whole, key=lambda slot: slot.sequence)
    names = size - (max_classes - num_classes) * _CLASS_NAME_BYTES
    return DeviceState(
        bundle_sha256=sha256,
        payload=newest.payload,
        reserved_classes=max_classes - num_classes,
        added_classes=tuple(
            _name(newest.payload, names + number * _CLASS_NAME_BYTES)
            for number in range(newest.num_classes - num_classes)
        ),
        epochs=newest.epochs,
        last_loss=newest.last_loss,
        last_accuracy=newest.last_accuracy,
    )


def _name(payload: bytes, at: int) -> str:
    return payload[at + 1 : at + 1 + payload[at]].decode()


def _read_slot(content: bytes, at: int, size: int) -> _Slot | None:
    """None where it is not whole."""
    header = content[at : at + _SLOT.size]
    payload = content[at + _SLOT.size : at + _SLOT.size + size]
    if len(header) < _SLOT.size or len(payload) < size:
        return None
    sequence, *numbers, _, _, last_loss, last_accuracy, payload_crc, crc = _SLOT.unpack(header)
    if zlib.crc32(header[:-4]) != crc or zlib.crc32(payload) != payload_crc:
        return None
    _, epoch, _, epoch_base, _, _, num_classes, _ = numbers
    return _Slot(
        sequence=sequence,
        payload=payload,
        num_classes=num_classes,
        epochs=epoch_base + epoch,
        last_loss=last_loss,
        last_accuracy=last_accuracy,
    )
