"""How processes that run torch are started. No torch here: it reads this as it is imported."""

from __future__ import annotations

import os

_THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""The steps of a small network are too short to share: a thread takes longer to wake than an
operation lasts. Where there are more, those that wait must not take the processor from others."""

_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""By default glibc gives large maps back as they are freed, and the kernel zeroes each page of the
next one: passes over the maps, which take about as long as a depthwise convolution."""


def torch_environment(*, keeps_memory: bool = False) -> dict[str, str]:
    """The environment for a process that runs torch; what the user's own sets stays.

    keeps_memory: for long work, what was freed is kept for what comes next. The memory of such a
    process says little of what it needs: one that is measured gives back what it frees, whatever
    the process that starts it does.
    """
    if keeps_memory:
        return {**_THREADS, **_KEPT_MEMORY, **os.environ}
    inherited = {name: value for name, value in os.environ.items() if name not in _KEPT_MEMORY}
    return {**_THREADS, **inherited}
