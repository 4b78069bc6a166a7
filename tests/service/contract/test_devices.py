"""Devices in place of limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.contract.devices import PRESETS, find_device, list_devices, with_device
from service.contract.requests import JobRequest, JobSettings
from service.errors import InputError
from service.settings import Settings

OWN = {"id": "camera", "name": "A camera", "memory_bytes": "48MB", "source": "MemAvailable"}


def settings_with(path: Path, *devices: object) -> Settings:
    path.write_text(json.dumps(devices))
    return Settings(devices=path)


def test_presets_tell_where_they_are_from() -> None:
    assert len({device.id for device in PRESETS}) == len(PRESETS)
    for device in PRESETS:
        assert len(device.source) > 40
        assert device.memory_bytes > 1_000_000


def test_own_devices_come_first_and_take_a_presets_place(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "d.json", OWN, OWN | {"id": "pi-zero-2w"})
    ids = [device.id for device in list_devices(settings)]
    assert ids[:2] == ["camera", "pi-zero-2w"]
    assert ids.count("pi-zero-2w") == 1
    assert find_device("pi-zero-2w", settings).memory_bytes == 48_000_000


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ([OWN, OWN], "'camera' twice"),
        ([OWN | {"memory_bytes": "48 parsecs"}], "48 parsecs"),
        ([OWN | {"id": "no spaces"}], "no spaces"),
        ([{"id": "camera"}], "0.name"),
        ([OWN | {"ram": 1}], "0.ram"),
    ],
)
def test_a_file_that_can_not_be_read(tmp_path: Path, devices: list[object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        list_devices(settings_with(tmp_path / "d.json", *devices))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        list_devices(Settings(devices=tmp_path / "none.json"))


def test_a_device_is_a_limit() -> None:
    asked = JobRequest(dataset="d", settings=JobSettings(device="portenta-h7"))
    assert with_device(asked, Settings()).memory_limit == 8 << 20
    own_limit = asked.model_copy(update={"memory_limit": 5_000_000})
    assert with_device(own_limit, Settings()).memory_limit == 5_000_000
    unknown = JobRequest(dataset="d", settings=JobSettings(device="toaster"))
    with pytest.raises(InputError, match="unknown device 'toaster'; it must be one of"):
        with_device(unknown, Settings())
    with pytest.raises(ValidationError, match="memory_limit must be given, or a device"):
        JobRequest(dataset="d")


def test_a_device_may_bound_inference_too(tmp_path: Path) -> None:
    own = settings_with(tmp_path / "d.json", OWN | {"inference_memory_bytes": "90MB"})
    asked = JobRequest(dataset="d", settings=JobSettings(device=OWN["id"]))
    assert with_device(asked, own).settings.inference_memory_limit == 90_000_000
    own_limit = JobSettings(device=OWN["id"], inference_memory_limit="80MB")
    asked = JobRequest(dataset="d", settings=own_limit)
    assert with_device(asked, own).settings.inference_memory_limit == 80_000_000
    no_system = JobRequest(dataset="d", settings=JobSettings(device="portenta-h7"))
    assert with_device(no_system, Settings()).settings.inference_memory_limit is None
