"""The processor's time of jobs."""

from __future__ import annotations

import resource


def seconds_of_children() -> float:
    """Processor time of all processes that were started here, or by those, and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
