"""How many threads torch works with. No torch here: it is read when torch is imported."""

from __future__ import annotations

import os

_DEFAULTS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""The steps of a small network are too short to share: a thread takes longer to wake than an
operation lasts. Where there are more, those that wait must not take the processor from others."""


def torch_environment() -> dict[str, str]:
    """The environment for a process that runs torch; what the user's own sets stays."""
    return {**_DEFAULTS, **os.environ}
