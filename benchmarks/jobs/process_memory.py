"""The most memory that a process and all that it started had together, on Linux."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")
_SECONDS = 0.2


class MemoryWatch:
    """Looks at a process and its descendants, every fifth of a second in a with-block.

    peak_bytes: the largest sum of their proportional set sizes (a page that n processes share
    counts as an n-th of a page in each); None where the system does not tell. A process whose
    parent has ended is a descendant as long as it runs.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes: int | None = None
        self._known = {pid}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._known = with_descendants(self._known)
            sizes = [size for pid in self._known if (size := proportional_bytes(pid)) is not None]
            if sizes:
                self.peak_bytes = max(self.peak_bytes or 0, sum(sizes))
            if self._ended.wait(_SECONDS):
                return


def with_descendants(pids: set[int]) -> set[int]:
    """These processes and all that descend from them, of those that still are."""
    children = defaultdict(list)
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may hold anything; then come the state and the parent
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it has ended
            continue
        children[parent].append(int(entry.parent.name))
    alive = {pid for found in children.values() for pid in found}
    reached: set[int] = set()
    waiting = [pid for pid in pids if pid in alive]
    while waiting:
        pid = waiting.pop()
        if pid not in reached:
            reached.add(pid)
            waiting += children[pid]
    return reached


def proportional_bytes(pid: int) -> int | None:
    """The process's proportional set size; None where it has ended or the system has none."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    return 1024 * kilobytes[0] if kilobytes else None
