"""Whether a cluster has any node that could run a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_SAY_AFTER_SECONDS = 5.0
"""A node that is started again is away for so long."""


class Room:
    """Tells when no node of a Ray cluster could run a task, however idle it were, and when one can
    again. Ray itself waits in silence until one joins.

    wanted: what a task takes, by Ray's names, such as CPU and GPU.
    """

    def __init__(self, wanted: Mapping[str, float], say: Callable[[str], None]) -> None:
        self._wanted, self._say = wanted, say
        self._lacks_since: float | None = None
        self._is_told = False

    def look(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """nodes: as ray.nodes() has them."""
        if any(node["Alive"] and self._fits(node["Resources"]) for node in nodes):
            if self._is_told:
                self._say("the Ray cluster has a node for this job's tasks now")
            self._lacks_since, self._is_told = None, False
            return
        if self._lacks_since is None:
            self._lacks_since = time.monotonic()
        if not self._is_told and time.monotonic() - self._lacks_since >= _SAY_AFTER_SECONDS:
            self._is_told = True
            wanted = " and ".join(f"{kind} {amount:g}" for kind, amount in self._wanted.items())
            self._say(
                f"this job's tasks wait: no node of the Ray cluster has {wanted}, which each of "
                f"them takes; they go on once one joins"
            )

    def _fits(self, resources: Mapping[str, float]) -> bool:
        return all(resources.get(kind, 0) >= amount for kind, amount in self._wanted.items())
