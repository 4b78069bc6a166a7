"""What a run's jobs use of other machines: a Ray cluster that runs their tasks, and an S3 server
that has their artifacts. Both are of the run's own, on this machine."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from tests.service.support.own_s3 import S3Server, own_s3
from tests.service.support.ray_cluster import RayCluster

_NUM_NODES = 2
_PATIENCE_SECONDS = 15.0
"""Of jobs, for either."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    ray: RayCluster
    s3: S3Server

    @property
    def artifact_url(self) -> str:
        return f"{self.s3.url}/artifacts"

    @property
    def settings(self) -> dict[str, str]:
        """Of the service that is to use them."""
        return {
            **self.ray.environment,
            **self.s3.environment,
            "TINYFIT_RAY_ADDRESS": self.ray.address,
            "TINYFIT_RAY_PATIENCE_SECONDS": str(_PATIENCE_SECONDS),
            "TINYFIT_ARTIFACT_URL": self.artifact_url,
            "TINYFIT_ARTIFACT_PATIENCE_SECONDS": str(_PATIENCE_SECONDS),
        }

    def kill_node(self, rng: random.Random) -> bool:
        """Kill a node with all that is on it, and start one in its place, which takes seconds."""
        self.ray.kill_any_node(rng)
        self.ray.add_node()
        return True

    def kill_cluster(self) -> bool:
        """Kill every node, the head too, and start a new cluster at the same address."""
        self.ray.kill()
        self.ray.start(_NUM_NODES)
        return True

    def take_s3_away(self) -> Callable[[], None] | None:
        """Kill the S3 server, until what is returned is called; None where it is away."""
        if self.s3.process is None:
            return None
        self.s3.stop()
        return self.s3.start


@contextmanager
def new_remote() -> Iterator[Remote]:
    """Both, up and running; this process may use the S3 server, too."""
    ray = RayCluster()
    try:
        ray.start(_NUM_NODES)
        with own_s3() as s3, patch.dict(os.environ, s3.environment):
            yield Remote(ray=ray, s3=s3)
    finally:
        ray.close()
