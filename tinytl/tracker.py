"""What a piece of work really takes: allocator peak, and resident memory of the process.

Apart from the accounting (tinytl.memory), which predicts and never measures.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def allocator_peak_bytes(work: Callable[[], object]) -> int:
    """Run work; the most that torch's CPU allocator had handed out at any moment of it.

    Temporaries inside operators count, and so do tensors that were alive at the start.
    """
    gc.collect()
    standing_bytes = live_tensor_bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    return standing_bytes + _peak_of_events(profiler)


def rss_growth_bytes(work: Callable[[], object]) -> int | None:
    """Run work; how far the process's peak resident memory rose above where it began.

    Everything counts, the buffers of libraries too. None where the platform does not tell.
    """
    before = _status_bytes("VmRSS")
    _reset_peak_rss()
    work()
    peak = _status_bytes("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def live_tensor_bytes() -> int:
    """Bytes of the storages of all tensors that are alive and visible to Python."""
    storages: dict[int, int] = {}
    for candidate in gc.get_objects():
        if issubclass(type(candidate), torch.Tensor) and candidate.device.type != "meta":
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _peak_of_events(profiler: profile) -> int:
    """The highest running sum of the allocator's events (bytes; negative for a free)."""
    kineto = profiler.profiler
    assert kineto is not None
    assert kineto.kineto_results is not None
    events = [e for e in kineto.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, live)
    return peak


def _status_bytes(field: str) -> int | None:
    """A field of Linux's /proc/self/status, in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


def _reset_peak_rss() -> None:
    """Make VmHWM start again from the present; without effect where that is not allowed."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return
