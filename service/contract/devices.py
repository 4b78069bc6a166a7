"""Devices that a job can be fitted to, with where their figures are from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.contract.amounts import Size
from service.contract.requests import JobRequest
from service.errors import InputError
from service.settings import Settings

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_FILE_BYTES = 1_000_000


class Device(BaseModel):
    """A device. memory_bytes: what a training process can really have of its memory, everything
    else that runs there left out. inference_memory_bytes: the same of a process that classifies
    with onnxruntime, where there can be one. flash_bytes: what can hold files, as far as it is
    built in. relative_speed: multiply-accumulates in floats of one core at its best, over those of
    a Raspberry Pi 4: the clock times those in a cycle, not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=f"^{_ID.pattern}$")
    name: str = Field(min_length=1, max_length=200)
    memory_bytes: Size
    inference_memory_bytes: Size | None = None
    flash_bytes: Size | None = None
    relative_speed: float | None = Field(default=None, gt=0)
    source: str = Field(min_length=1, max_length=1_000)


_MIB = 1 << 20
_ESTIMATE = "what the system takes is an estimate: look at MemAvailable on your own"

PRESETS = (
    Device(
        id="pi-zero-2w",
        name="Raspberry Pi Zero 2 W",
        memory_bytes=256 * _MIB,
        relative_speed=0.67,
        source="512 MB LPDDR2, Cortex-A53 at 1 GHz (product brief); less 64 MB for the GPU and "
        f"some 190 MB for a system without desktop; {_ESTIMATE}",
    ),
    Device(
        id="pi-4-1gb",
        name="Raspberry Pi 4 Model B, 1 GB",
        memory_bytes=640 * _MIB,
        relative_speed=1.0,
        source="1 GB LPDDR4, Cortex-A72 at 1.5 GHz (product brief); less 76 MB for the GPU and "
        f"some 300 MB for the system; {_ESTIMATE}",
    ),
    Device(
        id="portenta-h7",
        name="Arduino Portenta H7",
        memory_bytes=8 * _MIB,
        flash_bytes=16 * _MIB,
        relative_speed=0.08,
        source="8 MB SDRAM beside the 1 MB of the STM32H747, 16 MB QSPI flash, Cortex-M7 at "
        "480 MHz (datasheet ABX00042): all of the SDRAM for training, the rest in the chip's own",
    ),
    Device(
        id="esp32-s3-n16r8",
        name="ESP32-S3-WROOM-1-N16R8",
        memory_bytes=8 * _MIB,
        flash_bytes=16 * _MIB,
        relative_speed=0.04,
        source="8 MB octal PSRAM beside 512 KB SRAM, 16 MB flash, Xtensa LX7 at 240 MHz (module "
        "datasheet): all of the PSRAM for training, the rest in SRAM",
    ),
    Device(
        id="esp32-s3-n8r2",
        name="ESP32-S3-WROOM-1-N8R2",
        memory_bytes=2 * _MIB,
        flash_bytes=8 * _MIB,
        relative_speed=0.04,
        source="2 MB quad PSRAM beside 512 KB SRAM, 8 MB flash, Xtensa LX7 at 240 MHz (module "
        "datasheet): all of the PSRAM for training, the rest in SRAM",
    ),
)


def list_devices(settings: Settings) -> list[Device]:
    """One's own first; one of the same id as a preset takes its place. Raises InputError for a
    file of them that can't be read."""
    own = [] if settings.devices is None else _read(settings.devices)
    known = {device.id for device in own}
    return [*own, *(device for device in PRESETS if device.id not in known)]


def find_device(device_id: str, settings: Settings) -> Device:
    """Raises InputError, with those that there are."""
    known = {device.id: device for device in list_devices(settings)}
    if device_id not in known:
        raise InputError(f"unknown device {device_id!r}; it must be one of {list(known)}")
    return known[device_id]


def _read(path: Path) -> list[Device]:
    try:
        text = path.read_text(encoding="utf-8")[:_MAX_FILE_BYTES]
        devices = TypeAdapter(list[Device]).validate_python(json.loads(text))
    except (OSError, ValueError) as error:
        reason = error
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            reason = ValueError(f"{where} {first['input']!r}: {first['msg']}")
        raise InputError(f"the devices in {str(path)!r} can't be read: {reason}") from error
    ids = [device.id for device in devices]
    twice = {one for one in ids if ids.count(one) > 1}
    if twice:
        raise InputError(f"the devices in {str(path)!r} have the id {twice.pop()!r} twice")
    return devices


def with_device(request: JobRequest, settings: Settings) -> JobRequest:
    """The request with its device's memory as the limits of training and of inference, where it
    has none of its own."""
    asked = request.settings
    if asked.device is None:
        return request
    device = find_device(asked.device, settings)
    inference_limit = asked.inference_memory_limit or device.inference_memory_bytes
    return request.model_copy(
        update={
            "memory_limit": request.memory_limit or device.memory_bytes,
            "settings": asked.model_copy(update={"inference_memory_limit": inference_limit}),
        }
    )
