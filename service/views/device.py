"""What trains a delivered network further on a device, as users read it."""

from __future__ import annotations

from service.contract.described import Described


class DeviceTargetView(Described):
    """A kind of device, and what the trainer is and takes there."""

    target: str
    description: str
    url: str
    """Of a zip of the trainer, its program and a few lines to read."""
    unavailable: str | None
    """Why the zip can't be made here; null where it can."""
    binary_bytes: int | None
    """Null until the trainer has been built for the target, which takes a minute once."""
    predicted_process_bytes: int | None
    """The most that the whole process is resident with; with 200 kB for a trainer that is not
    built yet. Null for a job of an earlier version."""


class DeviceView(Described):
    """What trains a finished job's network further on a device, without Python."""

    program_bytes: int | None
    """Null for a job of an earlier version, whose program is made when it is asked for."""
    targets: list[DeviceTargetView]
