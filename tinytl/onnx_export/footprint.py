"""What classifying with an exported model takes, measured in a process that does nothing else.

python -m tinytl.onnx_export.footprint model.onnx
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Peaks of resident memory over loading a model and classifying one image twice, as
    onnxruntime may hold more from the second run on: of the whole process, Python and libraries
    included, and beyond these."""

    process_bytes: int
    growth_bytes: int


def measure_footprint(model: Path) -> Footprint | None:
    """In a fresh process; None where the system does not tell (other than Linux), or has no room
    for one."""
    command = [sys.executable, "-m", "tinytl.onnx_export.footprint", str(model)]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return None if found is None else Footprint(**found)


def _measure(model: Path) -> Footprint | None:
    import numpy as np

    from tinytl.onnx_export.predict import open_session, run

    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5")  # the peak so far is forgotten: importing has one of its own
    before = _status_bytes("VmRSS")
    session = open_session(model, num_threads=1)
    shape = session.get_inputs()[0].shape[1:]
    for _ in range(2):
        run(session, np.zeros((1, *shape), np.uint8))
    peak = _status_bytes("VmHWM")
    return Footprint(process_bytes=peak, growth_bytes=peak - before)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status lacks {field}")


if __name__ == "__main__":
    measured = _measure(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(measured and asdict(measured)) + "\n")
