"""The processes that train a supernet together, each on its share of every batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

_PATIENCE = timedelta(hours=6)
"""The others wait while the first one validates."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process's place among world_size processes, and its device."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """The first process validates and writes; the others only train."""
        return self.rank == 0

    def first_says(self, answer: bool) -> bool:
        """What the first process answers, in all of them; they must all ask."""
        if self.world_size == 1:
            return answer
        told = torch.tensor([answer], dtype=torch.uint8, device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())


def join_group(rank: int, world_size: int, meeting_point: Path) -> Group:
    """Wait for the others at a file that is not there yet. One GPU each, or all on the CPU."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=meeting_point.absolute().as_uri(),
        rank=rank,
        world_size=world_size,
        timeout=_PATIENCE,
    )
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    return Group(rank=rank, world_size=world_size, device=device)
